// Least-squares moments without the patch matrix. Two views of the same samples, a and b (the patches of a block of
// inputs, or the targets as 1 x 1 patches of themselves); a sample is an output position of an image.
//   pair: partial[split][group][r - first_row][c] += sum over the split's samples of a[r] * b[c]
//   sums: partial[split][group][r][0 and 1]       += sum over the split's samples of a[r] and of a[r]^2
// a, b: images x in_c x in_h x in_w each, with the same groups and the same output positions.
//
// A split is p.chunks times p.length (a multiple of 16) consecutive samples from first_sample + split * chunks * length.
// A chunk is short enough for f32 and goes to the partial sums before the next one begins; these are taken to f64 by the
// host. With `symmetric` (a is b) tiles above the diagonal are left out. A workgroup of 256 threads makes one tile for one
// split and group; workgroups: splits x groups x row tiles x column tiles (columns fastest).
//   pair:       tiles of 64 x 64, a thread 4 x 4 of it, 16 samples at a time through workgroup memory
//   pair_wide:  tiles of 128 x 128, a thread 4 x 4 of each quarter, 8 samples at a time
//   pair_small: tiles of 16 x 16, one element a thread, for views of few rows (depthwise convolutions, few outputs)
//   sums:       64 threads for one split, group and row.
#import shared/index
#import shared/window
#import shared/patches
#import shared/gram
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial_sums: array<f32>;

// [sample][rows / 4], a sample's 16 (or 32) vectors padded by one so that writes meet different banks
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;
var<workgroup> left_small: array<f32, 256>;
var<workgroup> right_small: array<f32, 256>;
var<workgroup> tree: array<vec2<f32>, 64>;

fn a_at(r: Row, s: Sample) -> f32 {
    let i = entry(p.a, r, s);
    return select(a[select(i, 0u, i == 0xffffffffu)], 0.0, i == 0xffffffffu);
}

fn b_at(r: Row, s: Sample) -> f32 {
    let i = entry(p.b, r, s);
    return select(b[select(i, 0u, i == 0xffffffffu)], 0.0, i == 0xffffffffu);
}

fn a_four(r: Rows, place: vec3<u32>) -> vec4<f32> {
    let s = sample_at(p.a, place);
    return vec4<f32>(a_at(r.r0, s), a_at(r.r1, s), a_at(r.r2, s), a_at(r.r3, s));
}

fn b_four(r: Rows, place: vec3<u32>) -> vec4<f32> {
    let s = sample_at(p.b, place);
    return vec4<f32>(b_at(r.r0, s), b_at(r.r1, s), b_at(r.r2, s), b_at(r.r3, s));
}

// Four rows by four columns of a tile.
struct Patch { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32> }

fn gain(sum: ptr<function, Patch>, u: vec4<f32>, v: vec4<f32>) {
    (*sum).r0 += u.x * v;
    (*sum).r1 += u.y * v;
    (*sum).r2 += u.z * v;
    (*sum).r3 += u.w * v;
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

fn store_patch(slot: u32, r: u32, c: u32, sum: Patch) {
    store(slot, r, c, sum.r0);
    store(slot, r + 1u, c, sum.r1);
    store(slot, r + 2u, c, sum.r2);
    store(slot, r + 3u, c, sum.r3);
}

@compute @workgroup_size(256)
fn pair(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let job = job_of(workgroup_number(wid, count), 64u);
    if job.idle {
        return;
    }
    let lane = t % 16u;
    let quad = t / 16u;
    let rows = rows_of(p.a, job.group, p.first_row + job.row + quad * 4u, p.rows_a);
    let columns = rows_of(p.b, job.group, job.column + quad * 4u, p.rows_b);
    let step = vec3<u32>(p.step_x, p.step_y, p.step_z);
    var at = place_of(p.a, job.begin + lane);
    var next_left = a_four(rows, at);
    var next_right = b_four(columns, at);
    for (var chunk = job.begin; chunk < job.end; chunk += p.length) {
        var sum = Patch();
        for (var s = chunk; s < min(chunk + p.length, job.end); s += 16u) {
            left[lane * 17u + quad] = next_left;
            right[lane * 17u + quad] = next_right;
            workgroupBarrier();
            at = place_after(p.a, at, step);
            next_left = a_four(rows, at);
            next_right = b_four(columns, at);
            for (var i = 0u; i < 16u; i++) {
                gain(&sum, left[i * 17u + quad], right[i * 17u + lane]);
            }
            workgroupBarrier();
        }
        store_patch(job.slot, job.row + quad * 4u, job.column + lane * 4u, sum);
    }
}

@compute @workgroup_size(256)
fn pair_wide(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
             @builtin(local_invocation_index) t: u32) {
    let job = job_of(workgroup_number(wid, count), 128u);
    if job.idle {
        return;
    }
    let lane = t % 16u;
    let quad = t / 16u;
    let load_lane = t % 8u;
    let load_quad = t / 8u;
    let rows = rows_of(p.a, job.group, p.first_row + job.row + load_quad * 4u, p.rows_a);
    let columns = rows_of(p.b, job.group, job.column + load_quad * 4u, p.rows_b);
    let step = vec3<u32>(p.wide_x, p.wide_y, p.wide_z);
    var at = place_of(p.a, job.begin + load_lane);
    var next_left = a_four(rows, at);
    var next_right = b_four(columns, at);
    for (var chunk = job.begin; chunk < job.end; chunk += p.length) {
        var sum00 = Patch();
        var sum01 = Patch();
        var sum10 = Patch();
        var sum11 = Patch();
        for (var s = chunk; s < min(chunk + p.length, job.end); s += 8u) {
            left[load_lane * 33u + load_quad] = next_left;
            right[load_lane * 33u + load_quad] = next_right;
            workgroupBarrier();
            at = place_after(p.a, at, step);
            next_left = a_four(rows, at);
            next_right = b_four(columns, at);
            for (var i = 0u; i < 8u; i++) {
                let u0 = left[i * 33u + quad];
                let u1 = left[i * 33u + 16u + quad];
                let v0 = right[i * 33u + lane];
                let v1 = right[i * 33u + 16u + lane];
                gain(&sum00, u0, v0);
                gain(&sum01, u0, v1);
                gain(&sum10, u1, v0);
                gain(&sum11, u1, v1);
            }
            workgroupBarrier();
        }
        let row = job.row + quad * 4u;
        let column = job.column + lane * 4u;
        store_patch(job.slot, row, column, sum00);
        store_patch(job.slot, row, column + 64u, sum01);
        store_patch(job.slot, row + 64u, column, sum10);
        store_patch(job.slot, row + 64u, column + 64u, sum11);
    }
}

@compute @workgroup_size(256)
fn pair_small(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
              @builtin(local_invocation_index) t: u32) {
    let job = job_of(workgroup_number(wid, count), 16u);
    if job.idle {
        return;
    }
    let lane = t % 16u;
    let line = t / 16u;
    let row = row_of(p.a, job.group, p.first_row + job.row + line, p.rows_a);
    let column = row_of(p.b, job.group, job.column + line, p.rows_b);
    let step = vec3<u32>(p.step_x, p.step_y, p.step_z);
    var at = place_of(p.a, job.begin + lane);
    for (var chunk = job.begin; chunk < job.end; chunk += p.length) {
        var sum = 0.0;
        for (var s = chunk; s < min(chunk + p.length, job.end); s += 16u) {
            left_small[lane * 16u + line] = a_at(row, sample_at(p.a, at));
            right_small[lane * 16u + line] = b_at(column, sample_at(p.b, at));
            at = place_after(p.a, at, step);
            workgroupBarrier();
            for (var i = 0u; i < 16u; i++) {
                sum += left_small[i * 16u + line] * right_small[i * 16u + lane];
            }
            workgroupBarrier();
        }
        if job.row + line < p.rows && job.column + lane < p.rows_b {
            partial_sums[(job.slot * p.rows + job.row + line) * p.rows_b + job.column + lane] += sum;
        }
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
    let begin = p.first_sample + split * p.chunks * p.length;
    let end = min(begin + p.chunks * p.length, p.samples);
    var sum = vec2<f32>();
    for (var s = begin + t; s < end; s += 64u) {
        let v = a_at(r, sample_at(p.a, place_of(p.a, s)));
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
