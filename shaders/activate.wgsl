// Elementwise maps in place on f32. One thread an element, 256 a workgroup.
//   activate: the trained network's activation functions (src/network/layers.rs `Activation`), by `kind`
//   affine:   y = a[channel] y + b[channel]
// The exponentials are our own: WGSL's exp may be wrong by 2|x| units in the last place, and we promise 1e-6.
#import shared/index
struct Params { len: u32, kind: u32, alpha: f32, beta: f32, channels: u32, area: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// x = n ln 2 + r with |r| <= ln 2 / 2: returns (n, exp(r) - 1).
fn reduce(x: f32) -> vec2<f32> {
    let n = round(x * 1.44269504);
    // ln 2 in two parts: n times the first is exact.
    let r = (x - n * 0.693359375) + n * 2.12194440e-4;
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
    return scale * e.y + (scale - 1.0);
}

// exp(x) for x <= 0, 0 below the smallest normal number.
fn exp_negative(x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    let e = reduce(x);
    return power_of_two(e.x) * (1.0 + e.y);
}

// ln(1 + u) for u in 0..=1, by the series of 2 artanh(u / (2 + u)).
fn log_one_plus(u: f32) -> f32 {
    let s = u / (2.0 + u);
    let q = s * s;
    return 2.0 * s * (1.0 + q * (0.333333333 + q * (0.2 + q * (0.142857143 + q * (0.111111111
        + q * (0.0909090909 + q * (0.0769230769 + q * 0.0666666667)))))));
}

fn apply(z: f32) -> f32 {
    switch p.kind {
        case 1u: { return max(z, 0.0); }
        case 2u: { return min(max(z, p.alpha), p.beta); }
        case 3u: { return select(z, p.alpha * z, z < 0.0); }
        case 4u: { return select(z, p.alpha * exp_less_one(min(z, 0.0)), z < 0.0); }
        case 5u: {
            let e = exp_negative(-abs(z));
            return select(e, 1.0, z >= 0.0) / (1.0 + e);
        }
        case 6u: { return min(max(p.alpha * z + p.beta, 0.0), 1.0); }
        case 7u: {
            let e = exp_less_one(-2.0 * abs(z));
            let size = -e / (2.0 + e);
            return select(size, -size, z < 0.0);
        }
        case 8u: { return max(z, 0.0) + log_one_plus(exp_negative(-abs(z))); }
        default: { return z; }
    }
}

@compute @workgroup_size(256)
fn activate(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
            @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i < p.len {
        y[i] = apply(y[i]);
    }
}

@compute @workgroup_size(256)
fn affine(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i < p.len {
        let c = i / p.area % p.channels;
        y[i] = a[c] * y[i] + b[c];
    }
}
