// The moments of spike counts, 0 to 255, in integers: as gram.wgsl, but exact, and four samples at a time.
//   pair: partial[split][group][r - first_row][c] += sum over the split's samples of a[r] * b[c]
//   sums: partial[split][group][r]                += sum over the split's samples of a[r]
// a, b: images x in_c x in_h x in_w each, whole numbers held as f32, with the same groups and output positions.
//
// Four consecutive samples of a row are packed into the bytes of one word on their way into workgroup memory, and
// multiplied by packed 8-bit dot products, which add up in u32: the host takes the partial sums before they overflow.
// Splits, tiles and workgroups as in gram.wgsl, one chunk a split:
//   pair:      tiles of 64 x 64, a thread 4 x 4 of it, 16 words (64 samples) at a time
//   pair_wide: tiles of 128 x 128, a thread 4 x 4 of each quarter, 8 words at a time
//   sums:      64 threads for one split, group and row.
#import shared/index
#import shared/window
#import shared/patches
#import shared/gram
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial_sums: array<u32>;

// [word][rows / 4], padded as in gram.wgsl
var<workgroup> left: array<vec4<u32>, 272>;
var<workgroup> right: array<vec4<u32>, 272>;
var<workgroup> tree: array<u32, 64>;

// The bytes of four counts. A sum of two with 2^23 holds them in its lowest bits, exactly: cheaper than conversions.
fn packed(v: vec4<f32>) -> u32 {
    let pairs = bitcast<vec2<u32>>(v.xz + 256.0 * v.yw + 8388608.0);
    return (pairs.x & 0xffffu) | (pairs.y << 16u);
}

fn a_value(index: u32, inside: bool) -> f32 {
    return select(0.0, a[select(0u, index, inside)], inside);
}

fn b_value(index: u32, inside: bool) -> f32 {
    return select(0.0, b[select(0u, index, inside)], inside);
}

// Where four consecutive samples of a row are read, and which of them lie inside.
struct Reads { index: vec4<u32>, inside: vec4<bool> }

fn reads(w: Window, r: Row, place: vec3<u32>, s: Sample) -> Reads {
    if place.z + 3u < w.out_w {
        // All in one output row: only the column differs.
        let apart = vec4<i32>(0, 1, 2, 3) * i32(w.stride_w);
        let columns = bitcast<vec4<u32>>(vec4<i32>(s.column + r.column) + apart);
        let inside = columns < vec4<u32>(w.in_w);
        let row = u32(s.row + r.row) < w.in_h;
        return Reads(bitcast<vec4<u32>>(vec4<i32>(s.offset + r.offset) + apart), inside & vec4<bool>(row));
    }
    let one = vec3<u32>(0u, 0u, 1u);
    let place1 = place_after(w, place, one);
    let place2 = place_after(w, place1, one);
    let place3 = place_after(w, place2, one);
    let index = vec4<u32>(
        entry(w, r, s),
        entry(w, r, sample_at(w, place1)),
        entry(w, r, sample_at(w, place2)),
        entry(w, r, sample_at(w, place3)),
    );
    return Reads(index, index != vec4<u32>(0xffffffffu));
}

fn a_word(r: Row, place: vec3<u32>, s: Sample) -> u32 {
    let found = reads(p.a, r, place, s);
    return packed(vec4<f32>(
        a_value(found.index.x, found.inside.x),
        a_value(found.index.y, found.inside.y),
        a_value(found.index.z, found.inside.z),
        a_value(found.index.w, found.inside.w),
    ));
}

fn b_word(r: Row, place: vec3<u32>, s: Sample) -> u32 {
    let found = reads(p.b, r, place, s);
    return packed(vec4<f32>(
        b_value(found.index.x, found.inside.x),
        b_value(found.index.y, found.inside.y),
        b_value(found.index.z, found.inside.z),
        b_value(found.index.w, found.inside.w),
    ));
}

fn a_four(r: Rows, place: vec3<u32>) -> vec4<u32> {
    let s = sample_at(p.a, place);
    return vec4<u32>(a_word(r.r0, place, s), a_word(r.r1, place, s), a_word(r.r2, place, s), a_word(r.r3, place, s));
}

fn b_four(r: Rows, place: vec3<u32>) -> vec4<u32> {
    let s = sample_at(p.b, place);
    return vec4<u32>(b_word(r.r0, place, s), b_word(r.r1, place, s), b_word(r.r2, place, s), b_word(r.r3, place, s));
}

// Four rows by four columns of a tile.
struct Patch { r0: vec4<u32>, r1: vec4<u32>, r2: vec4<u32>, r3: vec4<u32> }

fn dots(u: u32, v: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(dot4U8Packed(u, v.x), dot4U8Packed(u, v.y), dot4U8Packed(u, v.z), dot4U8Packed(u, v.w));
}

fn gain(sum: ptr<function, Patch>, u: vec4<u32>, v: vec4<u32>) {
    (*sum).r0 += dots(u.x, v);
    (*sum).r1 += dots(u.y, v);
    (*sum).r2 += dots(u.z, v);
    (*sum).r3 += dots(u.w, v);
}

fn store(slot: u32, r: u32, c: u32, v: vec4<u32>) {
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
    var at = place_of(p.a, job.begin + 4u * lane);
    var next_left = a_four(rows, at);
    var next_right = b_four(columns, at);
    var sum = Patch();
    for (var s = job.begin; s < job.end; s += 64u) {
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
    var at = place_of(p.a, job.begin + 4u * load_lane);
    var next_left = a_four(rows, at);
    var next_right = b_four(columns, at);
    var sum00 = Patch();
    var sum01 = Patch();
    var sum10 = Patch();
    var sum11 = Patch();
    for (var s = job.begin; s < job.end; s += 32u) {
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
    var sum = 0u;
    for (var s = begin + t; s < end; s += 64u) {
        let i = entry(p.a, r, sample_at(p.a, place_of(p.a, s)));
        sum += u32(a_value(i, i != 0xffffffffu));
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
        partial_sums[number] += tree[0];
    }
}
