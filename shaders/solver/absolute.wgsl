// One iteration of ADMM for fits by magnitude. Twin: compute/solver/absolute.rs, which has the formulas.
// Row-major: a (k x rows) = A^T, p (rows x k), d, z, u (m x rows), w (m x k); bounds: lower, then upper, m x (rows -
// samples) each; rho: m.
//   weights:   w = (d + z - u) p; a workgroup makes a 64 x 64 tile of w
//   residuals: r = relax (w a - d) + (1 - relax) z + u, then prox and dual on the 64 x 64 tile at hand; for the largest
//              magnitude the samples' prox waits: u holds r until
//   largest:   one workgroup an output: finds the level by bisection, then prox and dual of its samples
// As every dispatch binds all buffers, those that an entry only reads are bound as writable too.
#import shared/index
#import shared/product

struct Params {
    m: u32,
    k: u32,
    samples: u32,
    rows: u32,
    largest: u32,
    relax: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> p: array<f32>;
@group(0) @binding(3) var<storage, read> d: array<f32>;
@group(0) @binding(4) var<storage, read> bounds: array<f32>;
@group(0) @binding(5) var<storage, read> rho: array<f32>;
@group(0) @binding(6) var<storage, read_write> w: array<f32>;
@group(0) @binding(7) var<storage, read_write> z: array<f32>;
@group(0) @binding(8) var<storage, read_write> u: array<f32>;

// Which of the two products is made.
var<private> to_weights: bool;

fn left_at(row: u32, column: u32) -> f32 {
    if row >= params.m {
        return 0.0;
    }
    if to_weights {
        if column >= params.rows {
            return 0.0;
        }
        let at = row * params.rows + column;
        return d[at] + z[at] - u[at];
    }
    if column >= params.k {
        return 0.0;
    }
    return w[row * params.k + column];
}

fn right_at(row: u32, column: u32) -> f32 {
    if to_weights {
        if row >= params.rows || column >= params.k {
            return 0.0;
        }
        return p[row * params.k + column];
    }
    if row >= params.k || column >= params.rows {
        return 0.0;
    }
    return a[row * params.rows + column];
}

@compute @workgroup_size(16, 16)
fn weights(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    to_weights = true;
    let across = (params.k + TILE - 1u) / TILE;
    let number = workgroup_number(id, count);
    let row0 = number / across * TILE;
    let column0 = number % across * TILE;
    var sum = product_tile(row0, column0, params.rows, local.xy);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            let row = row0 + 4u * local.y + r;
            let column = column0 + 4u * local.x + c;
            if row < params.m && column < params.k {
                w[row * params.k + column] = sum[r][c];
            }
        }
    }
}

@compute @workgroup_size(16, 16)
fn residuals(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    to_weights = false;
    let across = (params.rows + TILE - 1u) / TILE;
    let number = workgroup_number(id, count);
    let row0 = number / across * TILE;
    let column0 = number % across * TILE;
    var sum = product_tile(row0, column0, params.k, local.xy);
    let boxes = params.rows - params.samples;
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            let row = row0 + 4u * local.y + r;
            let column = column0 + 4u * local.x + c;
            if row < params.m && column < params.rows {
                let at = row * params.rows + column;
                let residual = params.relax * (sum[r][c] - d[at]) + (1.0 - params.relax) * z[at] + u[at];
                var near = 0.0;
                if column >= params.samples {
                    let b = row * boxes + column - params.samples;
                    near = min(max(residual, bounds[b]), bounds[params.m * boxes + b]);
                } else if params.largest == 0u {
                    let cut = 1.0 / rho[row];
                    near = max(residual - cut, 0.0) + min(residual + cut, 0.0);
                }
                z[at] = near;
                u[at] = residual - near;
            }
        }
    }
}

var<workgroup> parts: array<f32, 256>;

// The sum (or maximum) of every invocation's part.
fn together(part: f32, thread: u32, maximum: bool) -> f32 {
    parts[thread] = part;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step >>= 1u) {
        if thread < step {
            let other = parts[thread + step];
            parts[thread] = select(parts[thread] + other, max(parts[thread], other), maximum);
        }
        workgroupBarrier();
    }
    let all = parts[0];
    workgroupBarrier();
    return all;
}

@compute @workgroup_size(256)
fn largest(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = workgroup_number(id, count);
    let first = min(row, params.m - 1u) * params.rows;
    var most = 0.0;
    for (var s = thread; s < params.samples; s += 256u) {
        most = max(most, abs(u[first + s]));
    }
    most = together(most, thread, true);
    let mass = 1.0 / rho[min(row, params.m - 1u)];
    var low = 0.0;
    var high = most;
    for (var round = 0u; round < 40u; round++) {
        let middle = 0.5 * (low + high);
        var above = 0.0;
        for (var s = thread; s < params.samples; s += 256u) {
            above += max(abs(u[first + s]) - middle, 0.0);
        }
        if together(above, thread, false) > mass {
            low = middle;
        } else {
            high = middle;
        }
    }
    if row < params.m {
        for (var s = thread; s < params.samples; s += 256u) {
            let residual = u[first + s];
            let near = min(max(residual, -high), high);
            z[first + s] = near;
            u[first + s] = residual - near;
        }
    }
}
