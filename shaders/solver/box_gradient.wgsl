// One iteration of accelerated projected gradient for least squares in a box. Twin: compute/solver/box_gradient.rs.
// All matrices m x n by rows but H (n x n); bounds: lower (m x n), then upper; t: m.
// `descend`: next = clip(y - step (y H - b)), a workgroup a 64 x 64 tile. `momentum`: a workgroup a row; restarts the
// row's momentum where it points uphill, y = next + beta (next - w).
#import shared/index
#import shared/product

struct Params {
    m: u32,
    n: u32,
    step: f32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> h: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> bounds: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> next: array<f32>;
@group(0) @binding(6) var<storage, read_write> w: array<f32>;
@group(0) @binding(7) var<storage, read_write> t: array<f32>;

fn left_at(row: u32, column: u32) -> f32 {
    if row >= params.m || column >= params.n {
        return 0.0;
    }
    return y[row * params.n + column];
}

fn right_at(row: u32, column: u32) -> f32 {
    if row >= params.n || column >= params.n {
        return 0.0;
    }
    return h[row * params.n + column];
}

@compute @workgroup_size(16, 16)
fn descend(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let across = (params.n + TILE - 1u) / TILE;
    let number = workgroup_number(id, count);
    let row0 = number / across * TILE;
    let column0 = number % across * TILE;
    var sum = product_tile(row0, column0, params.n, local.xy);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            let row = row0 + 4u * local.y + r;
            let column = column0 + 4u * local.x + c;
            if row < params.m && column < params.n {
                let at = row * params.n + column;
                let moved = y[at] - params.step * (sum[r][c] - b[at]);
                next[at] = min(max(moved, bounds[at]), bounds[params.m * params.n + at]);
            }
        }
    }
}

var<workgroup> partial: array<f32, 128>;

@compute @workgroup_size(128)
fn momentum(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = workgroup_number(id, count);
    // rows beyond the last work on it without writing: barriers want every workgroup
    let real = row < params.m;
    let base = min(row, params.m - 1u) * params.n;
    var sum = 0.0;
    for (var i = thread; i < params.n; i += 128u) {
        let at = base + i;
        sum += (y[at] - next[at]) * (next[at] - w[at]);
    }
    partial[thread] = sum;
    workgroupBarrier();
    for (var half = 64u; half > 0u; half /= 2u) {
        if thread < half {
            partial[thread] += partial[thread + half];
        }
        workgroupBarrier();
    }
    let old = t[min(row, params.m - 1u)];
    workgroupBarrier();
    let now = select(old, 1.0, partial[0] > 0.0);
    let after = (1.0 + sqrt(1.0 + 4.0 * now * now)) / 2.0;
    let beta = (now - 1.0) / after;
    if real {
        for (var i = thread; i < params.n; i += 128u) {
            let at = base + i;
            y[at] = next[at] + beta * (next[at] - w[at]);
            w[at] = next[at];
        }
        if thread == 0u {
            t[row] = after;
        }
    }
}
