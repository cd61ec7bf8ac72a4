// What the memory can do at most: y = x in vectors of four words. One thread a vector, 256 a workgroup.
#import shared/index
struct Params { vectors: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn copy(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i < p.vectors {
        y[i] = x[i];
    }
}
