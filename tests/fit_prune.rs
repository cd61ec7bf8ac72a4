//! Pruning of inputs: the exact cost against a full refit, greedy removal with swaps against all subsets, branch and
//! bound, orders to compare with, totals over several layers, single synapses.

mod common;
#[path = "common/fit.rs"]
mod problems;

use problems::random;
use proptest::prelude::*;
use synfit::compute::Device;
use synfit::fit::prune::{Consumer, Pattern, Pruner, Removal, Runs, Score, Size, sparsify, spread};
use synfit::fit::{Method, Problem, Signs, Spec, solve};

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

fn row_of(p: &Problem, o: usize) -> Problem {
    let n = p.n;
    let b = p.b[o * n..(o + 1) * n].to_vec();
    let tt = Some(vec![p.tt.as_ref().unwrap()[o]]);
    Problem { m: 1, b, tt, prior: p.prior.as_ref().map(|w| w[o * n..(o + 1) * n].to_vec()), ..p.clone() }
}

const FAN_IN: Pattern = Pattern { sparsity: 0.0, fan_in: Some(3), together: None, runs: None };
const RUNS: Pattern = Pattern { fan_in: None, runs: Some(Runs { keep: 2, of: 4 }), ..FAN_IN };
const SHARE: Pattern = Pattern { sparsity: 0.55, fan_in: None, ..FAN_IN };

/// Whether inputs `s` of a row of eight keep to the pattern, as far as it is a row's own.
fn keeps_to(pattern: Pattern, s: &[usize]) -> bool {
    let run = |r: usize, of: usize| s.iter().filter(|&&i| i / of == r).count();
    pattern.fan_in.is_none_or(|most| s.len() <= most)
        && pattern.runs.is_none_or(|Runs { keep, of }| (0..8usize.div_ceil(of)).all(|r| run(r, of) <= keep))
}

/// Every row against the best mask of all, and the patterns kept.
#[test]
fn synapses_go_by_the_same_cost() {
    let both = Pattern { fan_in: Some(3), ..RUNS };
    let all = Pattern { sparsity: 0.7, ..both };
    for pattern in [FAN_IN, RUNS, SHARE, both, all] {
        let (mut cost, mut least, mut equal) = (0.0, 0.0, 0);
        for seed in 0..20 {
            let p = problem(seed, 8, 5);
            let sparse = sparsify(&p, pattern, Score::Cost).unwrap();
            for o in 0..5 {
                let kept: Vec<usize> = (0..8).filter(|i| sparse.mask[o * 8 + i]).collect();
                assert!(keeps_to(pattern, &kept));
                assert!((0..8).all(|i| sparse.mask[o * 8 + i] || sparse.w[o * 8 + i] == 0.0));
                let whole = objective(&row_of(&p, o), &[0, 1, 2, 3, 4, 5, 6, 7]);
                let told = objective(&row_of(&p, o), &kept) - whole;
                assert!((told - sparse.cost[o]).abs() <= 1e-6 * told + 1e-10 * whole, "{told} {}", sparse.cost[o]);
                let best = subsets(8, kept.len())
                    .iter()
                    .filter(|s| keeps_to(pattern, s))
                    .map(|s| objective(&row_of(&p, o), s) - whole)
                    .fold(f64::INFINITY, f64::min);
                (cost, least) = (cost + told, least + best);
                equal += u32::from(told <= best * (1.0 + 1e-6) + 1e-10 * whole);
            }
            let gone = sparse.mask.iter().filter(|kept| !**kept).count();
            match pattern {
                Pattern { sparsity, fan_in: None, .. } if sparsity > 0.0 => {
                    assert_eq!(gone, (sparsity * 40.0).round() as usize)
                }
                Pattern { sparsity: 0.7, .. } => assert_eq!(gone, 28),
                Pattern { fan_in: Some(most), .. } => assert_eq!(gone, 5 * (8 - most)),
                _ => assert_eq!(gone, 20),
            }
        }
        println!("{pattern:?}: {:.4} of the best masks' cost, {equal} of 100 rows equal", cost / least);
        assert!(cost <= 1.02 * least && equal >= 80, "{pattern:?}: {cost} where {least} is possible, {equal} equal");
    }
    let p = problem(1, 8, 5);
    for bad in [
        Pattern { sparsity: 1.0, ..SHARE },
        Pattern { sparsity: -0.1, ..SHARE },
        Pattern { fan_in: Some(0), ..FAN_IN },
        Pattern { runs: Some(Runs { keep: 5, of: 4 }), ..RUNS },
    ] {
        assert!(sparsify(&p, bad, Score::Cost).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// What is told of any mask is what a full refit of each row loses, whatever it is chosen by.
    #[test]
    fn a_mask_costs_what_a_full_refit_of_its_rows_loses(
        seed in any::<u64>(),
        n in 4usize..30,
        m in 1usize..4,
        sparsity in prop_oneof![Just(0.0), 0.1f64..0.95],
        fan_in in prop::option::of(1usize..30),
        runs in prop::option::of((1usize..4, 0usize..4)),
        together in prop::option::of(2usize..30),
    ) {
        let p = problem(seed, n, m);
        let runs = runs.map(|(keep, more)| Runs { keep, of: keep + more });
        let pattern = Pattern { sparsity, fan_in, together, runs };
        let costs = [Score::Cost, Score::Magnitude, Score::Rate].map(|score| {
            let sparse = sparsify(&p, pattern, score).unwrap();
            for o in 0..m {
                let row = row_of(&p, o);
                let kept: Vec<usize> = (0..n).filter(|i| sparse.mask[o * n + i]).collect();
                let whole = objective(&row, &(0..n).collect::<Vec<_>>());
                let told = objective(&row, &kept) - whole;
                assert!((told - sparse.cost[o]).abs() <= 1e-6 * told + 1e-9 * whole.abs(), "{told} {}", sparse.cost[o]);
                assert!(kept.len() <= fan_in.unwrap_or(n));
                let Runs { keep, of } = runs.unwrap_or(Runs { keep: n, of: n });
                assert!((0..n).step_by(of).all(|r| kept.iter().filter(|&&i| (r..r + of).contains(&i)).count() <= keep));
            }
            let read = (0..n).filter(|i| (0..m).any(|o| sparse.mask[o * n + i])).count();
            assert!(read <= together.unwrap_or(n));
            let gone = sparse.mask.iter().filter(|kept| !**kept).count();
            assert!(gone >= (sparsity * (n * m) as f64).round() as usize);
            sparse.cost.iter().sum::<f64>()
        });
        if pattern.is_all(n) {
            prop_assert!(costs.iter().all(|c| *c < 1e-9));
        }
    }
}

#[test]
fn the_exact_cost_chooses_synapses_better_than_magnitude() {
    for pattern in [SHARE, Pattern { fan_in: Some(12), ..FAN_IN }, RUNS] {
        let (mut by_cost, mut by_magnitude, mut by_rate) = (0.0, 0.0, 0.0);
        for seed in 0..5 {
            let p = problem(seed, 40, 6);
            let cost = |score| sparsify(&p, pattern, score).unwrap().cost.iter().sum::<f64>();
            by_cost += cost(Score::Cost);
            by_magnitude += cost(Score::Magnitude);
            by_rate += cost(Score::Rate);
        }
        println!("{pattern:?}: cost {by_cost:.4}, magnitude {by_magnitude:.4}, rate {by_rate:.4}");
        assert!(by_cost < 0.9 * by_magnitude.min(by_rate), "{pattern:?}");
    }
}

/// The grid's weights keep to the mask, on every device and by every method; a grid that cannot is refused.
#[test]
fn the_grid_solver_keeps_to_a_mask() {
    let p = problem(30, 60, 40);
    let sparse = sparsify(&p, Pattern { fan_in: Some(20), ..FAN_IN }, Score::Cost).unwrap();
    let spec =
        |grid: &str| Spec { mask: Some(sparse.mask.clone()), grid: Some(grid.parse().unwrap()), ..Spec::default() };
    for dev in common::devices() {
        for (grid, method, signs) in [
            ("8", Method::Auto, Signs::Free),
            ("3", Method::Kbest, Signs::Free),
            ("4", Method::Descent, Signs::Free),
            ("even8", Method::Feedback, Signs::Free),
            ("1.58", Method::Rtn, Signs::Free),
            ("u4", Method::Auto, Signs::Input),
        ] {
            let solved = solve(dev, &p, &Spec { method, signs, ..spec(grid) }).unwrap();
            assert!(solved.w.iter().zip(&sparse.mask).all(|(w, kept)| *kept || *w == 0.0), "{grid} {method:?}");
            assert!(solved.codes.unwrap().iter().zip(&sparse.mask).all(|(q, kept)| *kept || *q == 0));
            let [fit, grids] = [&solved.objective.fit, &solved.objective.grid].map(|o| o.iter().sum::<f64>());
            assert!(fit <= grids * (1.0 + 1e-9));
            if grid == "8" {
                // the continuous solution is the refit of the mask
                for o in 0..p.m {
                    let kept: Vec<usize> = (0..p.n).filter(|i| sparse.mask[o * p.n + i]).collect();
                    let told = objective(&row_of(&p, o), &kept);
                    assert!((told - solved.objective.fit[o]).abs() <= 1e-6 * told);
                }
                assert!(grids <= 1.05 * fit, "{grids} on the grid, {fit} without");
            }
        }
    }
    let refused = |spec: &Spec| solve(&Device::cpu(), &p, spec).err().unwrap().to_string();
    assert!(refused(&spec("1")).contains("no zero"));
    assert!(refused(&Spec { mask: Some(vec![true; 3]), ..spec("8") }).contains("3 values"));
    assert!(refused(&Spec { palette: Some(4), grid: None, ..spec("8") }).contains("palettes"));
}

/// In f32 on a device as in f64 on the CPU, down to ties that f32 cannot tell; what it costs in the end is exact.
#[test]
fn a_device_removes_the_same_nodes() {
    for (seed, sizes) in [(1, vec![vec![1; 90], vec![4; 90]]), (2, vec![vec![9; 21]]), (3, vec![vec![0, 25, 3, 7, 1]])]
    {
        let all = consumers(seed, &sizes);
        let nodes = sizes[0].len();
        for dev in common::devices() {
            let (mut host, mut device) = (Pruner::new(&all).unwrap(), Pruner::new(&all).unwrap());
            assert!(!device.pays(dev), "too small a problem for a device");
            let want = host.greedy(nodes / 3).unwrap();
            let got = device.greedy_on(dev, nodes / 3).unwrap();
            let gone = |steps: &[Removal]| steps.iter().map(|step| step.node).collect::<Vec<_>>();
            assert_eq!(gone(&got), gone(&want), "{dev:?}");
            for (got, want) in got.iter().zip(&want) {
                assert!((got.cost - want.cost).abs() <= 1e-3 * want.cost, "{dev:?}: {got:?} {want:?}");
            }
            assert!((device.cost() - host.cost()).abs() <= 1e-9 * host.cost());
            assert_eq!(device.those(true), host.those(true));
        }
    }
    // more inputs than the kernel takes
    let all = consumers(4, &[vec![26, 2]]);
    assert!(Pruner::new(&all).unwrap().greedy_on(&Device::cpu(), 1).is_err());
}
