// Error feedback: rounds columns first - 1 down to `last` of every lane. Twin: compute/solver/feedback.rs.
// A workgroup a lane (a row of W and a scale); an invocation owns every 64th column, and hands its values to the others
// through workgroup memory. q (lanes x n) holds what the columns already rounded pass on to a column
// until that is rounded, then its level. unit (n x n by rows): L_ji / L_ii below the diagonal, L_ii on it. bounds: lower
// (rows x n), then upper, if `bounded`. A dispatch stays below 32k loop iterations an invocation: some drivers end
// loops after 65,535 without a word.
#import shared/index
#import shared/levels

struct Params {
    grid: Grid,
    n: u32,
    lanes: u32,
    rows: u32,
    bounded: u32,
    first: u32,
    last: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> unit: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> lane_rows: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read> bounds: array<f32>;
@group(0) @binding(6) var<storage, read> levels: array<f32>;
@group(0) @binding(7) var<storage, read_write> q: array<f32>;
@group(0) @binding(8) var<storage, read_write> cost: array<f32>;

// What has been passed on to a column, of even and odd ones: no invocation is two columns ahead of another.
var<workgroup> passed: array<f32, 2>;

@compute @workgroup_size(64)
fn round_columns(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = workgroup_number(id, count);
    let real = number < params.lanes;
    let lane = min(number, params.lanes - 1u);
    let scale = scales[lane];
    let base = lane_rows[lane] * params.n;
    levels_of(lane_rows[lane]);
    var total = cost[lane];
    for (var j = params.first; j > params.last; j--) {
        let column = j - 1u;
        let owner = thread == column % 64u;
        if owner {
            passed[column % 2u] = q[lane * params.n + column];
        }
        let wanted = w[base + column];
        workgroupBarrier();
        let centre = wanted - passed[column % 2u];
        var level = 0.0;
        var outside = false;
        if params.bounded != 0u {
            let lower = bounds[base + column] / scale;
            let upper = bounds[params.rows * params.n + base + column] / scale;
            level = nearest_within(centre / scale, lower, upper);
            outside = level < lower - HAIR || level > upper + HAIR;
        } else {
            level = nearest(centre / scale);
        }
        let value = level * scale;
        let e = unit[column * params.n + column] * (value - centre);
        total = select(total + e * e, 3.4e38, outside);
        let d = value - wanted;
        if real {
            for (var i = thread; i < column; i += 64u) {
                q[lane * params.n + i] += d * unit[column * params.n + i];
            }
            if owner {
                q[lane * params.n + column] = level;
            }
        }
    }
    if real && thread == 0u {
        cost[lane] = total;
    }
}
