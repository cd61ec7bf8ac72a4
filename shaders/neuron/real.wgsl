// Integrate-and-fire, leaky or not, in f32, all steps of a layer: src/neuron/step.rs `real` for every neuron.
// Shapes, split and settling as in integer.wgsl; trains are spikes per step in i32.
#import shared/index
struct Params {
    steps: u32, steps_in: u32, settle: u32,
    neurons: u32, len: u32, area: u32,
    zero_reset: u32, refractory: u32, most_spikes: i32, strict: u32,
    decay: f32, unused_ceil: u32, unused_dash: u32, // the integer kernel's
    counted: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> current: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> threshold: array<f32>;
@group(0) @binding(4) var<storage, read> v0: array<f32>;
@group(0) @binding(5) var<storage, read_write> trains: array<i32>;
@group(0) @binding(6) var<storage, read_write> v_end: array<f32>;

fn passed(v: f32, level: f32) -> bool {
    if p.strict == 1u {
        return v > level;
    }
    return v >= level;
}

fn integrate(v: f32, drive: f32) -> f32 {
    return select(v + drive, p.decay * v + (1.0 - p.decay) * drive, p.decay > 0.0);
}

@compute @workgroup_size(64)
fn simulate(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
            @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 64u + t;
    if i >= p.neurons {
        return;
    }
    let channel = i % p.len / p.area;
    let theta = threshold[channel];
    let offset = bias[channel];
    let most = f32(p.most_spikes);
    var v = v0[channel];
    var wait = 0u;
    var total = 0;
    for (var at = 0u; at < p.settle; at++) {
        v = integrate(v, current[select(at, 0u, p.steps_in == 1u) * p.neurons + i] + offset);
    }
    for (var step = 0u; step < p.steps; step++) {
        var n = 0.0;
        if wait > 0u {
            wait -= 1u;
        } else {
            let at = step + p.settle;
            var drive = 0.0;
            if at < p.steps {
                drive = current[select(at, 0u, p.steps_in == 1u) * p.neurons + i] + offset;
            }
            v = integrate(v, drive);
            n = min(max(floor(v / theta), 0.0), most);
            if n > 0.0 && !passed(v, n * theta) {
                n -= 1.0;
            } else if n < most && passed(v, (n + 1.0) * theta) {
                n += 1.0;
            }
            if n > 0.0 {
                v = select(v - n * theta, 0.0, p.zero_reset == 1u);
                wait = p.refractory;
            }
        }
        total += i32(n);
        if p.counted == 0u {
            trains[step * p.neurons + i] = i32(n);
        }
    }
    if p.counted == 1u {
        trains[i] = total;
    }
    v_end[i] = v;
}
