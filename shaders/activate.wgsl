// Elementwise maps in place on f32. One thread an element, 256 a workgroup.
//   activate: the trained network's activation functions (src/network/layers.rs `Activation`), by `kind`
//   affine:   y = a[channel] y + b[channel]
//   add:      y = y + a, element by element
//   lacking:  y, what a current lacks of the wanted a, made what it lacks of those that give the same response (`needed`)
#import shared/keep
#import shared/exponential
#import shared/index
struct Params { len: u32, kind: u32, alpha: f32, beta: f32, channels: u32, area: u32, zero: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

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
        case 9u: { return 0.0; }
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

@compute @workgroup_size(256)
fn add(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
       @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i < p.len {
        y[i] = y[i] + a[i];
    }
}

@compute @workgroup_size(256)
fn lacking(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
           @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i >= p.len {
        return;
    }
    let wanted = a[i];
    let current = wanted - y[i];
    if wanted <= 0.0 {
        y[i] = min(-current, 0.0);
    } else if wanted >= p.alpha {
        y[i] = max(p.alpha - current, 0.0);
    }
}
