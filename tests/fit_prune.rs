//! Pruning of inputs: the exact cost against a full refit, greedy removal with swaps against all subsets, branch and
//! bound, orders to compare with, totals over several layers, single synapses.

#[path = "common/fit.rs"]
mod problems;

use problems::random;
use proptest::prelude::*;
use synfit::compute::Device;
use synfit::fit::prune::{Consumer, Pattern, Pruner, Removal, Size, sparsify, spread};
use synfit::fit::{Problem, Spec, solve};

/// A problem with correlated inputs, a ridge towards a prior of its own, and an uneven scale of inputs.
fn problem(seed: u64, n: usize, m: usize) -> Problem {
    let mut p = Problem::from_sums(random(seed, 4 * n + 10, n, m).sums()).unwrap();
    let mut rng = fastrand::Rng::with_seed(seed ^ 77);
    let unit: Vec<f64> = (0..n).map(|_| 0.3 + 2.0 * rng.f64()).collect();
    for i in 0..n {
        for j in 0..n {
            p.h[i * n + j] *= unit[i] * unit[j];
        }
        (0..m).for_each(|o| p.b[o * n + i] *= unit[i]);
    }
    p.ridge = 1e-3;
    p.prior = Some((0..m * n).map(|_| rng.f64() - 0.5).collect());
    p
}

/// Objective of the problem (with its ridge) when it may use `kept` inputs only, by plain elimination with pivots on the
/// normal equations: nothing of the code under test.
fn objective(p: &Problem, kept: &[usize]) -> f64 {
    let n = p.n;
    let mu = p.ridge * (0..n).map(|i| p.h[i * n + i]).sum::<f64>() / n as f64;
    let prior = p.prior.clone().unwrap_or(vec![0.0; p.m * n]);
    let mut total = 0.0;
    for o in 0..p.m {
        let row = |i: usize| p.b[o * n + i] + mu * prior[o * n + i];
        let mut a: Vec<Vec<f64>> = kept
            .iter()
            .map(|&i| {
                let mut line: Vec<f64> = kept.iter().map(|&j| p.h[i * n + j] + if i == j { mu } else { 0.0 }).collect();
                line.push(row(i));
                line
            })
            .collect();
        for c in 0..kept.len() {
            let pivot = (c..kept.len()).max_by(|&x, &y| a[x][c].abs().total_cmp(&a[y][c].abs())).unwrap();
            a.swap(c, pivot);
            let head = a[c].clone();
            for (r, line) in a.iter_mut().enumerate() {
                if r != c {
                    let f = line[c] / head[c];
                    line.iter_mut().zip(&head).for_each(|(v, h)| *v -= f * h);
                }
            }
        }
        let w: Vec<f64> = (0..kept.len()).map(|k| a[k][kept.len()] / a[k][k]).collect();
        total += p.tt.as_ref().unwrap()[o] + (0..n).map(|i| mu * prior[o * n + i].powi(2)).sum::<f64>()
            - w.iter().zip(kept).map(|(w, &i)| w * row(i)).sum::<f64>();
    }
    total
}

/// Consumers with `nodes` nodes of `sizes` inputs each, shuffled; every consumer has two inputs of no node.
fn consumers(seed: u64, sizes: &[Vec<usize>]) -> Vec<Consumer> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let consumer = |(k, sizes): (usize, &Vec<usize>)| {
        let n = sizes.iter().sum::<usize>() + 2;
        let mut inputs: Vec<usize> = (0..n).collect();
        rng.shuffle(&mut inputs);
        let mut at = 0;
        let columns = sizes
            .iter()
            .map(|size| {
                at += size;
                inputs[at - size..at].to_vec()
            })
            .collect();
        Consumer { problem: problem(seed.wrapping_mul(31) + k as u64, n, 1 + k), columns }
    };
    sizes.iter().enumerate().map(consumer).collect()
}

fn rest(consumers: &[Consumer], gone: &[usize]) -> f64 {
    consumers
        .iter()
        .map(|c| {
            let gone: Vec<usize> = gone.iter().flat_map(|&v| c.columns[v].clone()).collect();
            objective(&c.problem, &(0..c.problem.n).filter(|i| !gone.contains(i)).collect::<Vec<_>>())
        })
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Groups of 1 to 9 inputs in one to three consumers, some of which do not read a node.
    #[test]
    fn every_cost_is_that_of_a_full_refit(
        seed in any::<u64>(),
        sizes in (2usize..6).prop_flat_map(|nodes| {
            prop::collection::vec(prop::collection::vec(prop_oneof![1usize..10, Just(0)], nodes), 1..4)
        }),
    ) {
        let all = consumers(seed, &sizes);
        let mut pruner = Pruner::new(&all).unwrap();
        let whole = rest(&all, &[]);
        let nodes = pruner.nodes();
        let mut gone = vec![];
        let mut before = whole;
        while gone.len() < nodes {
            for v in pruner.those(true) {
                let mut without = gone.clone();
                without.push(v);
                let cost = rest(&all, &without) - before;
                let told = pruner.cost_of(v).unwrap();
                // the refits' own difference loses digits that the exact cost keeps
                prop_assert!((cost - told).abs() <= 1e-6 * cost.abs() + 1e-11 * whole, "{cost} {told}");
            }
            let v = pruner.those(true)[seed as usize % (nodes - gone.len())];
            pruner.remove(v).unwrap();
            gone.push(v);
            before = rest(&all, &gone);
            prop_assert!((before - whole - pruner.cost()).abs() <= 1e-6 * (before - whole) + 1e-11 * whole);
            for (k, c) in all.iter().enumerate() {
                let w = pruner.weights(k);
                let dead: Vec<usize> = gone.iter().flat_map(|&v| c.columns[v].clone()).collect();
                prop_assert!(dead.iter().all(|i| (0..c.problem.m).all(|o| w[o * c.problem.n + i] == 0.0)));
            }
        }
    }
}

fn subsets(n: usize, k: usize) -> Vec<Vec<usize>> {
    (0u32..1 << n)
        .filter(|s| s.count_ones() as usize == k)
        .map(|s| (0..n).filter(|i| s >> i & 1 == 1).collect())
        .collect()
}

/// 100 problems of up to 14 nodes; the best of all subsets by refits.
#[test]
fn greedy_with_swaps_is_near_the_best_subset_and_branch_and_bound_finds_it() {
    let (mut equal, mut excess, mut alone) = (0, 0.0, 0);
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (nodes, m) = (rng.usize(4..=14), rng.usize(1..=4));
        let keep = rng.usize(1..nodes);
        let columns = (0..nodes).map(|i| vec![i]).collect();
        let consumer = Consumer { problem: problem(seed, nodes, m), columns };
        let whole = objective(&consumer.problem, &(0..nodes).collect::<Vec<_>>());
        let best = subsets(nodes, keep)
            .iter()
            .map(|kept| objective(&consumer.problem, kept) - whole)
            .fold(f64::INFINITY, f64::min);
        let mut pruner = Pruner::new(std::slice::from_ref(&consumer)).unwrap();
        let mut exact = pruner.clone();
        pruner.greedy(keep).unwrap();
        alone += u32::from(pruner.cost() <= best * (1.0 + 1e-7));
        pruner.swap().unwrap();
        assert_eq!(pruner.those(true).len(), keep);
        let told = objective(&consumer.problem, &pruner.those(true)) - whole;
        assert!((told - pruner.cost()).abs() <= 1e-6 * told, "{told} {}", pruner.cost());
        assert!(told >= best * (1.0 - 1e-9));
        equal += u32::from(told <= best * (1.0 + 1e-7));
        excess += told / best - 1.0;
        let proof = exact.exact(keep, u64::MAX).unwrap();
        assert!(proof.proven);
        let found = objective(&consumer.problem, &exact.those(true)) - whole;
        assert!((found - best).abs() <= 1e-7 * best, "seed {seed}: {found} where {best} is the best");
    }
    println!("best subset found in {equal} of 100 (greedy alone {alone}), mean excess {:.3} %", excess);
    assert!(equal >= 80 && excess <= 2.0, "{equal} of 100 equal, mean excess {excess} %");
}

#[test]
fn no_swap_is_left_that_helps() {
    let all = consumers(5, &[vec![3; 12], vec![2, 0, 1, 2, 2, 0, 1, 1, 2, 2, 1, 4]]);
    let mut pruner = Pruner::new(&all).unwrap();
    pruner.greedy(6).unwrap();
    let before = pruner.cost();
    pruner.swap().unwrap();
    assert!(pruner.cost() <= before);
    let (kept, gone) = (pruner.those(true), pruner.those(false));
    let now = rest(&all, &gone);
    for &r in &gone {
        for &s in &kept {
            let swapped: Vec<usize> = gone.iter().map(|&v| if v == r { s } else { v }).collect();
            assert!(rest(&all, &swapped) >= now * (1.0 - 1e-9));
        }
    }
}

#[test]
fn the_exact_cost_orders_better_than_magnitude() {
    let all = consumers(9, &[vec![2; 20]]);
    let whole = Pruner::new(&all).unwrap();
    let (mut ours, mut other) = (whole.clone(), whole.clone());
    let curve = ours.greedy(0).unwrap();
    let compared = other.by_score(&whole.magnitudes(), 0).unwrap();
    assert_eq!(curve.len(), 20);
    assert!(curve.windows(2).all(|c| c[0].cost <= c[1].cost * (1.0 + 1e-12)));
    assert!(curve.iter().zip(&compared).take(19).all(|(a, b)| a.cost <= b.cost * (1.0 + 1e-9)));
    assert!(curve[9].cost < 0.9 * compared[9].cost);
    // nothing is left: both end where no input explains anything
    assert!((curve[19].cost / compared[19].cost - 1.0).abs() < 1e-9);
}

#[test]
fn dead_inputs_go_first_and_for_nothing() {
    let mut p = problem(3, 6, 2);
    let n = p.n;
    (0..n).for_each(|i| (p.h[2 * n + i], p.h[i * n + 2]) = (0.0, 0.0));
    (p.b[2], p.b[n + 2]) = (0.0, 0.0);
    let mut pruner = Pruner::new(&[Consumer { problem: p, columns: (0..n).map(|i| vec![i]).collect() }]).unwrap();
    assert_eq!(pruner.greedy(5).unwrap(), [Removal { node: 2, cost: 0.0 }]);
}

#[test]
fn malformed_consumers_are_refused() {
    let p = problem(3, 4, 1);
    for columns in [vec![vec![0], vec![4]], vec![vec![0, 1], vec![1]]] {
        assert!(Pruner::new(&[Consumer { problem: p.clone(), columns }]).is_err());
    }
    let one = |nodes: usize| Consumer { problem: p.clone(), columns: vec![vec![]; nodes] };
    assert!(Pruner::new(&[one(2), one(3)]).is_err());
}

#[test]
fn sizes_are_numbers_or_shares() {
    for (text, all, kept) in
        [("64", 128, 64), ("0.5", 25, 13), ("75%", 16, 12), ("1", 9, 1), ("1.0", 9, 9), ("1%", 9, 1)]
    {
        assert_eq!(text.parse::<Size>().unwrap().of(all).unwrap(), kept, "{text}");
    }
    for text in ["", "0", "-3", "0.0", "1.5", "120%", "half", "nan", "%"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    assert!(Size::Nodes(10).of(9).is_err());
}

#[test]
fn a_total_goes_to_the_layers_that_lose_least_a_neuron() {
    let curve =
        |costs: &[f64]| costs.iter().enumerate().map(|(node, &cost)| Removal { node, cost }).collect::<Vec<_>>();
    let (a, b) = (curve(&[1.0, 2.0, 9.0]), curve(&[0.5, 8.0, 8.1]));
    let gone = |free| spread(&[(&a, 1), (&b, 4)], free).unwrap();
    assert_eq!(gone(0), [0, 0]);
    assert_eq!(gone(3), [0, 1]); // 0.125 a neuron
    assert_eq!(gone(5), [0, 2]); // then 0.95 a neuron along the hull to 8.1
    assert_eq!(gone(13), [1, 3]);
    assert!(spread(&[(&a, 1), (&b, 4)], 16).is_err());
}

/// Every row against the best mask of all, and the patterns kept.
#[test]
fn synapses_go_by_the_same_cost() {
    let p = problem(21, 8, 5);
    let row = |o: usize| {
        let b = p.b[o * 8..(o + 1) * 8].to_vec();
        let tt = Some(vec![p.tt.as_ref().unwrap()[o]]);
        Problem { m: 1, b, tt, prior: p.prior.as_ref().map(|w| w[o * 8..(o + 1) * 8].to_vec()), ..p.clone() }
    };
    let patterns = [Pattern::FanIn(3), Pattern::Runs { keep: 2, of: 4 }, Pattern::Sparsity(0.55)];
    for pattern in patterns {
        let sparse = sparsify(&p, pattern).unwrap();
        let (mut cost, mut least) = (0.0, 0.0);
        for o in 0..5 {
            let kept: Vec<usize> = (0..8).filter(|i| sparse.mask[o * 8 + i]).collect();
            assert!((0..8).all(|i| sparse.mask[o * 8 + i] || sparse.w[o * 8 + i] == 0.0));
            let whole = objective(&row(o), &[0, 1, 2, 3, 4, 5, 6, 7]);
            let told = objective(&row(o), &kept) - whole;
            assert!((told - sparse.cost[o]).abs() <= 1e-7 * told);
            cost += told;
            let fits = |s: &&Vec<usize>| match pattern {
                Pattern::Runs { .. } => s.iter().filter(|&&i| i < 4).count() == 2,
                _ => true,
            };
            least += subsets(8, kept.len())
                .iter()
                .filter(fits)
                .map(|s| objective(&row(o), s) - whole)
                .fold(f64::INFINITY, f64::min);
            match pattern {
                Pattern::FanIn(most) => assert_eq!(kept.len(), most),
                Pattern::Runs { .. } => {
                    assert!([0, 1].iter().all(|r| kept.iter().filter(|&&i| i / 4 == *r).count() == 2))
                }
                Pattern::Sparsity(_) => {}
            }
        }
        println!("{pattern:?}: {:.4} of the best masks' cost", cost / least);
        assert!(cost <= 1.25 * least, "{pattern:?}: {cost} where {least} is possible");
        let stay = sparse.mask.iter().filter(|&&kept| kept).count();
        if let Pattern::Sparsity(share) = pattern {
            assert_eq!(40 - stay, (share * 40.0).round() as usize);
        }
    }
    for bad in [Pattern::Sparsity(1.0), Pattern::Sparsity(-0.1), Pattern::FanIn(0), Pattern::Runs { keep: 5, of: 4 }] {
        assert!(sparsify(&p, bad).is_err());
    }
}

/// The mask as a box of the layer solver: the grid's weights keep to it.
#[test]
fn a_mask_is_a_box_that_the_grid_solver_keeps_to() {
    use synfit::fit::Bounds;
    let p = problem(30, 12, 4);
    let sparse = sparsify(&p, Pattern::FanIn(5)).unwrap();
    let side = |open: f64| Bounds::Element(sparse.mask.iter().map(|&kept| if kept { open } else { 0.0 }).collect());
    let spec = Spec {
        lower: side(f64::NEG_INFINITY),
        upper: side(f64::INFINITY),
        grid: Some("8".parse().unwrap()),
        ..Spec::default()
    };
    let solved = solve(&Device::cpu(), &p, &spec).unwrap();
    assert!(solved.w.iter().zip(&sparse.mask).all(|(w, kept)| *kept || *w == 0.0));
    let whole: Vec<f64> = (0..4).map(|o| solved.objective.fit[o]).collect();
    let total: f64 = whole.iter().sum();
    let grid: f64 = solved.objective.grid.iter().sum();
    assert!(grid <= 1.05 * total, "{grid} on the grid, {total} without");
}
