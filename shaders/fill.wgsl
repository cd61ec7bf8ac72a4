// y[i] = value, in bits. One thread an element, 256 a workgroup.
#import shared/index
struct Params { len: u32, value: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn fill(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i < p.len {
        y[i] = p.value;
    }
}
