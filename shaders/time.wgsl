// Sums over time of spike trains [steps][len].
//   total:   y[i] = sum over steps of trains[step][i], as f32
//   running: y[step][i] = sum over steps up to this one, as i32 in the bits of y
// One thread an element, 256 a workgroup.
#import shared/index
struct Params { steps: u32, len: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> trains: array<i32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn total(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i >= p.len {
        return;
    }
    var sum = 0;
    for (var step = 0u; step < p.steps; step++) {
        sum += trains[step * p.len + i];
    }
    y[i] = bitcast<u32>(f32(sum));
}

@compute @workgroup_size(256)
fn running(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
           @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i >= p.len {
        return;
    }
    var sum = 0;
    for (var step = 0u; step < p.steps; step++) {
        sum += trains[step * p.len + i];
        y[step * p.len + i] = bitcast<u32>(sum);
    }
}
