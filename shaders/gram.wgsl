// Least-squares moments without the patch matrix. Two views of the same samples, a and b (the patches of a block of
// inputs, or the targets as 1 x 1 patches of themselves); a sample is an output position of an image.
//   pair: partial[split][group][r - first_row][c] += sum over the split's samples of a[r] * b[c]
//   sums: partial[split][group][r][0 and 1]       += sum over the split's samples of a[r] and of a[r]^2
// a, b: images x in_c x in_h x in_w each, with the same groups and the same output positions.
//
// A split is p.length (a multiple of 16) consecutive samples from first_sample + p.length * split: short enough for f32; partials are taken to
// f64 by the host. `pair`: a workgroup of 256 threads makes a 64 x 64 tile for one split and group, a thread 4 x 4 of
// it, 16 samples at a time through workgroup memory; with `symmetric` (a is b) tiles above the diagonal are left out.
// Workgroups: splits x groups x row tiles x column tiles (columns fastest). `pair_small`: the same with tiles of
// 16 x 16, one element a thread, for views of few rows (depthwise convolutions, few outputs). `sums`: 64 threads for one split and row.
#import shared/index
#import shared/window
struct Params {
    a: Window,
    b: Window,
    rows_a: u32, rows_b: u32,
    first_row: u32, rows: u32,
    splits: u32,
    length: u32,
    first_sample: u32, samples: u32,
    symmetric: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial_sums: array<f32>;


// [sample][rows / 4]
var<workgroup> left: array<vec4<f32>, 256>;
var<workgroup> right: array<vec4<f32>, 256>;
var<workgroup> left_small: array<f32, 256>;
var<workgroup> right_small: array<f32, 256>;
var<workgroup> tree: array<vec2<f32>, 64>;

// A row of a view: its channel and tap; channel 0xffffffff beyond the last row.
struct Row { channel: u32, row: i32, column: i32 }

fn row_of(w: Window, group: u32, r: u32, rows: u32) -> Row {
    if r >= rows {
        return Row(0xffffffffu, 0, 0);
    }
    let taps = w.kernel_h * w.kernel_w;
    let tap = r % taps;
    return Row(
        group * (w.in_c / w.groups) + r / taps,
        i32(tap / w.kernel_w * w.dilation_h) - w.pad_h,
        i32(tap % w.kernel_w * w.dilation_w) - w.pad_w,
    );
}

// A sample's image, output row and output column (the same in both views); image 0xffffffff beyond the last sample.
fn place(sample: u32) -> vec3<u32> {
    let area = p.a.out_h * p.a.out_w;
    let pos = sample % area;
    return vec3<u32>(select(sample / area, 0xffffffffu, sample >= p.samples), pos / p.a.out_w, pos % p.a.out_w);
}

// Where row r reads for a sample; 0xffffffff for zero.
fn entry(w: Window, r: Row, at: vec3<u32>) -> u32 {
    if r.channel == 0xffffffffu || at.x == 0xffffffffu {
        return 0xffffffffu;
    }
    return window_at(w, at.x, r.channel, i32(at.y * w.stride_h) + r.row, i32(at.z * w.stride_w) + r.column);
}

fn a_at(r: Row, at: vec3<u32>) -> f32 {
    let i = entry(p.a, r, at);
    if i == 0xffffffffu {
        return 0.0;
    }
    return a[i];
}

fn b_at(r: Row, at: vec3<u32>) -> f32 {
    let i = entry(p.b, r, at);
    if i == 0xffffffffu {
        return 0.0;
    }
    return b[i];
}

fn store(slot: u32, r: u32, c: u32, v: vec4<f32>) {
    if r >= p.rows {
        return;
    }
    let i = (slot * p.rows + r) * p.rows_b + c;
    if c < p.rows_b {
        partial_sums[i] += v.x;
    }
    if c + 1u < p.rows_b {
        partial_sums[i + 1u] += v.y;
    }
    if c + 2u < p.rows_b {
        partial_sums[i + 2u] += v.z;
    }
    if c + 3u < p.rows_b {
        partial_sums[i + 3u] += v.w;
    }
}

@compute @workgroup_size(256)
fn pair(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let row_tiles = (p.rows + 63u) / 64u;
    let column_tiles = (p.rows_b + 63u) / 64u;
    let number = workgroup_number(wid, count);
    let slot = number / (row_tiles * column_tiles);
    let split = slot / p.a.groups;
    let group = slot % p.a.groups;
    let row0 = number / column_tiles % row_tiles * 64u;
    let column0 = number % column_tiles * 64u;
    // The same for the whole workgroup, so that the barriers below stand in uniform control flow.
    if split >= p.splits || (p.symmetric == 1u && column0 > p.first_row + row0 + 63u) {
        return;
    }
    let lane = t % 16u;
    let quad = t / 16u;
    let r = p.first_row + row0 + quad * 4u;
    let a0 = row_of(p.a, group, r, p.rows_a);
    let a1 = row_of(p.a, group, r + 1u, p.rows_a);
    let a2 = row_of(p.a, group, r + 2u, p.rows_a);
    let a3 = row_of(p.a, group, r + 3u, p.rows_a);
    let c = column0 + quad * 4u;
    let b0 = row_of(p.b, group, c, p.rows_b);
    let b1 = row_of(p.b, group, c + 1u, p.rows_b);
    let b2 = row_of(p.b, group, c + 2u, p.rows_b);
    let b3 = row_of(p.b, group, c + 3u, p.rows_b);
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    let begin = p.first_sample + split * p.length;
    let end = min(begin + p.length, p.samples);
    for (var s = begin; s < end; s += 16u) {
        let at = place(s + lane);
        left[lane * 16u + quad] =
            vec4<f32>(a_at(a0, at), a_at(a1, at), a_at(a2, at), a_at(a3, at));
        right[lane * 16u + quad] =
            vec4<f32>(b_at(b0, at), b_at(b1, at), b_at(b2, at), b_at(b3, at));
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            let u = left[i * 16u + quad];
            let v = right[i * 16u + lane];
            sum0 += u.x * v;
            sum1 += u.y * v;
            sum2 += u.z * v;
            sum3 += u.w * v;
        }
        workgroupBarrier();
    }
    let out = row0 + quad * 4u;
    let column = column0 + lane * 4u;
    store(slot, out, column, sum0);
    store(slot, out + 1u, column, sum1);
    store(slot, out + 2u, column, sum2);
    store(slot, out + 3u, column, sum3);
}

@compute @workgroup_size(256)
fn pair_small(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
              @builtin(local_invocation_index) t: u32) {
    let row_tiles = (p.rows + 15u) / 16u;
    let column_tiles = (p.rows_b + 15u) / 16u;
    let number = workgroup_number(wid, count);
    let slot = number / (row_tiles * column_tiles);
    let split = slot / p.a.groups;
    let group = slot % p.a.groups;
    let row0 = number / column_tiles % row_tiles * 16u;
    let column0 = number % column_tiles * 16u;
    // The same for the whole workgroup, as above.
    if split >= p.splits || (p.symmetric == 1u && column0 > p.first_row + row0 + 15u) {
        return;
    }
    let lane = t % 16u;
    let line = t / 16u;
    let row = row_of(p.a, group, p.first_row + row0 + line, p.rows_a);
    let column = row_of(p.b, group, column0 + line, p.rows_b);
    var sum = 0.0;
    let begin = p.first_sample + split * p.length;
    let end = min(begin + p.length, p.samples);
    for (var s = begin; s < end; s += 16u) {
        let at = place(s + lane);
        left_small[lane * 16u + line] = a_at(row, at);
        right_small[lane * 16u + line] = b_at(column, at);
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            sum += left_small[i * 16u + line] * right_small[i * 16u + lane];
        }
        workgroupBarrier();
    }
    if row0 + line < p.rows && column0 + lane < p.rows_b {
        partial_sums[(slot * p.rows + row0 + line) * p.rows_b + column0 + lane] += sum;
    }
}

@compute @workgroup_size(64)
fn sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let number = workgroup_number(wid, count);
    let slot = number / p.rows_a;
    let split = slot / p.a.groups;
    if split >= p.splits {
        return;
    }
    let r = row_of(p.a, slot % p.a.groups, number % p.rows_a, p.rows_a);
    let begin = p.first_sample + split * p.length;
    let end = min(begin + p.length, p.samples);
    var sum = vec2<f32>();
    for (var s = begin + t; s < end; s += 64u) {
        let v = a_at(r, place(s));
        sum += vec2<f32>(v, v * v);
    }
    tree[t] = sum;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if t < half {
            tree[t] += tree[t + half];
        }
        workgroupBarrier();
    }
    if t == 0u {
        partial_sums[2u * number] += tree[0].x;
        partial_sums[2u * number + 1u] += tree[0].y;
    }
}
