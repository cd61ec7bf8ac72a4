// One iteration of ADMM for least squares in a box: w = v K, then the elementwise rest of it on the tile at hand.
// Twin: compute/solver/admm.rs. All matrices m x n by rows but K (n x n); bounds: lower (m x n), then upper.
// A workgroup makes a 64 x 64 tile of w; `v_next` is another buffer than `v`, which other workgroups still read.
#import shared/index
#import shared/product

struct Params {
    m: u32,
    n: u32,
    rho: f32,
    relax: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> bounds: array<f32>;
@group(0) @binding(4) var<storage, read> v: array<f32>;
@group(0) @binding(5) var<storage, read_write> v_next: array<f32>;
@group(0) @binding(6) var<storage, read_write> w: array<f32>;
@group(0) @binding(7) var<storage, read_write> z: array<f32>;
@group(0) @binding(8) var<storage, read_write> u: array<f32>;

fn left_at(row: u32, column: u32) -> f32 {
    if row >= params.m || column >= params.n {
        return 0.0;
    }
    return v[row * params.n + column];
}

fn right_at(row: u32, column: u32) -> f32 {
    if row >= params.n || column >= params.n {
        return 0.0;
    }
    return k[row * params.n + column];
}

@compute @workgroup_size(16, 16)
fn iterate(
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
                let relaxed = params.relax * sum[r][c] + (1.0 - params.relax) * z[at] + u[at];
                let clipped = min(max(relaxed, bounds[at]), bounds[params.m * params.n + at]);
                let dual = relaxed - clipped;
                w[at] = sum[r][c];
                z[at] = clipped;
                u[at] = dual;
                v_next[at] = b[at] + params.rho * (clipped - dual);
            }
        }
    }
}
