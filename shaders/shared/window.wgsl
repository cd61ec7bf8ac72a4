// A sliding window over images in CHW order; 16 words, so that it may stand first in a uniform.
// Output position (y, x), tap (i, j) reads input row y * stride_h + i * dilation_h - pad_h, column likewise.
struct Window {
    images: u32,
    groups: u32,
    in_c: u32, in_h: u32, in_w: u32,
    out_c: u32, out_h: u32, out_w: u32,
    kernel_h: u32, kernel_w: u32,
    stride_h: u32, stride_w: u32,
    dilation_h: u32, dilation_w: u32,
    pad_h: i32, pad_w: i32,
}

// The input's index of channel `c` at input row and column, or 0xffffffff where these lie outside (padding).
fn window_at(w: Window, image: u32, c: u32, row: i32, column: i32) -> u32 {
    if row < 0 || column < 0 || row >= i32(w.in_h) || column >= i32(w.in_w) {
        return 0xffffffffu;
    }
    return ((image * w.in_c + c) * w.in_h + u32(row)) * w.in_w + u32(column);
}
