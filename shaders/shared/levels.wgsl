// The grid of stored values, in units of the scale: low, low + step, .., high, or (count > 0) a rising list in `levels`:
// all rows' (step = 0), or each row's own, `step` entries after that of the row before (`levels_of` says which).
// Needs `params.grid: Grid` and `levels: array<f32>`. Twin: compute/solver/steps.rs.
struct Grid {
    low: f32,
    high: f32,
    step: f32,
    count: u32,
}

// Where the list begins.
var<private> levels_from: u32;

// The lookups after this are in the levels of `row`.
fn levels_of(row: u32) {
    levels_from = select(0u, row * u32(params.grid.step), params.grid.count > 0u);
}

// Share of a step by which rounding may overstep a bound.
const HAIR: f32 = 1e-5;

// Entries of the list below x (`or_equal`: or at it).
fn levels_below(x: f32, or_equal: bool) -> u32 {
    var start = 0u;
    var end = params.grid.count;
    while start < end {
        let middle = (start + end) / 2u;
        let v = levels[levels_from + middle];
        if v < x || (or_equal && v == x) {
            start = middle + 1u;
        } else {
            end = middle;
        }
    }
    return start;
}

fn clip_level(x: f32) -> f32 {
    return min(max(x, params.grid.low), params.grid.high);
}

fn nearest(x: f32) -> f32 {
    if params.grid.count == 0u {
        return clip_level(round(x / params.grid.step) * params.grid.step);
    }
    let above = levels_below(x, false);
    if above == 0u {
        return levels[levels_from];
    }
    let below = levels[levels_from + above - 1u];
    if above == params.grid.count {
        return below;
    }
    let next = levels[levels_from + above];
    return select(next, below, x - below <= next - x);
}

// The nearest level within lower ..= upper; the nearest of all if there is none.
fn nearest_within(x: f32, lower: f32, upper: f32) -> f32 {
    let level = nearest(x);
    var inside = level;
    if level > upper {
        if params.grid.count == 0u {
            inside = clip_level(floor(upper / params.grid.step + HAIR) * params.grid.step);
        } else {
            inside = levels[levels_from + max(levels_below(upper, true), 1u) - 1u];
        }
    } else if level < lower {
        if params.grid.count == 0u {
            inside = clip_level(ceil(lower / params.grid.step - HAIR) * params.grid.step);
        } else {
            inside = levels[levels_from + min(levels_below(lower, false), params.grid.count - 1u)];
        }
    }
    return select(level, inside, inside >= lower - HAIR && inside <= upper + HAIR);
}

const BRANCHES: u32 = 4u;

// The levels of lower ..= upper nearest to x, nearest first, at most BRANCHES; how many there are.
fn nearest_few(x: f32, lower: f32, upper: f32, found: ptr<function, array<f32, 4>>) -> u32 {
    var count = 0u;
    if params.grid.count == 0u {
        let step = params.grid.step;
        let low = max(params.grid.low, ceil(lower / step - HAIR) * step);
        let high = min(params.grid.high, floor(upper / step + HAIR) * step);
        if low > high {
            return 0u;
        }
        let middle = min(max(round(x / step) * step, low), high);
        (*found)[0] = middle;
        var left = middle - step;
        var right = middle + step;
        for (count = 1u; count < BRANCHES; count++) {
            let may_left = left >= low;
            let may_right = right <= high;
            if may_left && (!may_right || x - left <= right - x) {
                (*found)[count] = left;
                left -= step;
            } else if may_right {
                (*found)[count] = right;
                right += step;
            } else {
                break;
            }
        }
        return count;
    }
    let start = levels_below(lower - HAIR, false);
    let end = levels_below(upper + HAIR, true);
    var right = min(max(levels_below(x, false), start), end);
    var left = right;
    for (count = 0u; count < BRANCHES; count++) {
        let may_left = left > start;
        let may_right = right < end;
        if may_left && (!may_right || x - levels[levels_from + left - 1u] <= levels[levels_from + right] - x) {
            left -= 1u;
            (*found)[count] = levels[levels_from + left];
        } else if may_right {
            (*found)[count] = levels[levels_from + right];
            right += 1u;
        } else {
            break;
        }
    }
    return count;
}

// The steps from a level to the next one below and above (down, up) within lower ..= upper; 0 where there is none.
fn neighbours(level: f32, lower: f32, upper: f32) -> vec2<f32> {
    var down = level - params.grid.step;
    var up = level + params.grid.step;
    var low = params.grid.low;
    var high = params.grid.high;
    if params.grid.count > 0u {
        let last = params.grid.count - 1u;
        low = levels[levels_from];
        high = levels[levels_from + last];
        down = levels[levels_from + max(levels_below(level, false), 1u) - 1u];
        up = levels[levels_from + min(levels_below(level, true), last)];
    }
    let may_down = down < level && down >= max(low, lower - HAIR);
    let may_up = up > level && up <= min(high, upper + HAIR);
    return vec2<f32>(select(0.0, down - level, may_down), select(0.0, up - level, may_up));
}
