// Exponentials and logarithms within a few units in the last place: WGSL's own exp may be wrong by 2|x| of them, and
// its log by 2^-21 absolute near 1. Needs shared/keep.

// x = n ln 2 + r with |r| <= ln 2 / 2: returns (n, exp(r) - 1).
fn reduce(x: f32) -> vec2<f32> {
    let n = round(x * 1.44269504);
    // ln 2 in two parts: n times the first is exact.
    let r = keep(x - n * 0.693359375) + n * 2.12194440e-4;
    let q = 0.5 + r * (0.166666667 + r * (0.0416666667 + r * (0.00833333333 + r * (0.00138888889 + r * 1.98412698e-4))));
    return vec2<f32>(n, r + r * r * q);
}

// 2^n for whole n in -126..=127.
fn power_of_two(n: f32) -> f32 {
    return bitcast<f32>(u32(i32(n) + 127) << 23u);
}

// exp(x) - 1 for x <= 0; exact in the limit.
fn exp_less_one(x: f32) -> f32 {
    let e = reduce(max(x, -80.0));
    let scale = power_of_two(e.x);
    return scale * e.y + keep(scale - 1.0);
}

// exp(x) for x <= 0, 0 below the smallest normal number.
fn exp_negative(x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    let e = reduce(x);
    return power_of_two(e.x) * (1.0 + e.y);
}

// 2 artanh(s) = ln((1 + s) / (1 - s)) for |s| <= 1/3.
fn twice_artanh(s: f32) -> f32 {
    let q = s * s;
    return 2.0 * s * (1.0 + q * (0.333333333 + q * (0.2 + q * (0.142857143 + q * (0.111111111
        + q * (0.0909090909 + q * (0.0769230769 + q * 0.0666666667)))))));
}

// ln(x) for positive normal x.
fn log_of(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    var e = f32(i32(bits >> 23u) - 127);
    var m = bitcast<f32>((bits & 0x007fffffu) | 0x3f800000u);
    if m > 1.41421356 {
        m *= 0.5;
        e += 1.0;
    }
    return e * 0.693147181 + twice_artanh((m - 1.0) / (m + 1.0));
}

// ln(1 + u) for u >= 0.
fn log_above_one(u: f32) -> f32 {
    if u <= 1.0 {
        return log_one_plus(u);
    }
    return log_of(1.0 + u);
}

// ln(1 + u) for u in 0..=1.
fn log_one_plus(u: f32) -> f32 {
    return twice_artanh(u / (2.0 + u));
}
