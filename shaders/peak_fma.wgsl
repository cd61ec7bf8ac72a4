// What the arithmetic units can do at most: y = y a + b, again and again, element by element, in registers.
// One thread takes four vectors of four elements (16 chains of fused multiply-adds that do not wait for each other), 256
// threads a workgroup; neighbouring threads take neighbouring vectors. `turns` turns of the loop of eight steps each, at
// most 65,535 of them, as some drivers end longer loops without a word.
#import shared/index
struct Params { vectors: u32, turns: u32, a: f32, b: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

struct Chains { v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32> }

fn step(v: Chains, a: vec4<f32>, b: vec4<f32>) -> Chains {
    return Chains(fma(v.v0, a, b), fma(v.v1, a, b), fma(v.v2, a, b), fma(v.v3, a, b));
}

@compute @workgroup_size(256)
fn rounds(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 1024u + t;
    let a = vec4<f32>(p.a);
    let b = vec4<f32>(p.b);
    // What lies beyond the end reads the last vector, and is not written.
    let last = p.vectors - 1u;
    var v = Chains(y[min(i, last)], y[min(i + 256u, last)], y[min(i + 512u, last)], y[min(i + 768u, last)]);
    for (var turn = 0u; turn < p.turns; turn++) {
        v = step(step(step(step(v, a, b), a, b), a, b), a, b);
        v = step(step(step(step(v, a, b), a, b), a, b), a, b);
    }
    if i < p.vectors { y[i] = v.v0; }
    if i + 256u < p.vectors { y[i + 256u] = v.v1; }
    if i + 512u < p.vectors { y[i + 512u] = v.v2; }
    if i + 768u < p.vectors { y[i + 768u] = v.v3; }
}
