//! Costs of removing groups of inputs, and block elimination, against full refits in f64 by elementary elimination.

mod common;

use common::{devices, reals};
use proptest::prelude::*;
use synfit::compute::removal::{self, Fitted, MOST};

/// H = G G^T / n + 1 (n x n) and B (m x n).
fn problem(seed: u64, n: usize, m: usize) -> (Vec<f64>, Vec<f64>) {
    let g = reals(seed, n * n);
    let dot = |i: usize, j: usize| (0..n).map(|k| f64::from(g[i * n + k]) * f64::from(g[j * n + k])).sum::<f64>();
    let h = (0..n * n).map(|at| dot(at / n, at % n) / n as f64 + f64::from(u8::from(at / n == at % n))).collect();
    (h, reals(seed + 1, m * n).into_iter().map(f64::from).collect())
}

/// H^-1 (k x k) and W = B H^-1 (m x k) over the inputs `left`, and tr(W H W^T), by Gauss-Jordan elimination.
fn refit(n: usize, m: usize, (h, b): (&[f64], &[f64]), left: &[usize]) -> (Vec<f64>, Vec<f64>, f64) {
    let k = left.len();
    let mut a: Vec<f64> = left.iter().flat_map(|&i| left.iter().map(move |&j| h[i * n + j])).collect();
    let mut inverse: Vec<f64> = (0..k * k).map(|at| f64::from(u8::from(at / k == at % k))).collect();
    for c in 0..k {
        let by = a[c * k + c];
        for j in 0..k {
            a[c * k + j] /= by;
            inverse[c * k + j] /= by;
        }
        for i in (0..k).filter(|&i| i != c) {
            let by = a[i * k + c];
            for j in 0..k {
                a[i * k + j] -= by * a[c * k + j];
                inverse[i * k + j] -= by * inverse[c * k + j];
            }
        }
    }
    let own = |o: usize, j: usize| b[o * n + left[j]];
    let w: Vec<f64> =
        (0..m * k).map(|at| (0..k).map(|j| own(at / k, j) * inverse[j * k + at % k]).sum::<f64>()).collect();
    let explained = (0..m * k).map(|at| w[at] * own(at / k, at % k)).sum();
    (inverse, w, explained)
}

fn check(sizes: &[usize], spare: usize, m: usize, seed: u64) {
    let n = sizes.iter().sum::<usize>() + spare;
    let (h, b) = problem(seed, n, m);
    // inputs of a group lie anywhere
    let mut order: Vec<usize> = (0..n).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let mut rest = order.as_slice();
    let groups: Vec<Vec<usize>> = sizes
        .iter()
        .map(|&size| {
            let (group, after) = rest.split_at(size);
            rest = after;
            group.to_vec()
        })
        .collect();
    let (inverse, w, _) = refit(n, m, (&h, &b), &(0..n).collect::<Vec<_>>());
    for dev in devices() {
        let mut fitted = Fitted::upload(dev, (n, m), groups.clone(), |i, row| {
            let line = inverse[i * n..(i + 1) * n].iter().copied().chain((0..m).map(|o| w[o * n + i]));
            row.iter_mut().zip(line).for_each(|(to, v)| *to = v as f32);
        })
        .unwrap();
        let mut candidates: Vec<usize> = (0..groups.len()).rev().collect();
        let mut left: Vec<usize> = (0..n).collect();
        while !candidates.is_empty() {
            let (now, weights, explained) = refit(n, m, (&h, &b), &left);
            let without = |g: usize| left.iter().copied().filter(|i| !groups[g].contains(i)).collect::<Vec<_>>();
            let want: Vec<f64> = candidates.iter().map(|&g| explained - refit(n, m, (&h, &b), &without(g)).2).collect();
            let got = removal::costs(dev, &fitted, &candidates).unwrap();
            let size = want.iter().fold(0.0f64, |s, v| s.max(*v));
            for ((g, got), want) in candidates.iter().zip(got).zip(&want) {
                let off = (f64::from(got) - want).abs();
                assert!(off <= 2e-5 * size + 1e-9, "cost of group {g} on {dev:?}: {got}, want {want}");
            }
            let (k, got) = (left.len(), fitted.download(dev).unwrap());
            let most = |all: &[f64]| all.iter().fold(0.0f64, |s, v| s.max(v.abs()));
            for (i, &row) in left.iter().enumerate() {
                for (j, &column) in left.iter().enumerate() {
                    let (got, want) = (f64::from(got[row * (n + m) + column]), now[i * k + j]);
                    assert!((got - want).abs() <= 2e-5 * most(&now), "H^-1 on {dev:?}: {got}, want {want}");
                }
                for o in 0..m {
                    let (got, want) = (f64::from(got[row * (n + m) + n + o]), weights[o * k + i]);
                    assert!((got - want).abs() <= 2e-5 * most(&weights), "W on {dev:?}: {got}, want {want}");
                }
            }
            let group = candidates.remove(candidates.len() / 2);
            removal::remove(dev, &mut fitted, group).unwrap();
            left = without(group);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_groups(
        sizes in prop::collection::vec(0..=9usize, 1..=6), spare in 0..=5usize, m in 1..=70usize, seed in 0..1000u64,
    ) {
        prop_assume!(sizes.iter().sum::<usize>() > 0);
        check(&sizes, spare, m, seed);
    }
}

/// The largest groups, more than a tile of inputs and of rows.
#[test]
fn large_groups() {
    check(&[MOST, 1, MOST, 24], 3, 131, 5);
}

#[test]
fn groups_that_make_no_sense_are_refused() {
    for dev in devices() {
        for groups in [vec![vec![0, 1], vec![1]], vec![vec![30]], vec![(0..=MOST).collect()]] {
            assert!(Fitted::upload(dev, (30, 1), groups, |_, row| row.fill(0.0)).is_err());
        }
    }
}

/// An inverse that is none is told, not summed up.
#[test]
fn a_group_without_a_positive_block_costs_infinitely_much() {
    for dev in devices() {
        let fitted = Fitted::upload(dev, (3, 2), vec![vec![0, 1], vec![2], vec![]], |i, row| {
            row.fill(1.0);
            row[i] = if i == 2 { 4.0 } else { 1.0 };
        })
        .unwrap();
        let costs = removal::costs(dev, &fitted, &[0, 1, 2]).unwrap();
        assert_eq!(costs, [f32::INFINITY, 0.5, 0.0], "{dev:?}");
    }
}
