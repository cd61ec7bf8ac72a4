// Rows and samples of the patch matrix of a view: a row is a channel and a tap, a sample an output position of an image.
// Their parts of an input's index add up, and so do their input rows and columns: an entry costs a few additions.
// Needs shared/window.
struct Row { offset: i32, row: i32, column: i32 }
struct Sample { offset: i32, row: i32, column: i32 }

// An input row outside of any image, also after a tap is added (sizes and pads are below 2^29 and 2^30).
const OUTSIDE: i32 = 0x60000000;

// Row `r` of a group's `rows`; outside beyond the last.
fn row_of(w: Window, group: u32, r: u32, rows: u32) -> Row {
    if r >= rows {
        return Row(0, OUTSIDE, 0);
    }
    let taps = w.kernel_h * w.kernel_w;
    let tap = r % taps;
    let channel = group * (w.in_c / w.groups) + r / taps;
    let row = i32(tap / w.kernel_w * w.dilation_h) - w.pad_h;
    let column = i32(tap % w.kernel_w * w.dilation_w) - w.pad_w;
    return Row(i32(channel * w.in_h * w.in_w) + row * i32(w.in_w) + column, row, column);
}

// A sample's image, output row and output column.
fn place_of(w: Window, sample: u32) -> vec3<u32> {
    let area = w.out_h * w.out_w;
    return vec3<u32>(sample / area, sample % area / w.out_w, sample % w.out_w);
}

// The place as many samples later as `step` is from the first.
fn place_after(w: Window, place: vec3<u32>, step: vec3<u32>) -> vec3<u32> {
    var at = place + step;
    if at.z >= w.out_w {
        at.z -= w.out_w;
        at.y += 1u;
    }
    if at.y >= w.out_h {
        at.y -= w.out_h;
        at.x += 1u;
    }
    return at;
}

// Outside beyond the last image.
fn sample_at(w: Window, place: vec3<u32>) -> Sample {
    let row = i32(place.y * w.stride_h);
    let column = i32(place.z * w.stride_w);
    let offset = i32(place.x * (w.in_c * w.in_h * w.in_w)) + row * i32(w.in_w) + column;
    return Sample(offset, select(row, OUTSIDE, place.x >= w.images), column);
}

// The input's index of row r at a sample, or 0xffffffff for zero.
fn entry(w: Window, r: Row, s: Sample) -> u32 {
    let inside = u32(s.row + r.row) < w.in_h && u32(s.column + r.column) < w.in_w;
    return select(0xffffffffu, u32(s.offset + r.offset), inside);
}
