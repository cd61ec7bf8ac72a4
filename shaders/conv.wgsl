// Convolution without the patch matrix, for reals (f32) and integers (i32):
//   y[image, o, pos] = start + sum over k in first_k..last_k of w[o, k] * patch(x, image, group of o, k, pos)
// x: images x in_c x in_h x in_w;  w: out_c x K, K = in_c/groups * kernel_h * kernel_w;  y: images x out_c x area.
// start: 0 nothing, 1 what y holds, 2 bias[o].
//
// A matrix product per group, rows = the group's output channels, columns = images x positions. A workgroup of 256
// threads makes a tile. Workgroups: groups x row tiles x column tiles (columns fastest).
//   tiled:      64 x 64, a thread 4 x 4 of it; 16 values of k at a time pass through workgroup memory
//   tiled_wide: 128 x 128, a thread 4 x 4 of each quarter; 8 values of k at a time
//   direct:     one thread an output element, for groups with few output channels (depthwise).
// A thread's four columns are 16 apart, so that neighbours read and write neighbours.
// K is split over dispatches by the host, so that no invocation loops more than 32k times.
#import shared/scalar
#import shared/index
#import shared/window
#import shared/patches
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

// [k][rows / 4] (padded, so that writes meet different banks) and [k][columns / 4]
var<workgroup> left: array<vec4<Scalar>, 272>;
var<workgroup> right: array<vec4<Scalar>, 256>;

fn weight(row: u32, rows: u32, group: u32, k: u32, depth: u32) -> Scalar {
    if row >= rows || k >= p.last_k {
        return Scalar(0);
    }
    return w[(group * rows + row) * depth + k];
}

fn weights(row: u32, rows: u32, group: u32, k: u32, depth: u32) -> vec4<Scalar> {
    return vec4<Scalar>(
        weight(row, rows, group, k, depth),
        weight(row + 1u, rows, group, k, depth),
        weight(row + 2u, rows, group, k, depth),
        weight(row + 3u, rows, group, k, depth),
    );
}

// What four columns, 16 apart, read.
struct Columns { c0: Sample, c1: Sample, c2: Sample, c3: Sample }

fn columns_at(column: u32) -> Columns {
    return Columns(
        sample_at(p.window, place_of(p.window, column)),
        sample_at(p.window, place_of(p.window, column + 16u)),
        sample_at(p.window, place_of(p.window, column + 32u)),
        sample_at(p.window, place_of(p.window, column + 48u)),
    );
}

fn patch_entry(r: Row, s: Sample) -> Scalar {
    let i = entry(p.window, r, s);
    return select(x[select(i, 0u, i == 0xffffffffu)], Scalar(0), i == 0xffffffffu);
}

fn entries(group: u32, k: u32, columns: Columns) -> vec4<Scalar> {
    let r = row_of(p.window, group, k, p.last_k);
    return vec4<Scalar>(
        patch_entry(r, columns.c0),
        patch_entry(r, columns.c1),
        patch_entry(r, columns.c2),
        patch_entry(r, columns.c3),
    );
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

// Four rows by four columns of a tile.
struct Patch { r0: vec4<Scalar>, r1: vec4<Scalar>, r2: vec4<Scalar>, r3: vec4<Scalar> }

fn gain(sum: ptr<function, Patch>, u: vec4<Scalar>, v: vec4<Scalar>) {
    (*sum).r0 += u.x * v;
    (*sum).r1 += u.y * v;
    (*sum).r2 += u.z * v;
    (*sum).r3 += u.w * v;
}

fn store4(row: u32, rows: u32, group: u32, column: u32, v: vec4<Scalar>) {
    store(row, rows, group, column, v.x);
    store(row, rows, group, column + 16u, v.y);
    store(row, rows, group, column + 32u, v.z);
    store(row, rows, group, column + 48u, v.w);
}

fn store_patch(row: u32, rows: u32, group: u32, column: u32, sum: Patch) {
    store4(row, rows, group, column, sum.r0);
    store4(row + 1u, rows, group, column, sum.r1);
    store4(row + 2u, rows, group, column, sum.r2);
    store4(row + 3u, rows, group, column, sum.r3);
}

// What a workgroup makes; for the whole workgroup the same, so that barriers stand in uniform control flow.
struct Job { group: u32, row: u32, column: u32, idle: bool }

fn job_of(number: u32, side: u32) -> Job {
    let row_tiles = (p.window.out_c / p.window.groups + side - 1u) / side;
    let column_tiles = (p.window.images * p.window.out_h * p.window.out_w + side - 1u) / side;
    let group = number / (row_tiles * column_tiles);
    let row = number / column_tiles % row_tiles * side;
    return Job(group, row, number % column_tiles * side, group >= p.window.groups);
}

fn depth_of() -> u32 {
    return p.window.in_c / p.window.groups * p.window.kernel_h * p.window.kernel_w;
}

@compute @workgroup_size(256)
fn tiled(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) t: u32) {
    let job = job_of(workgroup_number(wid, count), 64u);
    if job.idle {
        return;
    }
    let rows = p.window.out_c / p.window.groups;
    let depth = depth_of();
    let lane = t % 16u;
    let quad = t / 16u;
    let row = job.row + quad * 4u;
    let column = job.column + lane;
    let columns = columns_at(column);
    var next_left = weights(row, rows, job.group, p.first_k + lane, depth);
    var next_right = entries(job.group, p.first_k + quad, columns);
    var sum = Patch();
    for (var k = p.first_k; k < p.last_k; k += 16u) {
        left[lane * 17u + quad] = next_left;
        right[quad * 16u + lane] = next_right;
        workgroupBarrier();
        next_left = weights(row, rows, job.group, k + 16u + lane, depth);
        next_right = entries(job.group, k + 16u + quad, columns);
        for (var i = 0u; i < 16u; i++) {
            gain(&sum, left[i * 17u + quad], right[i * 16u + lane]);
        }
        workgroupBarrier();
    }
    store_patch(row, rows, job.group, column, sum);
}

@compute @workgroup_size(256)
fn tiled_wide(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
              @builtin(local_invocation_index) t: u32) {
    let job = job_of(workgroup_number(wid, count), 128u);
    if job.idle {
        return;
    }
    let rows = p.window.out_c / p.window.groups;
    let depth = depth_of();
    let lane = t % 16u;
    let quad = t / 16u;
    // Loads: eight values of k by 32 vectors of four rows, and of four columns in either half of the tile.
    let weight_k = t % 8u;
    let weight_row = job.row + t / 8u * 4u;
    let load_k = t / 32u;
    let columns = columns_at(job.column + t % 32u / 16u * 64u + lane);
    var next_left = weights(weight_row, rows, job.group, p.first_k + weight_k, depth);
    var next_right = entries(job.group, p.first_k + load_k, columns);
    var sum00 = Patch();
    var sum01 = Patch();
    var sum10 = Patch();
    var sum11 = Patch();
    for (var k = p.first_k; k < p.last_k; k += 8u) {
        left[weight_k * 33u + t / 8u] = next_left;
        right[load_k * 32u + t % 32u] = next_right;
        workgroupBarrier();
        next_left = weights(weight_row, rows, job.group, k + 8u + weight_k, depth);
        next_right = entries(job.group, k + 8u + load_k, columns);
        for (var i = 0u; i < 8u; i++) {
            let u0 = left[i * 33u + quad];
            let u1 = left[i * 33u + 16u + quad];
            let v0 = right[i * 32u + lane];
            let v1 = right[i * 32u + 16u + lane];
            gain(&sum00, u0, v0);
            gain(&sum01, u0, v1);
            gain(&sum10, u1, v0);
            gain(&sum11, u1, v1);
        }
        workgroupBarrier();
    }
    let row = job.row + quad * 4u;
    let column = job.column + lane;
    store_patch(row, rows, job.group, column, sum00);
    store_patch(row, rows, job.group, column + 64u, sum01);
    store_patch(row + 64u, rows, job.group, column, sum10);
    store_patch(row + 64u, rows, job.group, column + 64u, sum11);
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
    let s = sample_at(p.window, place_of(p.window, i / area / p.window.out_c * area + i % area));
    let group = o / (p.window.out_c / p.window.groups);
    let depth = depth_of();
    var sum = Scalar(0);
    for (var k = p.first_k; k < p.last_k; k++) {
        sum += w[o * depth + k] * patch_entry(row_of(p.window, group, k, p.last_k), s);
    }
    y[i] = begin(y[i], o) + sum;
}
