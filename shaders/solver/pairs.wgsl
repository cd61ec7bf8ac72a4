// Pair moves over columns first - 1 down to `last` of every row, a sweep. Twin: compute/solver/pairs.rs.
// A workgroup a row. For column i and each of its neighbouring levels the columns j < i are searched (an invocation every
// 64th, which it owns) for the step to a neighbouring level that makes up most for it; both steps are taken if together
// they gain. Where i is tied so loosely to others that none can, the search is left out. Values that others need go
// through workgroup memory.
// q and hq (m x n): levels and H times them, in and out; moved (m): counts moves. factors: scales (m; rows whose scale is
// not positive rest), then by column the largest |H_ij| of another j, and H_ii, both of which `measure` writes, a workgroup
// a column. bounds: lower (m x n), then upper, if `bounded`. A dispatch stays below 32k loop iterations an invocation: some
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
    // at least what a step to a neighbouring level measures
    longest: f32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> h: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> factors: array<f32>;
@group(0) @binding(4) var<storage, read> bounds: array<f32>;
@group(0) @binding(5) var<storage, read> levels: array<f32>;
@group(0) @binding(6) var<storage, read_write> q: array<f32>;
@group(0) @binding(7) var<storage, read_write> hq: array<f32>;
@group(0) @binding(8) var<storage, read_write> moved: array<u32>;

// What a move must gain, relative to what its steps lose and gain: more than rounding can feign.
const GAIN: f32 = 1e-5;

// A step of another column, and what it gains (negative); column n where there is none.
struct Partner {
    gain: f32,
    column: u32,
    step: f32,
}

// All are of even and odd columns: no invocation is two columns ahead of another.
// Level and product of the column at hand.
var<workgroup> current: array<vec2<f32>, 2>;
// The best partners, of a step up and down, that every invocation found.
var<workgroup> up_found: array<Partner, 128>;
var<workgroup> down_found: array<Partner, 128>;

// The steps of column j, which stands at `level`, to its neighbouring levels, (down, up); 0 where there is none.
fn steps_of(base: u32, j: u32, level: f32, scale: f32) -> vec2<f32> {
    var lower = -3e38;
    var upper = 3e38;
    if params.bounded != 0u {
        lower = bounds[base + j] / scale;
        upper = bounds[params.m * params.n + base + j] / scale;
    }
    return neighbours(level, lower, upper);
}

fn better(a: Partner, b: Partner) -> Partner {
    if b.gain < a.gain || (b.gain == a.gain && b.column < a.column) {
        return b;
    }
    return a;
}

// The better of `best` and column j, of slope g and curvature c, with its steps (down, up).
fn considered(best: Partner, j: u32, g: f32, c: f32, reach: vec2<f32>) -> Partner {
    let down = reach.x * (g + reach.x * c);
    let up = reach.y * (g + reach.y * c);
    if min(up, down) < best.gain {
        return Partner(min(up, down), j, select(reach.x, reach.y, up <= down));
    }
    return best;
}

fn gains(alone: f32, best: Partner) -> bool {
    return best.column < params.n && alone + best.gain < -GAIN * (alone - best.gain);
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
    let going = number < params.m && factors[row] > 0.0;
    let scale = select(1.0, factors[row], going);
    let base = row * n;
    levels_of(row);
    var moves = 0u;
    for (var column = params.first; column > params.last; column--) {
        let i = column - 1u;
        let side = i % 2u;
        let half = 64u * side;
        if thread == i % 64u {
            current[side] = vec2<f32>(q[base + i], hq[base + i]);
        }
        let curve = scale * factors[params.m + n + i];
        let tie = factors[params.m + i];
        workgroupBarrier();
        let level = current[side].x;
        let own = steps_of(base, i, level, scale);
        let slope = scale * current[side].y - b[base + i];
        // down, up
        let alone = own * (2.0 * slope + own * curve);
        // where no single step gains, a partner brings this much at most
        let most = 2.0 * abs(scale * own) * params.longest * tie;
        let searched = vec2<bool>(
            going && own.x != 0.0 && alone.x < most.x * 1.001,
            going && own.y != 0.0 && alone.y < most.y * 1.001,
        );
        var for_down = Partner(0.0, n, 0.0);
        var for_up = Partner(0.0, n, 0.0);
        if searched.x || searched.y {
            for (var j = thread; j < i; j += 64u) {
                let product = hq[base + j];
                let tied = h[i * n + j];
                let target_j = b[base + j];
                let c = scale * factors[params.m + n + j];
                let reach = steps_of(base, j, q[base + j], scale);
                if searched.y {
                    for_up = considered(for_up, j, 2.0 * (scale * (product + own.y * tied) - target_j), c, reach);
                }
                if searched.x {
                    for_down = considered(for_down, j, 2.0 * (scale * (product + own.x * tied) - target_j), c, reach);
                }
            }
        }
        up_found[half + thread] = for_up;
        down_found[half + thread] = for_down;
        workgroupBarrier();
        if thread < 8u {
            for (var other = thread + 8u; other < 64u; other += 8u) {
                for_up = better(for_up, up_found[half + other]);
                for_down = better(for_down, down_found[half + other]);
            }
            up_found[half + thread] = for_up;
            down_found[half + thread] = for_down;
        }
        workgroupBarrier();
        for_up = up_found[half];
        for_down = down_found[half];
        for (var other = 1u; other < 8u; other++) {
            for_up = better(for_up, up_found[half + other]);
            for_down = better(for_down, down_found[half + other]);
        }
        let goes_up = gains(alone.y, for_up);
        if goes_up || gains(alone.x, for_down) {
            var step = own.x;
            var partner = for_down;
            if goes_up {
                step = own.y;
                partner = for_up;
            }
            let j = partner.column;
            for (var k = thread; k < n; k += 64u) {
                hq[base + k] += step * h[i * n + k] + partner.step * h[j * n + k];
            }
            if thread == i % 64u {
                q[base + i] = nearest(level + step);
            }
            if thread == j % 64u {
                q[base + j] = nearest(q[base + j] + partner.step);
            }
            moves += 1u;
        }
    }
    if going && thread == 0u {
        moved[row] += moves;
    }
}

@group(0) @binding(2) var<storage, read_write> measured: array<f32>;

var<workgroup> strongest: array<f32, 64>;

@compute @workgroup_size(64)
fn measure(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = workgroup_number(id, count);
    let n = params.n;
    let i = min(number, n - 1u);
    var most = 0.0;
    for (var j = thread; j < n; j += 64u) {
        most = max(most, select(abs(h[i * n + j]), 0.0, i == j));
    }
    strongest[thread] = most;
    workgroupBarrier();
    if number < n && thread == 0u {
        for (var other = 1u; other < 64u; other++) {
            most = max(most, strongest[other]);
        }
        measured[params.m + i] = most;
        measured[params.m + n + i] = h[i * n + i];
    }
}
