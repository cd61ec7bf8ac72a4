// Blocked Cholesky factorization in place, A = L L^T. A is held as bands of whole rows, a buffer each, so that no binding
// need hold all of it; of a row only its lower half, padded to the band's last column:
// a[(row - band_row) * band_stride + column], column < band_stride = the row after the band's last.
// For every block of 32 columns from `first`, one dispatch each, the last two per band:
//   diagonal: the 32 x 32 block on the diagonal, in one workgroup of 32 threads (a thread a row), also left in `lines`.
//             A pivot that is not positive leaves its index in status[0] (the smallest wins) and counts as 1, so that
//             nothing overflows.
//   panel:    the band's rows below the block, row <- row * L_diagonal^-T, also left in `lines`; 64 threads, a row each.
//   update:   the rest, A[i][j] -= sum over the 32 columns of L[i][c] L[j][c] from `lines`; 256 threads make a 64 x 64
//             tile, 4 x 4 each; tiles above the diagonal are left out. Workgroups: row tiles x column tiles.
// lines: n x 32, the block's columns of L.
#import shared/index
struct Params { n: u32, first: u32, band_row: u32, band_rows: u32, band_stride: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> lines: array<f32>;
@group(0) @binding(3) var<storage, read_write> status: array<u32>;

const BLOCK = 32u;
// Between rows in workgroup memory: threads that each have a row meet different banks.
const STRIDE = 33u;
var<workgroup> block: array<f32, 1056>;
// panel: 64 rows x 32
var<workgroup> solved: array<f32, 2112>;
// update: [column of the block][rows / 4], 16 columns at a time
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;
var<workgroup> pivot: f32;

fn at(row: u32, column: u32) -> u32 {
    return (row - p.band_row) * p.band_stride + column;
}

@compute @workgroup_size(32)
fn diagonal(@builtin(local_invocation_index) t: u32) {
    let size = min(BLOCK, p.n - p.first);
    for (var c = 0u; c < size; c++) {
        block[t * STRIDE + c] = select(0.0, a[at(min(p.first + t, p.n - 1u), p.first + c)], t < size && c <= t);
    }
    workgroupBarrier();
    for (var c = 0u; c < size; c++) {
        if t == c {
            let d = block[c * STRIDE + c];
            if !(d > 0.0) {
                status[0] = min(status[0], p.first + c);
            }
            pivot = select(1.0, sqrt(max(d, 1e-38)), d > 0.0);
        }
        workgroupBarrier();
        if t == c {
            block[t * STRIDE + c] = pivot;
        } else if t > c && t < size {
            block[t * STRIDE + c] /= pivot;
        }
        workgroupBarrier();
        if t > c && t < size {
            for (var j = c + 1u; j <= t; j++) {
                block[t * STRIDE + j] -= block[t * STRIDE + c] * block[j * STRIDE + c];
            }
        }
        workgroupBarrier();
    }
    if t < size {
        for (var c = 0u; c <= t; c++) {
            a[at(p.first + t, p.first + c)] = block[t * STRIDE + c];
            lines[(p.first + t) * BLOCK + c] = block[t * STRIDE + c];
        }
    }
}

// The first row of the band below the block.
fn first_below() -> u32 {
    return max(p.first + BLOCK, p.band_row);
}

fn band_end() -> u32 {
    return p.band_row + p.band_rows;
}

@compute @workgroup_size(64)
fn panel(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) t: u32) {
    for (var i = t; i < BLOCK * BLOCK; i += 64u) {
        block[i / BLOCK * STRIDE + i % BLOCK] = lines[p.first * BLOCK + i];
    }
    workgroupBarrier();
    let row = first_below() + workgroup_number(wid, count) * 64u + t;
    if row >= band_end() {
        return;
    }
    let from_here = at(row, p.first);
    for (var c = 0u; c < BLOCK; c++) {
        var sum = a[from_here + c];
        for (var d = 0u; d < c; d++) {
            sum -= solved[t * STRIDE + d] * block[c * STRIDE + d];
        }
        let v = sum / block[c * STRIDE + c];
        solved[t * STRIDE + c] = v;
        a[from_here + c] = v;
        lines[row * BLOCK + c] = v;
    }
}

fn line_at(row: u32, c: u32) -> f32 {
    if row >= p.n {
        return 0.0;
    }
    return lines[row * BLOCK + c];
}

fn four(row: u32, c: u32) -> vec4<f32> {
    return vec4<f32>(line_at(row, c), line_at(row + 1u, c), line_at(row + 2u, c), line_at(row + 3u, c));
}

fn subtract(row: u32, column: u32, v: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if row < band_end() && column + i <= row {
            a[at(row, column + i)] -= v[i];
        }
    }
}

@compute @workgroup_size(256)
fn update(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let rest = p.first + BLOCK;
    let tiles = (band_end() - rest + 63u) / 64u;
    let number = workgroup_number(wid, count);
    let row0 = first_below() + number / tiles * 64u;
    let column0 = rest + number % tiles * 64u;
    // The same for the whole workgroup, so that the barriers below stand in uniform control flow.
    if row0 >= band_end() || column0 > row0 + 63u {
        return;
    }
    let lane = t % 16u;
    let quad = t / 16u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var half = 0u; half < BLOCK; half += 16u) {
        left[lane * 17u + quad] = four(row0 + quad * 4u, half + lane);
        right[lane * 17u + quad] = four(column0 + quad * 4u, half + lane);
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
    let row = row0 + quad * 4u;
    let column = column0 + lane * 4u;
    subtract(row, column, sum0);
    subtract(row + 1u, column, sum1);
    subtract(row + 2u, column, sum2);
    subtract(row + 3u, column, sum3);
}
