// The grid of stored values, in units of the scale: low, low + step, .., high, or (count > 0) the rising list `levels`.
// Needs `params.grid: Grid` and `levels: array<f32>`. Twin: compute/solver/steps.rs.
struct Grid {
    low: f32,
    high: f32,
    step: f32,
    count: u32,
}

// Share of a step by which rounding may overstep a bound.
const HAIR: f32 = 1e-5;

// Entries of the list below x (`or_equal`: or at it).
fn levels_below(x: f32, or_equal: bool) -> u32 {
    var start = 0u;
    var end = params.grid.count;
    while start < end {
        let middle = (start + end) / 2u;
        let v = levels[middle];
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
        return levels[0];
    }
    let below = levels[above - 1u];
    if above == params.grid.count {
        return below;
    }
    return select(levels[above], below, x - below <= levels[above] - x);
}

// The nearest level within lower ..= upper; the nearest of all if there is none.
fn nearest_within(x: f32, lower: f32, upper: f32) -> f32 {
    let level = nearest(x);
    var inside = level;
    if level > upper {
        if params.grid.count == 0u {
            inside = clip_level(floor(upper / params.grid.step + HAIR) * params.grid.step);
        } else {
            inside = levels[max(levels_below(upper, true), 1u) - 1u];
        }
    } else if level < lower {
        if params.grid.count == 0u {
            inside = clip_level(ceil(lower / params.grid.step - HAIR) * params.grid.step);
        } else {
            inside = levels[min(levels_below(lower, false), params.grid.count - 1u)];
        }
    }
    return select(level, inside, inside >= lower - HAIR && inside <= upper + HAIR);
}
