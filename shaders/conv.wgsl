// Convolution without the patch matrix, for reals (f32) and integers (i32):
//   y[image, o, pos] = start + sum over k in first_k..last_k of w[o, k] * patch(x, image, group of o, k, pos)
// x: images x in_c x in_h x in_w;  w: out_c x K, K = in_c/groups * kernel_h * kernel_w;  y: images x out_c x area.
// start: 0 nothing, 1 what y holds, 2 bias[o].
//
// `tiled`: a matrix product per group, rows = the group's output channels, columns = images x positions. A workgroup
// of 256 threads makes a 64 x 64 tile, a thread 4 x 4 of it; 16 values of k at a time pass through workgroup memory.
// Workgroups: groups x row tiles x column tiles (columns fastest).
// `direct`: one thread an output element, for groups with few output channels (depthwise).
// K is split over dispatches by the host, so that no invocation loops more than 32k times.
#import shared/scalar
#import shared/index
#import shared/window
struct Params {
    window: Window,
    first_k: u32, last_k: u32,
    start: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Scalar>;
@group(0) @binding(2) var<storage, read> w: array<Scalar>;
@group(0) @binding(3) var<storage, read> bias: array<Scalar>;
@group(0) @binding(4) var<storage, read_write> y: array<Scalar>;

// [k][rows / 4] and [k][columns / 4]
var<workgroup> left: array<vec4<Scalar>, 256>;
var<workgroup> right: array<vec4<Scalar>, 256>;

fn weight(row: u32, rows: u32, group: u32, k: u32, depth: u32) -> Scalar {
    if row >= rows || k >= p.last_k {
        return Scalar(0);
    }
    return w[(group * rows + row) * depth + k];
}

// Column -> (image, input row and column of tap (0, 0)); image = 0xffffffff beyond the last column.
struct Place { image: u32, row: i32, column: i32 }

fn place(column: u32) -> Place {
    let area = p.window.out_h * p.window.out_w;
    if column >= p.window.images * area {
        return Place(0xffffffffu, 0, 0);
    }
    let pos = column % area;
    return Place(
        column / area,
        i32(pos / p.window.out_w * p.window.stride_h) - p.window.pad_h,
        i32(pos % p.window.out_w * p.window.stride_w) - p.window.pad_w,
    );
}

fn patch_entry(at: Place, channel: u32, row: i32, column: i32) -> Scalar {
    if at.image == 0xffffffffu {
        return Scalar(0);
    }
    let i = window_at(p.window, at.image, channel, at.row + row, at.column + column);
    if i == 0xffffffffu {
        return Scalar(0);
    }
    return x[i];
}

fn begin(old: Scalar, o: u32) -> Scalar {
    if p.start == 1u {
        return old;
    }
    if p.start == 2u {
        return bias[o];
    }
    return Scalar(0);
}

fn store(row: u32, rows: u32, group: u32, column: u32, value: Scalar) {
    let area = p.window.out_h * p.window.out_w;
    if row >= rows || column >= p.window.images * area {
        return;
    }
    let o = group * rows + row;
    let i = (column / area * p.window.out_c + o) * area + column % area;
    y[i] = begin(y[i], o) + value;
}

fn store4(row: u32, rows: u32, group: u32, column: u32, v: vec4<Scalar>) {
    store(row, rows, group, column, v.x);
    store(row, rows, group, column + 1u, v.y);
    store(row, rows, group, column + 2u, v.z);
    store(row, rows, group, column + 3u, v.w);
}

@compute @workgroup_size(256)
fn tiled(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) t: u32) {
    let rows = p.window.out_c / p.window.groups;
    let columns = p.window.images * p.window.out_h * p.window.out_w;
    let taps = p.window.kernel_h * p.window.kernel_w;
    let channels = p.window.in_c / p.window.groups;
    let depth = channels * taps;
    let row_tiles = (rows + 63u) / 64u;
    let column_tiles = (columns + 63u) / 64u;
    let number = workgroup_number(wid, count);
    let group = number / (row_tiles * column_tiles);
    // Workgroups beyond the count still pass the barriers; their rows and columns fail every bound below.
    let idle = group >= p.window.groups;
    let row0 = select(number / column_tiles % row_tiles * 64u, 0xffff0000u, idle);
    let column0 = select(number % column_tiles * 64u, 0xffff0000u, idle);

    let load_k = t / 16u;
    let load_column = column0 + t % 16u * 4u;
    let place0 = place(load_column);
    let place1 = place(load_column + 1u);
    let place2 = place(load_column + 2u);
    let place3 = place(load_column + 3u);
    let weight_k = t % 16u;
    let weight_row = row0 + t / 16u * 4u;

    var sum0 = vec4<Scalar>();
    var sum1 = vec4<Scalar>();
    var sum2 = vec4<Scalar>();
    var sum3 = vec4<Scalar>();
    for (var k0 = p.first_k; k0 < p.last_k; k0 += 16u) {
        let kw = k0 + weight_k;
        left[weight_k * 16u + t / 16u] = vec4<Scalar>(
            weight(weight_row, rows, group, kw, depth),
            weight(weight_row + 1u, rows, group, kw, depth),
            weight(weight_row + 2u, rows, group, kw, depth),
            weight(weight_row + 3u, rows, group, kw, depth),
        );
        let k = k0 + load_k;
        var loaded = vec4<Scalar>();
        if k < p.last_k {
            let channel = group * channels + k / taps;
            let tap = k % taps;
            let row = i32(tap / p.window.kernel_w * p.window.dilation_h);
            let column = i32(tap % p.window.kernel_w * p.window.dilation_w);
            loaded = vec4<Scalar>(
                patch_entry(place0, channel, row, column),
                patch_entry(place1, channel, row, column),
                patch_entry(place2, channel, row, column),
                patch_entry(place3, channel, row, column),
            );
        }
        right[load_k * 16u + t % 16u] = loaded;
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            let a = left[i * 16u + t / 16u];
            let b = right[i * 16u + t % 16u];
            sum0 += a.x * b;
            sum1 += a.y * b;
            sum2 += a.z * b;
            sum3 += a.w * b;
        }
        workgroupBarrier();
    }
    if idle {
        return;
    }
    store4(weight_row, rows, group, load_column, sum0);
    store4(weight_row + 1u, rows, group, load_column, sum1);
    store4(weight_row + 2u, rows, group, load_column, sum2);
    store4(weight_row + 3u, rows, group, load_column, sum3);
}

@compute @workgroup_size(256)
fn direct(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    let area = p.window.out_h * p.window.out_w;
    if i >= p.window.images * p.window.out_c * area {
        return;
    }
    let o = i / area % p.window.out_c;
    let at = place(i / area / p.window.out_c * area + i % area);
    let taps = p.window.kernel_h * p.window.kernel_w;
    let channels = p.window.in_c / p.window.groups;
    let first_channel = o / (p.window.out_c / p.window.groups) * channels;
    var sum = Scalar(0);
    for (var k = p.first_k; k < p.last_k; k++) {
        let tap = k % taps;
        let row = i32(tap / p.window.kernel_w * p.window.dilation_h);
        let column = i32(tap % p.window.kernel_w * p.window.dilation_w);
        sum += w[o * channels * taps + k] * patch_entry(at, first_channel + k / taps, row, column);
    }
    y[i] = begin(y[i], o) + sum;
}
