// K-best search along the factor over columns first - 1 down to `last` of every lane. Twin: compute/solver/kbest.rs.
// A workgroup a lane (a row of W and a scale). `state`: for each lane and path 2 n + 1 values: what the columns taken so
// far pass on to each column (twice: a column reads one half and writes the other), then the path's cost, negative if
// there is no such path; zeros before the first column, where the first path alone exists. trail (lanes x n x paths): the path that each path came from at a column, and the level that
// it took there. unit (n x n by rows): L_ji / L_ii below the diagonal, L_ii on it. bounds: lower (rows x n), then upper,
// if `bounded`. Every column: each path branches into its nearest levels, the branches are sorted by cost (bitonic), the
// first `paths` go on. An invocation passes on to every 128th column, of all paths; what the next column needs of that goes
// through workgroup memory, so that no state crosses invocations within a dispatch. A dispatch stays below 32k loop iterations an invocation: some drivers end loops after 65,535
// without a word. `trace` follows the best path of every lane back, an invocation a lane.
#import shared/index
#import shared/levels

struct Params {
    grid: Grid,
    n: u32,
    lanes: u32,
    rows: u32,
    bounded: u32,
    paths: u32,
    first: u32,
    last: u32,
    // power of two: 4 paths or more
    sorted: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> unit: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> lane_rows: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read> bounds: array<f32>;
@group(0) @binding(6) var<storage, read> levels: array<f32>;
@group(0) @binding(7) var<storage, read_write> state: array<f32>;
@group(0) @binding(8) var<storage, read_write> trail: array<vec2<u32>>;

const THREADS: u32 = 128u;
const MOST_BRANCHES: u32 = 256u;
// The cost where the box holds no level, and of branches that do not exist.
const OUTSIDE: f32 = 3.2e38;
const NONE: f32 = 3.4e38;

var<workgroup> key: array<f32, MOST_BRANCHES>;
var<workgroup> branch: array<u32, MOST_BRANCHES>;
var<workgroup> taken: array<f32, MOST_BRANCHES>;
// Of every path: what has been passed on to the column at hand; where its parent's state begins, and what it passes on.
var<workgroup> passed: array<f32, 64>;
var<workgroup> parent: array<u32, 64>;
var<workgroup> push: array<f32, 64>;

// Writes the branches of the path `thread` at `column`.
fn expand(thread: u32, total: f32, centre: f32, diagonal: f32, scale: f32, lower: f32, upper: f32) {
    var found: array<f32, 4>;
    var count = nearest_few(centre / scale, lower, upper, &found);
    var outside = false;
    if count == 0u {
        found[0] = nearest(centre / scale);
        count = 1u;
        outside = true;
    }
    for (var rank = 0u; rank < BRANCHES; rank++) {
        let e = diagonal * (found[rank] * scale - centre);
        let cost = select(total + e * e, OUTSIDE, outside || total >= OUTSIDE);
        let at = thread * BRANCHES + rank;
        key[at] = select(NONE, cost, rank < count && total >= 0.0);
        taken[at] = found[rank];
        branch[at] = at;
    }
}

fn before(a: u32, b: u32) -> bool {
    return key[a] < key[b] || (key[a] == key[b] && branch[a] < branch[b]);
}

// Passes on to column i, which lies at `to` in the state of the first of four paths from `path`; `next` is the column that
// comes next.
fn pass_on(path: u32, to: u32, i: u32, u: f32, width: u32, next: bool) {
    // those beyond the last path repeat it
    let last = params.paths - 1u - path;
    let paths = path + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
    let sent = vec4<f32>(
        state[parent[paths.x] + i],
        state[parent[paths.y] + i],
        state[parent[paths.z] + i],
        state[parent[paths.w] + i],
    );
    let by = vec4<f32>(push[paths.x], push[paths.y], push[paths.z], push[paths.w]);
    let sum = sent + by * u;
    let at = to + (paths - path) * width;
    state[at.x] = sum.x;
    state[at.y] = sum.y;
    state[at.z] = sum.z;
    state[at.w] = sum.w;
    if next {
        passed[paths.x] = sum.x;
        passed[paths.y] = sum.y;
        passed[paths.z] = sum.z;
        passed[paths.w] = sum.w;
    }
}

@compute @workgroup_size(128)
fn search(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = workgroup_number(id, groups);
    let real = number < params.lanes;
    let lane = min(number, params.lanes - 1u);
    let n = params.n;
    let scale = scales[lane];
    let row = lane_rows[lane] * n;
    levels_of(lane_rows[lane]);
    let width = 2u * n + 1u;
    let base = lane * params.paths * width;
    let has_path = thread < params.paths;
    let own = base + min(thread, params.paths - 1u) * width;
    var total = state[own + 2u * n];
    if params.first == n {
        total = select(-1.0, 0.0, thread == 0u);
    }
    let begun = ((n - params.first) % 2u) * n;
    if has_path && params.first > 0u {
        passed[thread] = state[own + begun + params.first - 1u];
    }
    for (var j = params.first; j > params.last; j--) {
        let column = j - 1u;
        let half = ((n - j) % 2u) * n;
        let other = n - half;
        var lower = -3e38;
        var upper = 3e38;
        if params.bounded != 0u {
            lower = bounds[row + column] / scale;
            upper = bounds[params.rows * n + row + column] / scale;
        }
        let wanted = w[row + column];
        if has_path {
            expand(thread, total, wanted - passed[thread], unit[column * n + column], scale, lower, upper);
        }
        for (var at = params.paths * BRANCHES + thread; at < params.sorted; at += THREADS) {
            key[at] = NONE;
            branch[at] = at;
            taken[at] = 0.0;
        }
        workgroupBarrier();
        for (var size = 2u; size <= params.sorted; size *= 2u) {
            for (var reach = size / 2u; reach > 0u; reach /= 2u) {
                for (var pair = thread; pair < params.sorted / 2u; pair += THREADS) {
                    let a = 2u * reach * (pair / reach) + pair % reach;
                    let b = a + reach;
                    let rising = (a & size) == 0u;
                    if before(b, a) == rising {
                        let k = key[a];
                        key[a] = key[b];
                        key[b] = k;
                        let i = branch[a];
                        branch[a] = branch[b];
                        branch[b] = i;
                    }
                }
                workgroupBarrier();
            }
        }
        if has_path {
            total = select(key[thread], -1.0, key[thread] >= NONE);
            let origin = branch[thread];
            parent[thread] = base + min(origin / BRANCHES, params.paths - 1u) * width + half;
            push[thread] = taken[origin] * scale - wanted;
            if real {
                trail[(lane * n + column) * params.paths + thread] =
                    vec2<u32>(origin / BRANCHES, bitcast<u32>(taken[origin]));
            }
        }
        workgroupBarrier();
        if real {
            for (var i = thread; i < column; i += THREADS) {
                let u = unit[column * n + i];
                // four at once, so that their loads are under way together
                for (var path = 0u; path < params.paths; path += 4u) {
                    pass_on(path, base + path * width + other + i, i, u, width, i + 1u == column);
                }
            }
        }
        workgroupBarrier();
    }
    if real && has_path {
        state[own + 2u * n] = total;
    }
}

@group(0) @binding(1) var<storage, read> end_state: array<f32>;
@group(0) @binding(2) var<storage, read> end_trail: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> q: array<f32>;
@group(0) @binding(4) var<storage, read_write> cost: array<f32>;

@compute @workgroup_size(64)
fn trace(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let lane = workgroup_number(id, groups) * 64u + thread;
    if lane >= params.lanes {
        return;
    }
    let n = params.n;
    cost[lane] = end_state[lane * params.paths * (2u * n + 1u) + 2u * n];
    var path = 0u;
    for (var column = 0u; column < n; column++) {
        let step = end_trail[(lane * n + column) * params.paths + path];
        q[lane * n + column] = bitcast<f32>(step.y);
        // Costs that are no numbers may leave a path that there is none of.
        path = min(step.x, params.paths - 1u);
    }
}
