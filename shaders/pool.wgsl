// Pooling over windows, channel by channel. x: images x c x in_h x in_w; y: images x c x area.
//   average:  sum over the window / per_position[pos]          (f32)
//   maximum:  maximum over the taps inside, 0 if there are none (f32)
//   weighted: sum over the window * per_position[pos]          (i32)
//   winner:   y[t] = max over the taps inside of x[t] - the same of x[t - 1], x = spikes so far, for every step t;
//             the window's `images` is then steps x images and `images_a_step` tells how many belong to one step.
// One thread an output element, 256 a workgroup. Taps first..last of the window are folded into y (`fresh`: y is
// started anew; `done`: these are the last taps), so that the host can split large windows.
#import shared/scalar
#import shared/index
#import shared/window
struct Params {
    window: Window,
    first: u32, last: u32,
    fresh: u32, done: u32,
    images_a_step: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Scalar>;
@group(0) @binding(2) var<storage, read> per_position: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<Scalar>;

struct Output { index: u32, image: u32, channel: u32, position: u32 }

// index = 0xffffffff for threads beyond the last output.
fn output(wid: vec3<u32>, count: vec3<u32>, t: u32) -> Output {
    let i = workgroup_number(wid, count) * 256u + t;
    let area = p.window.out_h * p.window.out_w;
    if i >= p.window.images * p.window.out_c * area {
        return Output(0xffffffffu, 0u, 0u, 0u);
    }
    return Output(i, i / area / p.window.out_c, i / area % p.window.out_c, i % area);
}

// The input's index at a tap of an output's window, 0xffffffff in the padding.
fn tap_index(o: Output, image: u32, tap: u32) -> u32 {
    let row = o.position / p.window.out_w * p.window.stride_h + tap / p.window.kernel_w * p.window.dilation_h;
    let column = o.position % p.window.out_w * p.window.stride_w + tap % p.window.kernel_w * p.window.dilation_w;
    return window_at(p.window, image, o.channel, i32(row) - p.window.pad_h, i32(column) - p.window.pad_w);
}

fn window_sum(o: Output) -> Scalar {
    var sum = y[o.index];
    if p.fresh == 1u {
        sum = Scalar(0);
    }
    for (var tap = p.first; tap < p.last; tap++) {
        let i = tap_index(o, o.image, tap);
        if i != 0xffffffffu {
            sum += x[i];
        }
    }
    return sum;
}

@compute @workgroup_size(256)
fn average(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
           @builtin(local_invocation_index) t: u32) {
    let o = output(wid, count, t);
    if o.index == 0xffffffffu {
        return;
    }
    var sum = window_sum(o);
    if p.done == 1u {
        sum = sum / Scalar(per_position[o.position]);
    }
    y[o.index] = sum;
}

@compute @workgroup_size(256)
fn weighted(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
            @builtin(local_invocation_index) t: u32) {
    let o = output(wid, count, t);
    if o.index == 0xffffffffu {
        return;
    }
    var sum = window_sum(o);
    if p.done == 1u {
        sum = sum * Scalar(per_position[o.position]);
    }
    y[o.index] = sum;
}

@compute @workgroup_size(256)
fn maximum(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
           @builtin(local_invocation_index) t: u32) {
    let o = output(wid, count, t);
    if o.index == 0xffffffffu {
        return;
    }
    // The bits of the lowest f32: no tap was inside yet.
    let nothing = bitcast<Scalar>(0xff7fffffu);
    var most = y[o.index];
    if p.fresh == 1u {
        most = nothing;
    }
    for (var tap = p.first; tap < p.last; tap++) {
        let i = tap_index(o, o.image, tap);
        if i != 0xffffffffu {
            most = max(most, x[i]);
        }
    }
    if p.done == 1u && most == nothing {
        most = Scalar(0);
    }
    y[o.index] = most;
}

@compute @workgroup_size(256)
fn winner(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let o = output(wid, count, t);
    if o.index == 0xffffffffu {
        return;
    }
    // The lowest i32: no tap was inside yet. Codes of the input may be negative.
    let nothing = bitcast<Scalar>(0x80000000u);
    var now = nothing;
    var before = nothing;
    for (var tap = p.first; tap < p.last; tap++) {
        let i = tap_index(o, o.image, tap);
        if i != 0xffffffffu {
            now = max(now, x[i]);
            if o.image >= p.images_a_step {
                before = max(before, x[i - p.images_a_step * p.window.in_c * p.window.in_h * p.window.in_w]);
            }
        }
    }
    y[o.index] = select(now, Scalar(0), now == nothing) - select(before, Scalar(0), before == nothing);
}
