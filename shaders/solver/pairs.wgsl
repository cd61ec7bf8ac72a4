// Pair moves over columns first - 1 down to `last` of every row, a sweep. Twin: compute/solver/pairs.rs.
// A workgroup a row. For column i and each of its neighbouring levels all columns j < i are searched (an invocation every
// 64th) for the step to a neighbouring level that makes up most for it; both steps are taken if together they gain.
// q and hq (m x n): levels and H times them, in and out; moved (m): counts moves. Rows whose scale is not positive rest.
// bounds: lower (m x n), then upper, if `bounded`. A dispatch stays below 32k loop iterations an invocation: some
// drivers end loops after 65,535 without a word.
#import shared/index
#import shared/levels

struct Params {
    grid: Grid,
    n: u32,
    m: u32,
    bounded: u32,
    first: u32,
    last: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> h: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> bounds: array<f32>;
@group(0) @binding(5) var<storage, read> levels: array<f32>;
@group(0) @binding(6) var<storage, read_write> q: array<f32>;
@group(0) @binding(7) var<storage, read_write> hq: array<f32>;
@group(0) @binding(8) var<storage, read_write> moved: array<u32>;

// What a move must gain, relative to what its steps lose and gain: more than rounding can feign.
const GAIN: f32 = 1e-5;

var<workgroup> best_gain: array<f32, 64>;
var<workgroup> best_column: array<u32, 64>;
var<workgroup> best_step: array<f32, 64>;

// The steps of column j to its neighbouring levels, (down, up); 0 where there is none.
fn steps_of(base: u32, j: u32, scale: f32) -> vec2<f32> {
    var lower = -3e38;
    var upper = 3e38;
    if params.bounded != 0u {
        lower = bounds[base + j] / scale;
        upper = bounds[params.m * params.n + base + j] / scale;
    }
    return neighbours(q[base + j], lower, upper);
}

@compute @workgroup_size(64)
fn sweep(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = workgroup_number(id, count);
    let n = params.n;
    let row = min(number, params.m - 1u);
    let going = number < params.m && scales[row] > 0.0;
    let scale = select(1.0, scales[row], going);
    let base = row * n;
    levels_of(row);
    var moves = 0u;
    for (var column = params.first; column > params.last; column--) {
        let i = column - 1u;
        let own = steps_of(base, i, scale);
        let slope = scale * hq[base + i] - b[base + i];
        let curve = scale * h[i * n + i];
        var took = false;
        for (var side = 0u; side < 2u; side++) {
            let step = select(own.x, own.y, side == 0u);
            let alone = step * (2.0 * slope + step * curve);
            var gain = 0.0;
            var partner = n;
            var other = 0.0;
            if step != 0.0 && !took && going {
                for (var j = thread; j < i; j += 64u) {
                    let g = 2.0 * (scale * (hq[base + j] + step * h[i * n + j]) - b[base + j]);
                    let reach = steps_of(base, j, scale);
                    let c = scale * h[j * n + j];
                    let down = reach.x * (g + reach.x * c);
                    let up = reach.y * (g + reach.y * c);
                    if min(up, down) < gain {
                        gain = min(up, down);
                        partner = j;
                        other = select(reach.x, reach.y, up <= down);
                    }
                }
            }
            best_gain[thread] = gain;
            best_column[thread] = partner;
            best_step[thread] = other;
            workgroupBarrier();
            for (var reach = 32u; reach > 0u; reach /= 2u) {
                if thread < reach {
                    let theirs = thread + reach;
                    let better = best_gain[theirs] < best_gain[thread]
                        || (best_gain[theirs] == best_gain[thread] && best_column[theirs] < best_column[thread]);
                    if better {
                        best_gain[thread] = best_gain[theirs];
                        best_column[thread] = best_column[theirs];
                        best_step[thread] = best_step[theirs];
                    }
                }
                workgroupBarrier();
            }
            let best = best_gain[0];
            let j = best_column[0];
            let step_j = best_step[0];
            workgroupBarrier();
            storageBarrier();
            if j < n && alone + best < -GAIN * (alone - best) {
                took = true;
                for (var k = thread; k < n; k += 64u) {
                    hq[base + k] += step * h[i * n + k] + step_j * h[j * n + k];
                }
                if thread == 0u {
                    q[base + i] = nearest(q[base + i] + step);
                    q[base + j] = nearest(q[base + j] + step_j);
                }
                moves += 1u;
            }
            workgroupBarrier();
            storageBarrier();
        }
    }
    if going && thread == 0u {
        moved[row] += moves;
    }
}
