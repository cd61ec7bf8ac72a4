//! Single synapses, every row with a mask of its own, by the same exact cost: the row of a layer problem is a problem of
//! its own with the same H, and its nodes are single inputs. Optimal brain surgeon's removal of one weight, w_j^2 /
//! (2 [H^-1]_jj) in its own units; with limits of a row and runs after Mishra et al., "Accelerating sparse deep neural
//! networks" (2021).

use rayon::prelude::*;

use super::row::{Kept, Left, Pool, Step, Trace};
use super::{Consumer, Pruner};
use crate::compute::solver::dense;
use crate::error::{Error, Result};
use crate::fit::problem::Problem;
use crate::fit::system::System;

/// Which synapses may stay. What is given holds together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pattern {
    /// This share of the layer's synapses goes (0..1), from whichever rows lose least by it.
    pub sparsity: f64,
    /// So many inputs a row at most.
    pub fan_in: Option<usize>,
    /// So many inputs of all rows together at most: they read the same ones.
    pub together: Option<usize>,
    pub runs: Option<Runs>,
}

/// Of every `of` inputs in a row's order (the last run may be shorter) at most `keep` stay: N:M.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    pub keep: usize,
    pub of: usize,
}

/// By what the synapses that go are chosen. The rest is refitted in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// What the refitted rest cannot make up for, exactly; then swaps.
    Cost,
    /// |w| of the whole fit, the smallest first.
    Magnitude,
    /// |w| times the spread of its input, the smallest first.
    Rate,
}

/// A layer with fewer synapses.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse {
    /// m x n: which stay.
    pub mask: Vec<bool>,
    /// m x n: refitted, zeros where the mask is false.
    pub w: Vec<f64>,
    /// m: what the row's objective rose by.
    pub cost: Vec<f64>,
}

impl Pattern {
    /// Whether it asks for nothing of rows of `n` inputs.
    pub fn is_all(&self, n: usize) -> bool {
        self.sparsity == 0.0
            && self.fan_in.is_none_or(|most| most >= n)
            && self.together.is_none_or(|most| most >= n)
            && self.runs.is_none_or(|r| r.keep >= r.of)
    }

    /// # Errors
    /// Input: what makes no sense.
    pub fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.sparsity) {
            return Err(Error::input("sparsity", format!("{} is outside 0..1 (1 excluded)", self.sparsity)));
        }
        if self.fan_in == Some(0) || self.together == Some(0) {
            return Err(Error::input("fan-in", "must be at least 1"));
        }
        match self.runs {
            Some(Runs { keep, of }) if keep == 0 || keep > of => {
                Err(Error::input("pattern", format!("{keep} of {of} synapses cannot stay")))
            }
            _ => Ok(()),
        }
    }
}

/// Removes synapses one by one, those that cost least first, and refits the rest after each; then swaps them while that
/// helps (up to `row::MOST_SWAPPED` inputs).
///
/// Costs O(n^3) a row at most; rows run on all cores, each with n^2 numbers of its own.
///
/// # Errors
/// Input: a pattern that makes no sense, an H that cannot be a Gram matrix. Work: a malformed problem.
pub fn sparsify(problem: &Problem, pattern: Pattern, score: Score) -> Result<Sparse> {
    problem.check()?;
    pattern.check()?;
    let (n, m) = (problem.n, problem.m);
    let system = System::new(problem)?;
    let common = match pattern.together {
        Some(most) if most < n => Some(common(problem, &system, most, score)?),
        _ => None,
    };
    let alone = Pattern { together: None, ..pattern };
    let pool: Vec<usize> = match &common {
        Some(stays) => (0..system.n).filter(|&k| stays[system.live[k]]).collect(),
        None => (0..system.n).collect(),
    };
    let pool = Pool::new(&system, pool)?;
    let gone = common.as_ref().map_or(vec![], |stays| (0..n).filter(|&i| !stays[i]).collect());
    let dead = (0..n).filter(|i| !system.live.contains(i) && !gone.contains(i)).collect();
    let rules = Rules { pool: &pool, n, gone, dead, pattern: alone, score };
    let traces = (0..m).into_par_iter().map(|o| rules.trace(o)).collect::<Result<Vec<_>>>()?;
    let share = (pattern.sparsity * (n * m) as f64).round() as usize;
    let counts = shared(&traces, share.saturating_sub(rules.gone.len() * m));
    let rows = (0..m)
        .into_par_iter()
        .map(|o| {
            let mut stays = common.clone().unwrap_or_else(|| vec![true; n]);
            traces[o].steps[..counts[o]].iter().for_each(|step| stays[step.input] = false);
            rules.fit(o, stays)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut sparse = Sparse { mask: Vec::with_capacity(m * n), w: Vec::with_capacity(m * n), cost: vec![] };
    for (mask, w, cost) in rows {
        sparse.mask.extend(mask);
        sparse.w.extend(w);
        sparse.cost.push(cost);
    }
    Ok(sparse)
}

/// n: the `most` inputs that all rows keep.
fn common(problem: &Problem, system: &System, most: usize, score: Score) -> Result<Vec<bool>> {
    let n = problem.n;
    let columns = (0..n).map(|i| vec![i]).collect();
    let mut pruner = Pruner::new(&[Consumer { problem: problem.clone(), columns }])?;
    match score {
        Score::Cost => {
            pruner.greedy(most)?;
            pruner.swap()?;
        }
        Score::Magnitude => drop(pruner.by_score(&pruner.magnitudes(), most)?),
        Score::Rate => {
            let mut spread = vec![0.0; n];
            system.live.iter().zip(&system.unit).for_each(|(&i, u)| spread[i] = *u);
            let scores: Vec<f64> = pruner.magnitudes().iter().zip(spread).map(|(w, u)| w * u * u).collect();
            pruner.by_score(&scores, most)?;
        }
    }
    Ok((0..n).map(|i| pruner.is_kept(i)).collect())
}

/// What all rows share.
struct Rules<'a> {
    pool: &'a Pool<'a>,
    /// Inputs of the problem; those that no row may keep, and others that never vary.
    n: usize,
    gone: Vec<usize>,
    dead: Vec<usize>,
    pattern: Pattern,
    score: Score,
}

impl Rules<'_> {
    /// Row `o`'s removals in order: as many as it must make, then, for a share of the layer, all others.
    fn trace(&self, o: usize) -> Result<Trace> {
        let mut trace = Trace::default();
        if self.pattern.is_all(self.n) {
            return Ok(trace);
        }
        let (s, pool) = (self.pool.s, self.pool);
        let mut left = self.left();
        self.gone.iter().for_each(|&i| left.take(i));
        // inputs that never vary go for nothing
        for &input in &self.dead {
            if self.pattern.sparsity > 0.0 || left.may_go(input) {
                left.take(input);
                trace.steps.push(Step { input, cost: 0.0 });
            }
        }
        if self.score == Score::Cost {
            super::row::greedy(pool, o, &mut left, self.pattern.sparsity > 0.0, &mut trace)?;
        } else {
            let score = |(&k, w): (&usize, &f64)| {
                let cost = if self.score == Score::Rate { w.abs() * s.unit[k] } else { w.abs() };
                Step { input: s.live[k], cost }
            };
            let mut order: Vec<Step> = pool.inputs.iter().zip(pool.weights(o)).map(score).collect();
            order.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.input.cmp(&b.input)));
            while !left.enough() {
                order.retain(|step| {
                    let goes = left.may_go(step.input);
                    if goes {
                        left.take(step.input);
                        trace.steps.push(*step);
                    }
                    !goes
                });
            }
            trace.must = trace.steps.len();
            if self.pattern.sparsity > 0.0 {
                trace.steps.extend(order);
            }
        }
        Ok(trace)
    }

    fn left(&self) -> Left {
        Left::new(self.n, self.pattern.runs.map(|r| (r.keep, r.of)), self.pattern.fan_in)
    }

    /// Row `o` refitted with the inputs that stay: mask, weights and what its objective rose by.
    fn fit(&self, o: usize, mut stays: Vec<bool>) -> Result<(Vec<bool>, Vec<f64>, f64)> {
        let s = self.pool.s;
        let of = self.pattern.runs.map_or(self.n.max(1), |r| r.of);
        let inputs = self.pool.inputs.iter().copied().filter(|&k| stays[s.live[k]]).collect();
        let mut kept = Kept::new(s, o, inputs)?;
        if self.score == Score::Cost && !self.pattern.is_all(self.n) && kept.swap(&self.pool.inputs, of)? {
            s.live.iter().for_each(|&i| stays[i] = false);
            kept.inputs().for_each(|k| stays[s.live[k]] = true);
        }
        let mut w = vec![0.0; self.n];
        kept.inputs().zip(&kept.w).for_each(|(k, v)| w[s.live[k]] = *v);
        let d: Vec<f64> = (0..s.n).map(|k| w[s.live[k]] - s.free[o * s.n + k]).collect();
        let cost = (0..s.n).map(|k| d[k] * dense::dot(&d, &s.h[k * s.n..(k + 1) * s.n])).sum::<f64>();
        Ok((stays, w, cost.max(0.0)))
    }
}

/// How many of each row's removals are made: what it must, then the cheapest of all rows until `gone` are, each row in its
/// own order: a removal counts as dear as the dearest before it.
fn shared(traces: &[Trace], gone: usize) -> Vec<usize> {
    let mut count: Vec<usize> = traces.iter().map(|t| t.must).collect();
    let mut all = vec![];
    for (row, trace) in traces.iter().enumerate() {
        let mut dearest = 0f64;
        for (step, Step { cost, .. }) in trace.steps.iter().enumerate() {
            dearest = dearest.max(*cost);
            if step >= trace.must {
                all.push((dearest, row, step));
            }
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let more = gone.saturating_sub(count.iter().sum());
    all.iter().take(more).for_each(|&(_, row, _)| count[row] += 1);
    count
}
