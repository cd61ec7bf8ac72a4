// A readout that never fires: v_end = v0 + sum over steps of (current + bias), for reals and integers.
// current: steps_in x images x len (steps_in = steps, or 1: constant); v0, bias: one per channel; v_end: images x len.
// `settle` is unused. One thread a neuron of an image, 64 a workgroup.
#import shared/scalar
#import shared/index
struct Params { steps: u32, steps_in: u32, settle: u32, neurons: u32, len: u32, area: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> current: array<Scalar>;
@group(0) @binding(2) var<storage, read> bias: array<Scalar>;
@group(0) @binding(3) var<storage, read> v0: array<Scalar>;
@group(0) @binding(4) var<storage, read_write> v_end: array<Scalar>;

@compute @workgroup_size(64)
fn accumulate(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
              @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 64u + t;
    if i >= p.neurons {
        return;
    }
    let channel = i % p.len / p.area;
    var sum = Scalar(0);
    for (var step = 0u; step < p.steps_in; step++) {
        sum += current[step * p.neurons + i] + bias[channel];
    }
    if p.steps_in == 1u {
        sum = sum * Scalar(p.steps);
    }
    v_end[i] = v0[channel] + sum;
}
