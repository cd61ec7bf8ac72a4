// Coordinate descent on the grid over columns first - 1 down to `last` of every row. Twin: compute/solver/descent.rs.
// A workgroup a row; an invocation owns every 64th column, and hands its values to the others through workgroup memory.
// q and hq (m x n): levels and H times them, in and out; moved (m): counts moves. Rows whose scale is
// not positive rest. bounds: lower (m x n), then upper, if `bounded`. A dispatch stays below 32k loop iterations an
// invocation: some drivers end loops after 65,535 without a word.
#import shared/index
#import shared/levels

struct Params {
    grid: Grid,
    n: u32,
    m: u32,
    bounded: u32,
    first: u32,
    last: u32,
    unused: u32,
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

// What a move must gain, relative to what is to gain: more than rounding can feign.
const GAIN: f32 = 1e-5;

// Level and product of a column, of even and odd ones: no invocation is two columns ahead of another.
var<workgroup> current: array<vec2<f32>, 2>;

@compute @workgroup_size(64)
fn sweep(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = workgroup_number(id, count);
    let row = min(number, params.m - 1u);
    let going = number < params.m && scales[row] > 0.0;
    let scale = select(1.0, scales[row], going);
    let base = row * params.n;
    levels_of(row);
    var moves = 0u;
    for (var j = params.first; j > params.last; j--) {
        let column = j - 1u;
        let at = base + column;
        let owner = thread == column % 64u;
        if owner {
            current[column % 2u] = vec2<f32>(q[at], hq[at]);
        }
        workgroupBarrier();
        let level = current[column % 2u].x;
        let product = current[column % 2u].y;
        let best = level - (scale * product - b[at]) / (scale * h[column * params.n + column]);
        var found = 0.0;
        if params.bounded != 0u {
            found = nearest_within(best, bounds[at] / scale, bounds[params.m * params.n + at] / scale);
        } else {
            found = nearest(best);
        }
        let gains = (found - best) * (found - best) < (level - best) * (level - best) * (1.0 - GAIN);
        if going && found != level && gains {
            for (var i = thread; i < params.n; i += 64u) {
                hq[base + i] += (found - level) * h[column * params.n + i];
            }
            if owner {
                q[at] = found;
            }
            moves += 1u;
        }
    }
    if going && thread == 0u {
        moved[row] += moves;
    }
}
