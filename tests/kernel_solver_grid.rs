//! Error feedback and coordinate descent kernels on both devices: what they claim, recomputed in f64.

mod common;

use common::{devices, reals};
use proptest::prelude::*;
use synfit::chip::Grid;
use synfit::compute::Device;
use synfit::compute::solver::{Steps, descent, feedback};

struct Case {
    n: usize,
    rows: usize,
    h: Vec<f64>,
    /// L_ji / L_ii, L_ii on the diagonal.
    unit: Vec<f64>,
    w: Vec<f64>,
    bounds: Option<Vec<f64>>,
}

impl Case {
    fn new(seed: u64, rows: usize, n: usize, bounded: bool) -> Self {
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
        let x = wide(reals(seed, (2 * n + 3) * n));
        let mut h = vec![0.0; n * n];
        for s in x.chunks_exact(n) {
            for i in 0..n {
                for j in 0..n {
                    h[i * n + j] += (s[i] + 0.3 * s[0]) * (s[j] + 0.3 * s[0]);
                }
            }
        }
        h.iter_mut().for_each(|v| *v = f64::from(*v as f32));
        let factor = synfit::compute::solver::dense::Cholesky::new(h.clone(), n, faer::Par::Seq).unwrap();
        let l = |j: usize, i: usize| factor.data[i * n + j];
        let mut unit = vec![0.0; n * n];
        for i in 0..n {
            unit[i * n + i] = l(i, i);
            for j in i + 1..n {
                unit[j * n + i] = l(j, i) / l(i, i);
            }
        }
        let w = wide(reals(seed + 1, rows * n));
        let bounds = bounded.then(|| {
            let lower = reals(seed + 2, rows * n).into_iter().map(|v| -f64::from(v.abs()) * 0.8);
            let upper = reals(seed + 3, rows * n).into_iter().map(|v| f64::from(v.abs()) * 0.8);
            lower.chain(upper).map(|v| f64::from(v as f32)).collect()
        });
        Self { n, rows, h, unit, w, bounds }
    }

    fn upload(&self, dev: &Device, values: &[f64]) -> synfit::compute::Buffer<f32> {
        dev.upload(&values.iter().map(|v| *v as f32).collect::<Vec<_>>()).unwrap()
    }

    /// The levels that column j of `row` may take at `scale`, bounds widened by `hair`.
    fn allowed(&self, levels: &[f64], row: usize, j: usize, scale: f64, hair: f64) -> Vec<f64> {
        let at = row * self.n + j;
        let inside = |v: &&f64| {
            self.bounds.as_ref().is_none_or(|b| {
                let (lower, upper) = (b[at] / scale, b[self.rows * self.n + at] / scale);
                **v >= lower - hair && **v <= upper + hair
            })
        };
        levels.iter().filter(inside).copied().collect()
    }

    fn excess(&self, row: usize, q: &[f64], scale: f64) -> f64 {
        let n = self.n;
        let d: Vec<f64> = (0..n).map(|i| scale * q[i] - self.w[row * n + i]).collect();
        (0..n * n).map(|at| d[at / n] * self.h[at] * d[at % n]).sum()
    }
}

fn check_feedback(seed: u64, rows: usize, n: usize, grid: &Grid, bounded: bool) {
    let case = Case::new(seed, rows, n, bounded);
    let steps = Steps::<f32>::of(grid);
    let levels: Vec<f64> = grid.levels().iter().map(|v| f64::from(*v as f32)).collect();
    let lane_rows: Vec<u32> = (0..3 * rows as u32).map(|l| l % rows as u32).collect();
    let base = 1.0 / grid.max_abs();
    let scales: Vec<f64> = (0..3 * rows).map(|l| f64::from((base * (1.0 - 0.2 * (l / rows) as f64)) as f32)).collect();
    for dev in devices() {
        let (unit, w) = (case.upload(dev, &case.unit), case.upload(dev, &case.w));
        let bounds = case.bounds.as_ref().map(|b| case.upload(dev, b));
        let inputs = feedback::Inputs { n, rows, unit: &unit, w: &w, bounds: bounds.as_ref() };
        let lanes = (dev.upload(&lane_rows).unwrap(), case.upload(dev, &scales));
        let mut q = dev.poisoned::<f32>(lane_rows.len() * n).unwrap();
        let mut cost = dev.poisoned::<f32>(lane_rows.len()).unwrap();
        feedback::feedback(dev, &inputs, &steps, (&lanes.0, &lanes.1), &mut q, &mut cost).unwrap();
        let (q, cost) = (dev.download(&q).unwrap(), dev.download(&cost).unwrap());
        for (lane, &scale) in scales.iter().enumerate() {
            let row = lane_rows[lane] as usize;
            let q: Vec<f64> = q[lane * n..(lane + 1) * n].iter().map(|v| f64::from(*v)).collect();
            for j in 0..n {
                // the rule, with the kernel's own choices for the columns before
                let passed: f64 = (j + 1..n).map(|k| (scale * q[k] - case.w[row * n + k]) * case.unit[k * n + j]).sum();
                let centre = (case.w[row * n + j] - passed) / scale;
                let possible = |j| case.allowed(&levels, row, j, scale, 1e-4);
                // levels within a hair of a bound may go either way
                let allowed = case.allowed(&levels, row, j, scale, -1e-4);
                if allowed.is_empty() {
                    continue;
                }
                let best = allowed.iter().map(|v| (v - centre).abs()).fold(f64::INFINITY, f64::min);
                assert!(
                    possible(j).contains(&q[j]) && (q[j] - centre).abs() <= best + 1e-4 * (1.0 + centre.abs()),
                    "lane {lane} column {j}: {} for {centre}, {dev:?}",
                    q[j]
                );
            }
            // Babai's identity: the cost that feedback sums up is d H d^T
            let excess = case.excess(row, &q, scale);
            let possible = (0..n).all(|j| !case.allowed(&levels, row, j, scale, -1e-4).is_empty());
            if possible {
                let size = case.excess(row, &vec![0.0; n], scale).max(excess);
                assert!(
                    (f64::from(cost[lane]) - excess).abs() <= 1e-5 * size,
                    "lane {lane}: {} for {excess}",
                    cost[lane]
                );
            }
        }
    }
}

fn check_descent(seed: u64, rows: usize, n: usize, grid: &Grid, bounded: bool) {
    let case = Case::new(seed, rows, n, bounded);
    let steps = Steps::<f32>::of(grid);
    let levels: Vec<f64> = grid.levels().iter().map(|v| f64::from(*v as f32)).collect();
    let scale = f64::from((0.7 / grid.max_abs()) as f32);
    let b: Vec<f64> =
        (0..rows * n).map(|at| (0..n).map(|k| case.w[at / n * n + k] * case.h[k * n + at % n]).sum::<f64>()).collect();
    let start: Vec<f64> = (0..rows * n)
        .map(|at| {
            let allowed = case.allowed(&levels, at / n, at % n, scale, 1e-6);
            *allowed.iter().min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(&levels[0])
        })
        .collect();
    let hq: Vec<f64> =
        (0..rows * n).map(|at| (0..n).map(|k| start[at / n * n + k] * case.h[k * n + at % n]).sum()).collect();
    for dev in devices() {
        let (h, bd) = (case.upload(dev, &case.h), case.upload(dev, &b));
        let bounds = case.bounds.as_ref().map(|b| case.upload(dev, b));
        // the last row rests
        let scales: Vec<f64> = (0..rows).map(|o| if o + 1 == rows && rows > 1 { 0.0 } else { scale }).collect();
        let scales = case.upload(dev, &scales);
        let inputs = descent::Inputs { n, m: rows, h: &h, b: &bd, scales: &scales, bounds: bounds.as_ref() };
        let (mut q, mut hq) = (case.upload(dev, &start), case.upload(dev, &hq));
        descent::descent(dev, &inputs, &steps, &mut q, &mut hq, 200).unwrap();
        let (q, hq) = (dev.download(&q).unwrap(), dev.download(&hq).unwrap());
        for row in 0..rows {
            let q: Vec<f64> = q[row * n..(row + 1) * n].iter().map(|v| f64::from(*v)).collect();
            if row + 1 == rows && rows > 1 {
                assert_eq!(q, start[row * n..]);
                continue;
            }
            let (before, after) =
                (case.excess(row, &start[row * n..(row + 1) * n], scale), case.excess(row, &q, scale));
            assert!(after <= before * (1.0 + 1e-6), "descent went up: {before} to {after}");
            for j in 0..n {
                let exact: f64 = (0..n).map(|k| q[k] * case.h[k * n + j]).sum();
                assert!((f64::from(hq[row * n + j]) - exact).abs() <= 1e-4 * case.h[j * n + j] * grid.max_abs());
                // a fixed point: no single column can do better
                for v in case.allowed(&levels, row, j, scale, -1e-4) {
                    let mut other = q.clone();
                    other[j] = v;
                    assert!(case.excess(row, &other, scale) >= after * (1.0 - 1e-4) - 1e-9, "row {row} column {j}");
                }
            }
        }
    }
}

fn grids() -> impl Strategy<Value = Grid> {
    prop_oneof![
        Just("8".parse().unwrap()),
        Just("3".parse().unwrap()),
        Just("1.58".parse().unwrap()),
        Just("even4".parse().unwrap()),
        Just(Grid::from_levels(vec![-1.0, -0.35, 0.0, 0.1, 0.4, 1.2]).unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn feedback_rounds_by_its_rule(seed in 0..1000u64, rows in 1..12usize, n in 1..90usize, grid in grids(), bounded: bool) {
        check_feedback(seed, rows, n, &grid, bounded);
    }

    #[test]
    fn descent_ends_in_a_fixed_point(seed in 0..1000u64, rows in 1..8usize, n in 1..40usize, grid in grids(), bounded: bool) {
        check_descent(seed, rows, n, &grid, bounded);
    }
}

/// More columns than one dispatch goes through.
#[test]
fn long_rows_are_split() {
    check_feedback(3, 2, 700, &"4".parse().unwrap(), false);
}
