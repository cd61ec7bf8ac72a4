// One sweep of coordinate descent in the space of samples, over columns first - 1 down to `last` of every row. Twin:
// compute/solver/sample_sweep.rs. A workgroup a row; an invocation owns every 64th sample, the first one the values: their
// sum and the value at hand go through workgroup memory.
// x and probe (n x samples): an input's samples side by side, and what they are probed with; factors: scales (m), then
// pull (n). v (m x n): stored values, in and out; r (m x samples): residuals, in and out. Column j goes to the level nearest
// to v_j - probe_j r - pull_j (v_j - prior_j), where that is nearer than v_j, or at once if `forced` (v was not on the
// grid). moved (m): counts moves. Rows whose scale is not positive rest.
// A dispatch stays below 32k loop iterations an invocation: some drivers end loops after 65,535 without a word.
#import shared/index
#import shared/levels

struct Params {
    grid: Grid,
    n: u32,
    m: u32,
    samples: u32,
    first: u32,
    last: u32,
    forced: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> probe: array<f32>;
@group(0) @binding(3) var<storage, read> prior: array<f32>;
@group(0) @binding(4) var<storage, read> factors: array<f32>;
@group(0) @binding(5) var<storage, read> levels: array<f32>;
@group(0) @binding(6) var<storage, read_write> v: array<f32>;
@group(0) @binding(7) var<storage, read_write> r: array<f32>;
@group(0) @binding(8) var<storage, read_write> moved: array<u32>;

// What a move must gain, relative to what is to gain: more than rounding can feign.
const GAIN: f32 = 1e-5;

// Of even and odd columns: no invocation is two columns ahead of another.
var<workgroup> parts: array<f32, 128>;
var<workgroup> current: array<f32, 2>;

@compute @workgroup_size(64)
fn sweep(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = workgroup_number(id, count);
    let row = min(number, params.m - 1u);
    let going = number < params.m && factors[row] > 0.0;
    let scale = select(1.0, factors[row], going);
    let base = row * params.samples;
    levels_of(row);
    var moves = 0u;
    for (var j = params.first; j > params.last; j--) {
        let column = j - 1u;
        let along = column * params.samples;
        let half = 64u * (column % 2u);
        let at = row * params.n + column;
        if thread == 0u {
            current[column % 2u] = v[at];
        }
        var part = 0.0;
        for (var s = thread; s < params.samples; s += 64u) {
            part += probe[along + s] * r[base + s];
        }
        parts[half + thread] = part;
        workgroupBarrier();
        for (var reach = 32u; reach > 0u; reach /= 2u) {
            if thread < reach {
                parts[half + thread] += parts[half + thread + reach];
            }
            workgroupBarrier();
        }
        let value = current[column % 2u];
        let best = value - parts[half] - factors[params.m + column] * (value - prior[at]);
        let found = nearest(best / scale) * scale;
        let gains = (found - best) * (found - best) < (value - best) * (value - best) * (1.0 - GAIN);
        if going && found != value && (gains || params.forced != 0u) {
            for (var s = thread; s < params.samples; s += 64u) {
                r[base + s] += (found - value) * x[along + s];
            }
            if thread == 0u {
                v[at] = found;
            }
            moves += 1u;
        }
    }
    if going && thread == 0u {
        moved[row] += moves;
    }
}
