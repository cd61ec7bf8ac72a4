//! The Gram matrix of a 3 x 3 convolution's patches on the CPU path, timed in its own process so that its peak memory can
//! be read: `cargo bench --bench gram -- CHANNELS IMAGES real|counts RUNS`. benches/gram.py runs it beside PyTorch.
//! Prints a JSON line: seconds of each run, MiB above what the process held before, and the largest relative error of
//! some entries of H against f64.

use std::time::Instant;

use synfit::compute::Device;
use synfit::compute::gram::{Moments, PatchSpec, Sums};
use synfit::network::{Shape, Window};

const WINDOW: Window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
const SIDE: usize = 32;
/// T of the counts.
const STEPS: i32 = 16;

/// A line of /proc/self/status in MiB; zero where there is no such file.
fn status(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok()).map_or(0.0, |kib| kib / 1024.0)
}

/// Some entries of H against sums in f64, relative to the diagonal.
fn error(sums: &Sums, spec: &PatchSpec, images: usize, x: &[f32]) -> f64 {
    let read = |image: usize, y: usize, column: usize, entry: usize| -> f64 {
        let (c, i, j) = (entry / 9, entry % 9 / 3, entry % 3);
        let (row, column) = ((y + i).wrapping_sub(1), (column + j).wrapping_sub(1));
        let inside = row < SIDE && column < SIDE;
        if inside { f64::from(x[(image * spec.input.c + c) * SIDE * SIDE + row * SIDE + column]) } else { 0.0 }
    };
    let mut rng = fastrand::Rng::with_seed(2);
    let n = sums.n;
    let off = (0..8).map(|_| {
        let (a, b) = (rng.usize(..n), rng.usize(..n));
        let mut want = 0.0;
        for image in 0..images {
            for (y, column) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x))) {
                want += read(image, y, column, a) * read(image, y, column, b);
            }
        }
        (sums.h[a * n + b] - want).abs() / (sums.h[a * n + a] * sums.h[b * n + b]).sqrt()
    });
    off.fold(0.0, f64::max)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |i: usize, otherwise: usize| args.get(i).map_or(otherwise, |a| a.parse().expect("a number"));
    let (channels, images, runs) = (number(0, 64), number(1, 256), number(3, 3));
    let counts = args.get(2).is_some_and(|kind| kind == "counts");
    let dev = Device::cpu();
    let input = Shape::new(channels, SIDE, SIDE);
    let output = Shape { c: 1, ..input };
    let spec = PatchSpec { input, window: WINDOW, groups: 1 };
    let mut rng = fastrand::Rng::with_seed(1);
    let draw = |_| if counts { rng.i32(0..=STEPS) as f32 } else { rng.f32() - 0.3 };
    let x: Vec<f32> = (0..images * input.len()).map(draw).collect();
    let z = dev.zeros::<f32>(images * output.len()).expect("targets");
    let uploaded = dev.upload(&x).expect("inputs");
    let before = status("VmRSS");
    let (mut seconds, mut last) = (vec![], None);
    for _ in 0..runs {
        let start = Instant::now();
        let mut moments = Moments::new(&dev, &[spec], output, 1).expect("moments");
        if counts {
            moments = moments.counts(STEPS as u64);
        }
        moments.add(images, &[&uploaded], &z).expect("add");
        last = Some(moments.finish().expect("sums"));
        seconds.push(start.elapsed().as_secs_f64());
    }
    let held = status("VmHWM") - before;
    let error = last.map_or(f64::NAN, |sums| error(&sums, &spec, images, &x));
    println!("{{\"seconds\": {seconds:?}, \"mib\": {held}, \"error\": {error:e}}}");
}
