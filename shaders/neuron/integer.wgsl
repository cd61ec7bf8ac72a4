// Integrate-and-fire in integers, all steps of a layer: src/neuron/step.rs `integer` for every neuron.
// current: steps_in x images x len (steps_in = steps, or 1: constant); bias, threshold, v0: one per channel;
// trains: steps x images x len, spikes per step (counted: 1 x images x len, summed over the steps); v_end: images x len.
// The neuron integrates `settle` steps of input before its first chance to fire; at its last chances nothing comes in.
// One thread a neuron of an image (the state stays in registers), 64 a workgroup.
#import shared/index
struct Params {
    steps: u32, steps_in: u32, settle: u32,
    neurons: u32, len: u32, area: u32,
    zero_reset: u32, refractory: u32, most_spikes: i32, strict: u32,
    floor: i32, ceil: i32, dash: u32,
    counted: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> current: array<i32>;
@group(0) @binding(2) var<storage, read> bias: array<i32>;
@group(0) @binding(3) var<storage, read> threshold: array<i32>;
@group(0) @binding(4) var<storage, read> v0: array<i32>;
@group(0) @binding(5) var<storage, read_write> trains: array<i32>;
@group(0) @binding(6) var<storage, read_write> v_end: array<i32>;

// a + b, or the end of the range that it leaves.
fn saturating_add(a: i32, b: i32) -> i32 {
    let sum = a + b;
    if ((a ^ sum) & (b ^ sum)) < 0 {
        return select(i32(0x7fffffff), -i32(0x7fffffff) - 1, a < 0);
    }
    return sum;
}

// The leak by shifts, by at least 1; none where dash is 0.
fn leaked(v: i32) -> i32 {
    let part = v >> p.dash;
    return select(v - select(part, sign(v), part == 0), v, p.dash == 0u);
}

fn integrate(before: i32, drive: i32) -> i32 {
    let v = leaked(before);
    return max(min(saturating_add(v, drive), p.ceil), p.floor);
}

@compute @workgroup_size(64)
fn simulate(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
            @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 64u + t;
    if i >= p.neurons {
        return;
    }
    let channel = i % p.len / p.area;
    let theta = max(threshold[channel], 1);
    let offset = bias[channel];
    var v = v0[channel];
    var wait = 0u;
    var total = 0;
    for (var at = 0u; at < p.settle; at++) {
        v = integrate(v, saturating_add(current[select(at, 0u, p.steps_in == 1u) * p.neurons + i], offset));
    }
    for (var step = 0u; step < p.steps; step++) {
        var spikes = 0;
        if wait > 0u {
            wait -= 1u;
        } else {
            let at = step + p.settle;
            var drive = 0;
            if at < p.steps {
                drive = saturating_add(current[select(at, 0u, p.steps_in == 1u) * p.neurons + i], offset);
            }
            v = integrate(v, drive);
            let passed = select(max(v, 0) / theta, (max(v, 1) - 1) / theta, p.strict == 1u);
            spikes = min(passed, p.most_spikes);
            if spikes > 0 {
                v = select(v - spikes * theta, 0, p.zero_reset == 1u);
                wait = p.refractory;
            }
        }
        total += spikes;
        if p.counted == 0u {
            trains[step * p.neurons + i] = spikes;
        }
    }
    if p.counted == 1u {
        trains[i] = total;
    }
    v_end[i] = v;
}
