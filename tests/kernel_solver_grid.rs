//! Error feedback, K-best, coordinate descent and pair move kernels on both devices: what they claim, recomputed in f64.

mod common;

use common::{devices, reals};
use proptest::prelude::*;
use synfit::chip::Grid;
use synfit::compute::Device;
use synfit::compute::solver::{Steps, descent, feedback, kbest, pairs};

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

/// What the rows may be rounded to: one grid, or lists of as many levels as the seed says, each row its own.
#[derive(Debug, Clone)]
enum Kind {
    Shared(Grid),
    ByRow(u64),
}

impl Kind {
    fn steps(&self, rows: usize) -> Steps<f32> {
        match self {
            Kind::Shared(grid) => Steps::of(grid),
            Kind::ByRow(seed) => {
                let count = 1 + *seed as usize % 7;
                let mut lists = reals(*seed, rows * count);
                lists.chunks_exact_mut(count).for_each(|list| list.sort_by(f32::total_cmp));
                Steps::Rows { lists, count }
            }
        }
    }

    /// Of one row, and the largest of them all.
    fn levels(&self, rows: usize, row: usize) -> Vec<f64> {
        match (self, self.steps(rows)) {
            (Kind::Shared(grid), _) => grid.levels().iter().map(|v| f64::from(*v as f32)).collect(),
            (_, Steps::Rows { lists, count }) => {
                lists[row * count..(row + 1) * count].iter().map(|v| f64::from(*v)).collect()
            }
            _ => unreachable!(),
        }
    }

    fn max_abs(&self) -> f64 {
        if let Kind::Shared(grid) = self { grid.max_abs() } else { 1.0 }
    }
}

fn check_feedback(seed: u64, rows: usize, n: usize, kind: &Kind, bounded: bool) {
    let case = Case::new(seed, rows, n, bounded);
    let steps = kind.steps(rows);
    let lane_rows: Vec<u32> = (0..3 * rows as u32).map(|l| l % rows as u32).collect();
    let base = 1.0 / kind.max_abs();
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
            let levels = kind.levels(rows, row);
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

fn check_descent(seed: u64, rows: usize, n: usize, kind: &Kind, bounded: bool) {
    let case = Case::new(seed, rows, n, bounded);
    let steps = kind.steps(rows);
    let scale = f64::from((0.7 / kind.max_abs()) as f32);
    let b: Vec<f64> =
        (0..rows * n).map(|at| (0..n).map(|k| case.w[at / n * n + k] * case.h[k * n + at % n]).sum::<f64>()).collect();
    let start: Vec<f64> = (0..rows * n)
        .map(|at| {
            let levels = kind.levels(rows, at / n);
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
            let levels = kind.levels(rows, row);
            let (before, after) =
                (case.excess(row, &start[row * n..(row + 1) * n], scale), case.excess(row, &q, scale));
            assert!(after <= before * (1.0 + 1e-6), "descent went up: {before} to {after}");
            for j in 0..n {
                let exact: f64 = (0..n).map(|k| q[k] * case.h[k * n + j]).sum();
                assert!((f64::from(hq[row * n + j]) - exact).abs() <= 1e-4 * case.h[j * n + j] * kind.max_abs());
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

/// Every way to choose from `allowed`, by brute force: the least excess.
fn optimum(case: &Case, row: usize, scale: f64, allowed: &[Vec<f64>]) -> f64 {
    let mut q = vec![0.0; case.n];
    let mut least = f64::INFINITY;
    let ways: usize = allowed.iter().map(Vec::len).product();
    for mut way in 0..ways {
        for (q, allowed) in q.iter_mut().zip(allowed) {
            *q = allowed[way % allowed.len()];
            way /= allowed.len();
        }
        least = least.min(case.excess(row, &q, scale));
    }
    least
}

fn check_kbest(seed: u64, rows: usize, n: usize, kind: &Kind, paths: usize, bounded: bool) {
    let case = Case::new(seed, rows, n, bounded);
    let steps = kind.steps(rows);
    let lane_rows: Vec<u32> = (0..2 * rows as u32).map(|l| l % rows as u32).collect();
    let scales: Vec<f64> =
        (0..2 * rows).map(|l| f64::from(((0.9 - 0.3 * (l / rows) as f64) / kind.max_abs()) as f32)).collect();
    let diagonal: Vec<f64> = (0..n).map(|i| case.unit[i * n + i]).collect();
    for dev in devices() {
        let (unit, w) = (case.upload(dev, &case.unit), case.upload(dev, &case.w));
        let bounds = case.bounds.as_ref().map(|b| case.upload(dev, b));
        let inputs = feedback::Inputs { n, rows, unit: &unit, w: &w, bounds: bounds.as_ref() };
        let lanes = (dev.upload(&lane_rows).unwrap(), case.upload(dev, &scales));
        let mut q = dev.poisoned::<f32>(lane_rows.len() * n).unwrap();
        let mut cost = dev.poisoned::<f32>(lane_rows.len()).unwrap();
        kbest::kbest(dev, &inputs, &steps, (&lanes.0, &lanes.1), paths, &mut q, &mut cost).unwrap();
        let (q, cost) = (dev.download(&q).unwrap(), dev.download(&cost).unwrap());
        for (lane, &scale) in scales.iter().enumerate() {
            let row = lane_rows[lane] as usize;
            let levels = kind.levels(rows, row);
            let allowed: Vec<_> = (0..n).map(|j| case.allowed(&levels, row, j, scale, -1e-4)).collect();
            if allowed.iter().any(Vec::is_empty) {
                // no level at all, or one that is allowed by a hair
                let none = (0..n).any(|j| case.allowed(&levels, row, j, scale, 1e-4).is_empty());
                assert!(!none || cost[lane] > 3e38, "lane {lane} costs {} outside its box", cost[lane]);
                continue;
            }
            let q: Vec<f64> = q[lane * n..(lane + 1) * n].iter().map(|v| f64::from(*v)).collect();
            for (j, q) in q.iter().enumerate() {
                assert!(case.allowed(&levels, row, j, scale, 1e-4).contains(q), "lane {lane} column {j}: {q}");
            }
            // the cost along the factor is d H d^T
            let excess = case.excess(row, &q, scale);
            let size = case.excess(row, &vec![0.0; n], scale).max(excess);
            assert!((f64::from(cost[lane]) - excess).abs() <= 1e-5 * size, "lane {lane}: {} for {excess}", cost[lane]);
            // as good as in f64, but for ties that f32 breaks otherwise
            let part = |of: &[f64]| of[row * n..(row + 1) * n].to_vec();
            let (at, bounds) = (part(&case.w), case.bounds.as_ref().map(|b| b.split_at(rows * n)));
            let bounds = bounds.map(|(l, u)| (part(l), part(u)));
            let own = feedback::Row { w: &at, bounds: bounds.as_ref().map(|(l, u)| (l.as_slice(), u.as_slice())) };
            let factor = feedback::Factor { unit: &case.unit, diagonal: &diagonal };
            let mut room = kbest::Room::new(n, paths);
            let wide = Steps::List(levels.clone());
            let twin = kbest::twin(factor, &wide, (own, scale), paths, &mut room, &mut vec![0.0; n]);
            assert!(excess <= 1.05 * twin + 1e-5 * size, "lane {lane}: {excess} where f64 finds {twin}, {dev:?}");
            if levels.len() <= kbest::BRANCHES && levels.len().saturating_pow(n as u32) <= paths {
                let best = optimum(&case, row, scale, &allowed);
                assert!(excess <= best * (1.0 + 1e-5) + 1e-6 * size, "lane {lane}: {excess}, the best is {best}");
            }
        }
    }
}

fn check_pairs(seed: u64, rows: usize, n: usize, kind: &Kind, bounded: bool) {
    let case = Case::new(seed, rows, n, bounded);
    let steps = kind.steps(rows);
    let scale = f64::from((0.7 / kind.max_abs()) as f32);
    let b: Vec<f64> =
        (0..rows * n).map(|at| (0..n).map(|k| case.w[at / n * n + k] * case.h[k * n + at % n]).sum::<f64>()).collect();
    let start: Vec<f64> = (0..rows * n)
        .map(|at| {
            let levels = kind.levels(rows, at / n);
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
        // pair moves begin where single ones end
        let mut sweeps = 0;
        descent::descent(dev, &inputs, &steps, &mut q, &mut hq, 200).unwrap();
        while pairs::pairs(dev, &inputs, &steps, &mut q, &mut hq).unwrap().contains(&true) {
            descent::descent(dev, &inputs, &steps, &mut q, &mut hq, 200).unwrap();
            sweeps += 1;
            assert!(sweeps < 200, "pairs swap for ever");
        }
        let (q, hq) = (dev.download(&q).unwrap(), dev.download(&hq).unwrap());
        for row in 0..rows {
            let q: Vec<f64> = q[row * n..(row + 1) * n].iter().map(|v| f64::from(*v)).collect();
            if row + 1 == rows && rows > 1 {
                assert_eq!(q, start[row * n..]);
                continue;
            }
            let levels = kind.levels(rows, row);
            let (before, after) =
                (case.excess(row, &start[row * n..(row + 1) * n], scale), case.excess(row, &q, scale));
            assert!(after <= before * (1.0 + 1e-6), "pairs went up: {before} to {after}");
            let neighbours: Vec<Vec<f64>> = (0..n)
                .map(|j| {
                    let allowed = case.allowed(&levels, row, j, scale, -1e-4);
                    let below = allowed.iter().rev().find(|v| **v < q[j] - 1e-6).copied();
                    let above = allowed.iter().find(|v| **v > q[j] + 1e-6).copied();
                    below.into_iter().chain(above).collect()
                })
                .collect();
            for i in 0..n {
                let exact: f64 = (0..n).map(|k| q[k] * case.h[k * n + i]).sum();
                assert!((f64::from(hq[row * n + i]) - exact).abs() <= 1e-4 * case.h[i * n + i] * kind.max_abs());
                // no two steps to neighbouring levels gain together
                for (j, a, b) in (0..i).flat_map(|j| {
                    let at = neighbours[j].iter();
                    at.flat_map(|b| neighbours[i].iter().map(|a| (*a, *b))).map(move |(a, b)| (j, a, b))
                }) {
                    let mut other = q.clone();
                    (other[i], other[j]) = (a, b);
                    let single = case.excess(
                        row,
                        &{
                            let mut q = q.clone();
                            q[i] = a;
                            q
                        },
                        scale,
                    );
                    let hair = 2e-4 * (after + (single - after).abs());
                    assert!(case.excess(row, &other, scale) >= after - hair - 1e-9, "row {row}: columns {i} and {j}");
                }
            }
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let shared = prop_oneof![
        Just("8".parse().unwrap()),
        Just("3".parse().unwrap()),
        Just("sym3".parse().unwrap()),
        Just("1.58".parse().unwrap()),
        Just("even4".parse().unwrap()),
        Just(Grid::from_levels(vec![-1.0, -0.35, 0.0, 0.1, 0.4, 1.2]).unwrap()),
    ];
    prop_oneof![2 => shared.prop_map(Kind::Shared), 1 => (0..1000u64).prop_map(Kind::ByRow)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn feedback_rounds_by_its_rule(seed in 0..1000u64, rows in 1..12usize, n in 1..90usize, kind in kinds(), bounded: bool) {
        check_feedback(seed, rows, n, &kind, bounded);
    }

    #[test]
    fn kbest_is_exact_where_it_keeps_all(seed in 0..1000u64, rows in 1..5usize, n in 1..4usize, bounded: bool) {
        check_kbest(seed, rows, n, &Kind::Shared(Grid::Ternary), 27, bounded);
        check_kbest(seed, rows, n, &Kind::Shared("2".parse().unwrap()), 64, bounded);
    }

    #[test]
    fn kbest_costs_what_it_says(
        seed in 0..1000u64, rows in 1..6usize, n in 1..70usize, paths in 1..=64usize, kind in kinds(), bounded: bool
    ) {
        check_kbest(seed, rows, n, &kind, paths, bounded);
    }

    #[test]
    fn no_pair_of_steps_is_left(seed in 0..1000u64, rows in 1..6usize, n in 1..14usize, kind in kinds(), bounded: bool) {
        check_pairs(seed, rows, n, &kind, bounded);
    }

    #[test]
    fn descent_ends_in_a_fixed_point(seed in 0..1000u64, rows in 1..8usize, n in 1..40usize, kind in kinds(), bounded: bool) {
        check_descent(seed, rows, n, &kind, bounded);
    }
}

/// More columns than one dispatch goes through.
#[test]
fn long_rows_are_split() {
    check_feedback(3, 2, 700, &Kind::Shared("4".parse().unwrap()), false);
    check_feedback(4, 3, 650, &Kind::ByRow(5), true);
    check_kbest(3, 2, 500, &Kind::Shared("4".parse().unwrap()), 33, false);
    check_pairs(5, 2, 70, &Kind::ByRow(5), true);
}
