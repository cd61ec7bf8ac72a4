// Triangular solves with many right-hand sides in place: every row x of X (m x n, row-major) becomes L^-1 x
// (forward) or L^-T x (backward). L: n x n, lower half, in bands of rows as cholesky.wgsl holds them; a dispatch sees one
// band. For every block of 32 unknowns from `first` (forwards or backwards):
//   diagonal: solves for the block's unknowns, whose rows the band holds; 64 threads, a right-hand side each.
//   update:   the unknowns still to come lose the block's share, X[r][j] -= sum over the block of X[r][c] L[j][c]
//             (backward: L[c][j]); 256 threads make a 64 x 64 tile, 4 x 4 each, for j in begin..end. Forward, once for
//             every band, which holds the rows begin..end; backward, once, for the band of the block.
//             Workgroups: row tiles x column tiles.
#import shared/index
struct Params {
    n: u32, m: u32, first: u32, begin: u32, end: u32, backward: u32,
    band_row: u32, band_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> l: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

const BLOCK = 32u;
fn at(row: u32, column: u32) -> u32 {
    return (row - p.band_row) * p.band_stride + column;
}

var<workgroup> block: array<f32, 1024>;
// 64 right-hand sides x 32, each one word further on: threads that each have one meet different banks
const STRIDE = 33u;
var<workgroup> lines: array<f32, 2112>;
// [unknown of the block][rows / 4], 16 unknowns at a time
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

@compute @workgroup_size(64)
fn diagonal(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
            @builtin(local_invocation_index) t: u32) {
    let size = min(BLOCK, p.n - p.first);
    for (var i = t; i < size * BLOCK; i += 64u) {
        if i % BLOCK < size {
            block[i] = l[at(p.first + i / BLOCK, p.first + i % BLOCK)];
        }
    }
    workgroupBarrier();
    let row = workgroup_number(wid, count) * 64u + t;
    if row >= p.m {
        return;
    }
    let from_here = row * p.n + p.first;
    for (var s = 0u; s < size; s++) {
        let c = select(s, size - 1u - s, p.backward == 1u);
        var sum = x[from_here + c];
        if p.backward == 1u {
            for (var d = c + 1u; d < size; d++) {
                sum -= lines[t * STRIDE + d] * block[d * BLOCK + c];
            }
        } else {
            for (var d = 0u; d < c; d++) {
                sum -= lines[t * STRIDE + d] * block[c * BLOCK + d];
            }
        }
        lines[t * STRIDE + c] = sum / block[c * BLOCK + c];
        x[from_here + c] = lines[t * STRIDE + c];
    }
}

fn solved(row: u32, c: u32) -> f32 {
    if row >= p.m || c >= p.n {
        return 0.0;
    }
    return x[row * p.n + c];
}

fn share(j: u32, c: u32) -> f32 {
    if j >= p.end || c >= p.n {
        return 0.0;
    }
    return l[select(at(j, c), at(c, j), p.backward == 1u)];
}

fn subtract(row: u32, column: u32, v: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if row < p.m && column + i < p.end {
            x[row * p.n + column + i] -= v[i];
        }
    }
}

@compute @workgroup_size(256)
fn update(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let tiles = (p.end - p.begin + 63u) / 64u;
    let number = workgroup_number(wid, count);
    let row0 = number / tiles * 64u;
    let column0 = p.begin + number % tiles * 64u;
    // The same for the whole workgroup, so that the barriers below stand in uniform control flow.
    if row0 >= p.m {
        return;
    }
    let lane = t % 16u;
    let quad = t / 16u;
    let row = row0 + quad * 4u;
    let j = column0 + quad * 4u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var half = 0u; half < BLOCK; half += 16u) {
        let c = p.first + half + lane;
        left[lane * 17u + quad] = vec4<f32>(solved(row, c), solved(row + 1u, c), solved(row + 2u, c), solved(row + 3u, c));
        right[lane * 17u + quad] = vec4<f32>(share(j, c), share(j + 1u, c), share(j + 2u, c), share(j + 3u, c));
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            let u = left[i * 17u + quad];
            let v = right[i * 17u + lane];
            sum0 += u.x * v;
            sum1 += u.y * v;
            sum2 += u.z * v;
            sum3 += u.w * v;
        }
        workgroupBarrier();
    }
    let column = column0 + lane * 4u;
    subtract(row, column, sum0);
    subtract(row + 1u, column, sum1);
    subtract(row + 2u, column, sum2);
    subtract(row + 3u, column, sum3);
}
