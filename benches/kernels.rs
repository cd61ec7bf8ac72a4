//! The heavy kernels on shapes of a residual network's middle stage (32 channels, 16 x 16, 3 x 3), on the CPU path and
//! on a real GPU where there is one. `cargo bench --bench kernels`; throughput is in multiply-adds (convolution, moments)
//! or neuron updates (steps) per second.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use synfit::compute::conv::{self, Conv, Start};
use synfit::compute::gram::{Moments, PatchSpec};
use synfit::compute::step::{self, StepSpec};
use synfit::compute::{Choice, Device};
use synfit::network::{Shape, Window};
use synfit::neuron::Model;

const SHAPE: Shape = Shape { c: 32, h: 16, w: 16 };
const WINDOW: Window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
const IMAGES: usize = 64;
const STEPS: usize = 16;

/// The CPU, and what `--device auto` takes if that is a GPU.
fn devices() -> Vec<Device> {
    let auto = Device::open(Choice::Auto).expect("a device");
    if auto.is_gpu() { vec![Device::cpu(), auto] } else { vec![auto] }
}

fn convolution(c: &mut Criterion) {
    let conv = Conv { input: SHAPE, output: SHAPE, window: WINDOW, groups: 1 };
    let mut group = c.benchmark_group("convolution");
    group.throughput(Throughput::Elements((IMAGES * SHAPE.len() * conv.depth()) as u64));
    for dev in devices() {
        let mut rng = fastrand::Rng::with_seed(1);
        let x: Vec<i32> = (0..IMAGES * SHAPE.len()).map(|_| i32::from(rng.f32() < 0.15)).collect();
        let w: Vec<i32> = (0..SHAPE.c * conv.depth()).map(|_| rng.i32(-127..=127)).collect();
        let bound = 127 * conv.depth() as u64;
        let real = |v: &[i32]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (xr, wr) = (dev.upload(&real(&x)).expect("x"), dev.upload(&real(&w)).expect("w"));
        let (x, w) = (dev.upload(&x).expect("x"), dev.upload(&w).expect("w"));
        let mut y = dev.zeros::<i32>(IMAGES * SHAPE.len()).expect("y");
        let mut yr = dev.zeros::<f32>(IMAGES * SHAPE.len()).expect("y");
        let name = &dev.info().name;
        group.bench_function(format!("integer/{name}"), |b| {
            b.iter(|| {
                conv::integer(&dev, &conv, IMAGES, &x, &w, Start::Zero, bound, &mut y).expect("convolution");
                dev.download_range(&y, 0, 1).expect("y")
            })
        });
        group.bench_function(format!("real/{name}"), |b| {
            b.iter(|| {
                conv::real(&dev, &conv, IMAGES, &xr, &wr, Start::Zero, &mut yr).expect("convolution");
                dev.download_range(&yr, 0, 1).expect("y")
            })
        });
    }
}

fn moments(c: &mut Criterion) {
    let spec = PatchSpec { input: SHAPE, window: WINDOW, groups: 1 };
    let n = spec.entries();
    let mut group = c.benchmark_group("moments");
    // The symmetric half of H, and B.
    let samples = IMAGES * SHAPE.area();
    group.throughput(Throughput::Elements((samples * (n * (n + 1) / 2 + n * SHAPE.c)) as u64));
    for dev in devices() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut reals = || (0..IMAGES * SHAPE.len()).map(|_| rng.f32()).collect::<Vec<_>>();
        let (x, z) = (dev.upload(&reals()).expect("x"), dev.upload(&reals()).expect("z"));
        group.bench_function(dev.info().name.clone(), |b| {
            b.iter_batched(
                || Moments::new(&dev, &[spec], SHAPE, 1).expect("moments"),
                |mut moments| {
                    moments.add(IMAGES, &[&x], &z).expect("add");
                    moments.finish().expect("sums")
                },
                BatchSize::PerIteration,
            )
        });
    }
}

fn steps(c: &mut Criterion) {
    let neurons = IMAGES * SHAPE.len();
    let mut group = c.benchmark_group("steps");
    group.throughput(Throughput::Elements((neurons * STEPS) as u64));
    for dev in devices() {
        let mut rng = fastrand::Rng::with_seed(3);
        let current: Vec<i32> = (0..neurons * STEPS).map(|_| rng.i32(-200..=300)).collect();
        let current = dev.upload(&current).expect("current");
        let each = |v: i32| dev.upload(&[v; SHAPE.c]).expect("parameters");
        let (bias, threshold, initial) = (each(3), each(400), each(200));
        let mut trains = dev.zeros::<i32>(neurons * STEPS).expect("trains");
        let mut end = dev.zeros::<i32>(neurons).expect("end");
        let spec = StepSpec {
            settle: 0,
            counted: false,
            model: Model::IF,
            steps: STEPS,
            steps_in: STEPS,
            images: IMAGES,
            shape: SHAPE,
            floor: i32::MIN / 2,
            ceil: i32::MAX / 2,
        };
        group.bench_function(dev.info().name.clone(), |b| {
            b.iter(|| {
                step::integer(&dev, &spec, &current, &bias, &threshold, &initial, &mut trains, &mut end)
                    .expect("steps");
                dev.download_range(&end, 0, 1).expect("end")
            })
        });
    }
}

criterion_group!(benches, convolution, moments, steps);
criterion_main!(benches);
