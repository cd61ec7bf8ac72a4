// Closed-form responses of neurons to a constant current, elementwise: src/neuron/response.rs `Model::count` and
// `Model::inverse`, src/neuron/continuous.rs. One thread an element, 256 a workgroup.
//   count:       counts[i] = spikes after `steps` steps of current y[i] from potential v0[channel]; threshold 1
//   inverse:     y = current for the rate y (spikes per step)
//   lif_rate, lif_smooth, lif_inverse: the continuous leaky neuron in place; times in seconds
#import shared/keep
#import shared/exponential
#import shared/index
struct Params {
    len: u32, channels: u32, area: u32,
    steps: u32, zero_reset: u32, refractory: u32, most_spikes: u32, strict: u32,
    // Per step; 0: no leak. `rate`: minus its logarithm.
    decay: f32, decay_rate: f32,
    // The current of the highest rate.
    most_current: f32, most_rate: f32,
    // A number is the sum of a pair where one f32 is not enough.
    tau_rc: f32, tau_ref: f32, tau_ref_rest: f32,
    softness: f32, log_softness: f32,
    // For shared/keep.
    zero: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read> v0: array<f32>;
@group(0) @binding(3) var<storage, read_write> counts: array<i32>;

// More steps than any simulation has, still whole in f32.
const NEVER: f32 = 16777216.0;

// The upper 12 bits of a mantissa: products of two such numbers are exact.
fn upper(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
}

// 1 - a (b + rest) without the cancellation near 0; a, b >= 0, a b not far above 1.
fn one_less_product(a: f32, b: f32, rest: f32) -> f32 {
    let ah = upper(a);
    let bh = upper(b);
    let first = keep(1.0 - ah * bh);
    return keep(keep(first - (a - ah) * b) - ah * (b - bh)) - a * rest;
}

// Steps from potential v to the first one above (or at) the threshold, at least 1.
fn steps_to_spike(current: f32, v: f32) -> f32 {
    var k = 0.0;
    if p.decay > 0.0 {
        // v_k = J + (v - J) decay^k passes 1 where decay^k = (J - 1)/(J - v); J = 1 is reached in the limit only.
        if current <= 1.0 {
            return NEVER;
        }
        let gone = (1.0 - v) / (current - v);
        // -ln(1 - gone), from the side that does not cancel.
        var fall = 0.0;
        if gone < 0.5 {
            fall = twice_artanh(gone / (2.0 - gone));
        } else {
            fall = -log_of((current - 1.0) / (current - v));
        }
        k = fall / p.decay_rate;
        k = select(ceil(k), floor(k) + 1.0, p.strict == 1u);
    } else {
        if current <= 0.0 {
            return NEVER;
        }
        let gap = 1.0 - v;
        k = gap / current;
        k = select(ceil(k), floor(k) + 1.0, p.strict == 1u);
        // The quotient is rounded: settle the step by the comparison itself.
        if k < NEVER {
            let before = (k - 1.0) * current;
            let now = k * current;
            if select(before >= gap, before > gap, p.strict == 1u) {
                k -= 1.0;
            } else if select(now < gap, now <= gap, p.strict == 1u) {
                k += 1.0;
            }
        }
    }
    return clamp(k, 1.0, NEVER);
}

fn count_reset(current: f32, v: f32) -> u32 {
    let first = u32(steps_to_spike(current, v));
    if first > p.steps {
        return 0u;
    }
    let period = u32(steps_to_spike(current, 0.0));
    return 1u + (p.steps - first) / (period + p.refractory);
}

fn count_soft(current: f32, v: f32) -> u32 {
    let total = current * f32(p.steps) + v;
    let passed = select(floor(total), ceil(total) - 1.0, p.strict == 1u);
    return u32(clamp(passed, 0.0, f32(p.most_spikes * p.steps)));
}

// A leaky or refractory neuron with soft reset has no closed form.
fn count_stepped(current: f32, start: f32) -> u32 {
    var v = start;
    var wait = 0u;
    var total = 0u;
    for (var step = 0u; step < p.steps; step++) {
        if wait > 0u {
            wait -= 1u;
            continue;
        }
        v = select(v + current, p.decay * v + (1.0 - p.decay) * current, p.decay > 0.0);
        let n = clamp(select(floor(v), ceil(v) - 1.0, p.strict == 1u), 0.0, f32(p.most_spikes));
        if n > 0.0 {
            v -= n;
            wait = p.refractory;
            total += u32(n);
        }
    }
    return total;
}

@compute @workgroup_size(256)
fn count(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, groups) * 256u + t;
    if i >= p.len {
        return;
    }
    let v = v0[i / p.area % p.channels];
    var n = 0u;
    if p.zero_reset == 1u {
        n = count_reset(y[i], v);
    } else if p.decay > 0.0 || p.refractory > 0u {
        n = count_stepped(y[i], v);
    } else {
        n = count_soft(y[i], v);
    }
    counts[i] = i32(n);
}

fn current_for(rate: f32) -> f32 {
    if rate >= p.most_rate {
        return p.most_current;
    }
    if rate <= 0.0 {
        return select(rate, 1.0 + rate, p.decay > 0.0);
    }
    let share = one_less_product(rate, f32(p.refractory), 0.0);
    if p.decay > 0.0 {
        let x = -max(share / rate, 1.0) * p.decay_rate;
        return -1.0 / exp_less_one(x);
    }
    return min(rate / share, p.most_current);
}

@compute @workgroup_size(256)
fn inverse(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, groups) * 256u + t;
    if i < p.len {
        y[i] = current_for(y[i]);
    }
}

// 1 / (tau_ref + tau_rc ln(1 + 1/j)) for the excess current j > 0, whose logarithm is given too.
fn rate_above(j: f32, log_j: f32) -> f32 {
    var log_ratio = 0.0;
    if j >= 1.0 {
        log_ratio = log_one_plus(1.0 / j);
    } else {
        log_ratio = log_above_one(j) - log_j;
    }
    return 1.0 / (p.tau_ref + p.tau_rc * log_ratio);
}

@compute @workgroup_size(256)
fn lif_rate(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, groups) * 256u + t;
    if i < p.len {
        let j = y[i] - 1.0;
        y[i] = 0.0;
        if j > 0.0 {
            y[i] = rate_above(j, log_of(j));
        }
    }
}

@compute @workgroup_size(256)
fn lif_smooth(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, groups) * 256u + t;
    if i < p.len {
        let x = (y[i] - 1.0) / p.softness;
        let e = exp_negative(-abs(x));
        let j = p.softness * (max(x, 0.0) + log_one_plus(e));
        // Far below the rheobase ln(1 + e^x) is e^x, too small for an f32 in the end, but not its logarithm.
        var log_j = p.log_softness + x;
        if x > -15.0 {
            log_j = log_of(j);
        }
        y[i] = rate_above(j, log_j);
    }
}

@compute @workgroup_size(256)
fn lif_inverse(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, groups) * 256u + t;
    if i >= p.len {
        return;
    }
    let rate = y[i];
    if rate <= 0.0 {
        y[i] = 1.0;
        return;
    }
    var share = -1.0;
    if rate * p.tau_ref < 1.5 {
        share = one_less_product(rate, p.tau_ref, p.tau_ref_rest);
    }
    if share <= 0.0 {
        // Infinity, which WGSL has no constant for.
        y[i] = bitcast<f32>(0x7f800000u ^ p.zero);
        return;
    }
    // 1/(e^x - 1) = e^-x / (1 - e^-x).
    let x = -(share / rate) / p.tau_rc;
    y[i] = 1.0 - exp_negative(x) / exp_less_one(x);
}
