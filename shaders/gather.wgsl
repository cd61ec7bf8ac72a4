// y[image][dst_offset + i] = x[image][index[i]], or 0 where index[i] >= src_len (0xffffffff by convention).
// x: images x src_len; index: count; y: images x dst_len. One thread an element, 256 a workgroup.
#import shared/scalar
#import shared/index
struct Params { images: u32, count: u32, src_len: u32, dst_offset: u32, dst_len: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<Scalar>;
@group(0) @binding(3) var<storage, read_write> y: array<Scalar>;

@compute @workgroup_size(256)
fn gather(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i >= p.images * p.count {
        return;
    }
    let image = i / p.count;
    let source = index[i % p.count];
    var value = Scalar(0);
    if source < p.src_len {
        value = x[image * p.src_len + source];
    }
    y[image * p.dst_len + p.dst_offset + i % p.count] = value;
}
