//! What a sweep of the grid solver costs over the number of inputs n: error feedback, K-best (16 paths), one sweep of
//! descent and one of pair moves, 32 rows at 4 bits, on the CPU path and on a real GPU where there is one.
//! `cargo bench --bench sweeps`; throughput is in m n^2 a second: level where the cost is O(m n^2).

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use synfit::chip::Grid;
use synfit::compute::solver::{Steps, dense, descent, feedback, kbest, pairs};
use synfit::compute::{Buffer, Choice, Device};

const ROWS: usize = 32;
const SIZES: [usize; 6] = [64, 128, 256, 512, 1024, 2048];
const PATHS: usize = 16;

/// The CPU, and what `--device auto` takes if that is a GPU.
fn devices() -> Vec<Device> {
    let auto = Device::open(Choice::Auto).expect("a device");
    if auto.is_gpu() { vec![Device::cpu(), auto] } else { vec![auto] }
}

/// A problem with correlated inputs: H = L L^T of a random L, and weights to round.
struct Case {
    n: usize,
    h: Vec<f32>,
    /// `feedback::Inputs::unit`: L_ji / L_ii, L_ii on the diagonal.
    unit: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    scales: Vec<f32>,
}

impl Case {
    fn new(n: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(n as u64);
        let mut even = || 2.0 * rng.f64() - 1.0;
        let size = 1.0 / (n as f64).sqrt();
        let mut l = vec![0.0; n * n];
        for i in 0..n {
            l[i * n..i * n + i].iter_mut().for_each(|v| *v = size * even());
            l[i * n + i] = 1.0;
        }
        let transposed: Vec<f64> = (0..n * n).map(|at| l[at % n * n + at / n]).collect();
        let mut h = vec![0.0; n * n];
        dense::product(&mut h, false, &l, &transposed, (n, n, n), dense::par(n * n * n));
        let w: Vec<f64> = (0..ROWS * n).map(|_| even()).collect();
        let mut b = vec![0.0; ROWS * n];
        dense::product(&mut b, false, &w, &h, (ROWS, n, n), dense::par(ROWS * n * n));
        let single = |v: &[f64]| v.iter().map(|v| *v as f32).collect();
        Self { n, h: single(&h), unit: single(&l), w: single(&w), b: single(&b), scales: vec![0.12; ROWS] }
    }
}

/// (q, hq): all levels 0.
fn start(dev: &Device, n: usize) -> (Buffer<f32>, Buffer<f32>) {
    (dev.zeros(ROWS * n).expect("q"), dev.zeros(ROWS * n).expect("hq"))
}

fn sweeps(c: &mut Criterion) {
    let grid: Grid = "4".parse().expect("a grid");
    let steps = Steps::of(&grid);
    for dev in devices() {
        let mut group = c.benchmark_group(format!("sweeps/{}", dev.info().name));
        group.sample_size(10);
        for case in SIZES.map(Case::new) {
            let n = case.n;
            group.throughput(Throughput::Elements((ROWS * n * n) as u64));
            let up = |v: &[f32]| dev.upload(v).expect("upload");
            let (h, unit, w, b, scales) = (up(&case.h), up(&case.unit), up(&case.w), up(&case.b), up(&case.scales));
            let lane_rows = dev.upload(&(0..ROWS as u32).collect::<Vec<_>>()).expect("rows");
            let (mut q, mut cost) = (dev.zeros::<f32>(ROWS * n).expect("q"), dev.zeros::<f32>(ROWS).expect("cost"));
            let given = feedback::Inputs { n, rows: ROWS, unit: &unit, w: &w, bounds: None };
            let lanes = (&lane_rows, &scales);
            group.bench_function(BenchmarkId::new("feedback", n), |bench| {
                bench.iter(|| {
                    feedback::feedback(&dev, &given, &steps, lanes, &mut q, &mut cost).expect("feedback");
                    dev.download(&cost).expect("cost")
                })
            });
            group.bench_function(BenchmarkId::new("kbest", n), |bench| {
                bench.iter(|| {
                    kbest::kbest(&dev, &given, &steps, lanes, PATHS, &mut q, &mut cost).expect("kbest");
                    dev.download(&cost).expect("cost")
                })
            });
            let inputs = descent::Inputs { n, m: ROWS, h: &h, b: &b, scales: &scales, bounds: None };
            group.bench_function(BenchmarkId::new("descent", n), |bench| {
                bench.iter_batched(
                    || start(&dev, n),
                    |(mut q, mut hq)| {
                        descent::descent(&dev, &inputs, &steps, &mut q, &mut hq, 1).expect("descent");
                        dev.download_range(&hq, 0, 1).expect("hq")
                    },
                    BatchSize::LargeInput,
                )
            });
            let (mut settled, mut products) = start(&dev, n);
            descent::descent(&dev, &inputs, &steps, &mut settled, &mut products, 100).expect("descent");
            let (settled, products) = (dev.download(&settled).expect("q"), dev.download(&products).expect("hq"));
            group.bench_function(BenchmarkId::new("pairs", n), |bench| {
                bench.iter_batched(
                    || (up(&settled), up(&products)),
                    |(mut q, mut hq)| pairs::pairs(&dev, &inputs, &steps, &mut q, &mut hq).expect("pairs"),
                    BatchSize::LargeInput,
                )
            });
        }
    }
}

criterion_group!(benches, sweeps);
criterion_main!(benches);
