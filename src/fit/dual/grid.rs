//! The grid in the space of samples: scales by search on the true objective, levels by error feedback and descent.

use super::Dual;
use crate::chip::{Grid, ScaleOwner};
use crate::compute::solver::{Steps, sample_sweep};
use crate::compute::{Buffer, Device};
use crate::error::Result;
use crate::fit::offload::batch_bytes;
use crate::fit::quantize::{SWEEPS, ladder};
use crate::fit::snap::{next_power_of_two, power_of_two, snapped};
use crate::fit::solve::Method;
use crate::fit::stepper::single;

/// Most rounds of descent and re-scaling.
const ROUNDS: usize = 10;

/// What was found, in the order of live inputs.
pub(super) struct Stored {
    /// m x n: scale times level.
    pub values: Vec<f64>,
    /// m.
    pub scale: Vec<f64>,
    /// m: objectives of these, and of round to nearest with the max-abs scale.
    pub objective: Vec<f64>,
    pub rtn: Vec<f64>,
}

pub(super) fn solve(dev: &Device, dual: &Dual<'_>, grid: &Grid) -> Result<Stored> {
    let steps = Steps::<f64>::of(grid);
    let (n, m) = (dual.n, dual.m);
    let base = base(dual, grid);
    let rounded = |at: usize| steps.nearest(dual.free[at] / base[at / n]) * base[at / n];
    let nearest: Vec<f64> = (0..m * n).map(rounded).collect();
    let rtn = dual.objectives(&nearest);
    let mut stored = Stored { values: nearest, scale: base.clone(), objective: rtn.clone(), rtn };
    if dual.spec.method == Method::Rtn || n == 0 {
        return Ok(stored);
    }
    let sweeper = Sweeper::new(dev, dual, &steps)?;
    let mut scale = if dual.spec.scale.is_some() { base } else { search(&sweeper, grid, &base)? };
    let mut values = Vec::with_capacity(m * n);
    let most = if dual.spec.method == Method::Feedback { 0 } else { ROUNDS };
    for first in (0..m).step_by(sweeper.rows) {
        let rows = first..m.min(first + sweeper.rows);
        values.extend(sweeper.settle(rows.clone(), &mut scale[rows], most)?);
    }
    // in f64, as it will be stored
    for (at, v) in values.iter_mut().enumerate() {
        *v = steps.nearest(*v / scale[at / n]) * scale[at / n];
    }
    let objective = dual.objectives(&values);
    let whole = (dual.spec.owner == ScaleOwner::Layer)
        .then(|| objective.iter().sum::<f64>() < stored.objective.iter().sum::<f64>());
    for o in 0..m {
        if !whole.unwrap_or(objective[o] < stored.objective[o]) {
            continue;
        }
        (stored.objective[o], stored.scale[o]) = (objective[o], scale[o]);
        stored.values[o * n..(o + 1) * n].copy_from_slice(&values[o * n..(o + 1) * n]);
    }
    Ok(stored)
}

/// m: given scales, or the one at which the largest |w| of its owner is the grid's reach.
fn base(dual: &Dual<'_>, grid: &Grid) -> Vec<f64> {
    if let Some(fixed) = &dual.spec.scale {
        return if fixed.len() == 1 { vec![fixed[0]; dual.m] } else { fixed.clone() };
    }
    let top = grid.reach();
    let of = |w: &[f64]| {
        let peak = w.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        match peak > 0.0 && top > 0.0 {
            true if dual.spec.power_of_two => next_power_of_two(peak / top),
            true => peak / top,
            false => 1.0,
        }
    };
    match dual.spec.owner {
        ScaleOwner::Layer => vec![of(&dual.free); dual.m],
        ScaleOwner::Channel | ScaleOwner::Neuron => {
            (0..dual.m).map(|o| of(&dual.free[o * dual.n..(o + 1) * dual.n])).collect()
        }
    }
}

/// m: the best scales found, by the objective after error feedback.
fn search(sweeper: &Sweeper<'_>, grid: &Grid, base: &[f64]) -> Result<Vec<f64>> {
    let dual = sweeper.dual;
    let ladder = ladder(grid, dual.spec.power_of_two);
    let owners = if dual.spec.owner == ScaleOwner::Layer { 1 } else { dual.m };
    // (cost, factor) of each owner's best
    let mut best = vec![(f64::INFINITY, 1.0); owners];
    let consider = |factors: &[f64], best: &mut [(f64, f64)]| -> Result<()> {
        let scale: Vec<f64> = (0..dual.m).map(|o| sweeper.candidate(base[o] * factors[o % owners])).collect();
        let costs = sweeper.costs(&scale)?;
        let mut sums = vec![0.0; owners];
        costs.iter().enumerate().for_each(|(o, cost)| sums[o % owners] += cost);
        for ((best, sum), factor) in best.iter_mut().zip(sums).zip(factors) {
            if sum < best.0 {
                *best = (sum, *factor);
            }
        }
        Ok(())
    };
    for i in 0..ladder.count {
        consider(&vec![ladder.first * ladder.ratio.powi(i); owners], &mut best)?;
    }
    for round in 1..=ladder.refinements {
        let width = ladder.ratio.powf(0.5f64.powi(round));
        let around = best.clone();
        for by in [width, 1.0 / width] {
            consider(&around.iter().map(|(_, f)| f * by).collect::<Vec<_>>(), &mut best)?;
        }
    }
    Ok((0..dual.m).map(|o| sweeper.candidate(base[o] * best[o % owners].1)).collect())
}

/// What sweeps over rows need on a device.
struct Sweeper<'a> {
    dev: &'a Device,
    dual: &'a Dual<'a>,
    steps: Steps<f32>,
    x: Buffer<f32>,
    /// Of error feedback, and of descent.
    feedback: Buffer<f32>,
    descent: Buffer<f32>,
    /// n: of descent.
    pull: Vec<f32>,
    /// Rows at once.
    rows: usize,
    /// m x n and m x S, f32: W*, W0, and the residuals at W*.
    free: Vec<f32>,
    prior: Vec<f32>,
    residuals: Vec<f32>,
}

impl<'a> Sweeper<'a> {
    /// On `dev` where its buffers hold the samples, else on the CPU.
    fn new(dev: &'a Device, dual: &'a Dual<'a>, steps: &Steps<f64>) -> Result<Self> {
        static CPU: std::sync::LazyLock<Device> = std::sync::LazyLock::new(Device::cpu);
        let bytes = (dual.n * dual.samples * size_of::<f32>()) as u64;
        // x, and what feedback and descent make of it
        let fits = bytes <= dev.max_buffer_bytes() && 3 * bytes <= dev.room();
        let dev = if fits { dev } else { &CPU };
        let widest = (4 * dual.n.max(dual.samples)) as u64;
        let (probe, pull) = sample_sweep::descent(&dual.x, dual.samples, dual.mu);
        Ok(Self {
            dev,
            dual,
            steps: steps.single(),
            x: dev.upload(&single(&dual.x))?,
            feedback: dev.upload(&single(&sample_sweep::feedback(&dual.x, dual.samples, dual.mu)))?,
            descent: dev.upload(&single(&probe))?,
            pull: single(&pull),
            // values, what the ridge pulls towards, residuals before and after
            rows: ((batch_bytes(dev).min(dev.room() / 5) / widest) as usize).clamp(1, dual.m),
            free: single(&dual.free),
            prior: single(&dual.prior),
            residuals: single(&dual.residuals(&dual.free)),
        })
    }

    /// A searched scale as it may be stored.
    fn candidate(&self, scale: f64) -> f64 {
        let spec = self.dual.spec;
        if spec.power_of_two { power_of_two(scale) } else { snapped(scale, spec.scale_bits) }
    }

    /// m: objectives after error feedback at `scale` (m).
    fn costs(&self, scale: &[f64]) -> Result<Vec<f64>> {
        let mut costs = Vec::with_capacity(self.dual.m);
        for first in (0..self.dual.m).step_by(self.rows) {
            let rows = first..self.dual.m.min(first + self.rows);
            let mut state = self.begin(rows.clone())?;
            self.round(&mut state, rows.clone(), &scale[rows.clone()])?;
            let (v, r) = (self.dev.download(&state.v)?, self.dev.download(&state.r)?);
            let square = |v: f32| f64::from(v) * f64::from(v);
            let prior = &self.prior[rows.start * self.dual.n..rows.end * self.dual.n];
            costs.extend((0..rows.len()).map(|o| {
                let at = o * self.dual.n..(o + 1) * self.dual.n;
                let ridge: f64 = v[at.clone()].iter().zip(&prior[at]).map(|(v, p)| square(v - p)).sum();
                let of = o * self.dual.samples..(o + 1) * self.dual.samples;
                r[of].iter().map(|r| square(*r)).sum::<f64>() + self.dual.mu * ridge
            }));
        }
        Ok(costs)
    }

    /// Rounds `rows` at `scale`, then descends and re-scales in turn, up to `most` times: the values (rows x n).
    fn settle(&self, rows: std::ops::Range<usize>, scale: &mut [f64], most: usize) -> Result<Vec<f64>> {
        let (n, samples) = (self.dual.n, self.dual.samples);
        let mut state = self.begin(rows.clone())?;
        self.round(&mut state, rows.clone(), scale)?;
        for round in 0..most {
            for _ in 0..SWEEPS {
                if !self.sweep(&mut state, scale, &self.descent, &self.pull, false)? {
                    break;
                }
            }
            // one scale for all rows stays what the search found
            let may = self.dual.spec.scale.is_none() && self.dual.spec.owner != ScaleOwner::Layer;
            if !may || round + 1 == most {
                break;
            }
            let (mut v, mut r) = (self.dev.download(&state.v)?, self.dev.download(&state.r)?);
            let mut moved = false;
            for (o, scale) in scale.iter_mut().enumerate() {
                let (v, r) = (&mut v[o * n..(o + 1) * n], &mut r[o * samples..(o + 1) * samples]);
                let better = self.candidate(*scale * self.stretch(rows.start + o, v, r));
                if !(better > 0.0 && better.is_finite()) || (better - *scale).abs() <= 1e-9 * better {
                    continue;
                }
                let by = (better / *scale) as f32;
                v.iter_mut().for_each(|v| *v *= by);
                for (r, t) in r.iter_mut().zip(self.dual.target(rows.start + o)) {
                    *r = (*r + *t as f32) * by - *t as f32;
                }
                (*scale, moved) = (better, true);
            }
            if !moved {
                break;
            }
            (state.v, state.r) = (self.dev.upload(&v)?, self.dev.upload(&r)?);
        }
        Ok(self.dev.download(&state.v)?.into_iter().map(f64::from).collect())
    }

    /// By how much the values of row `o` are best multiplied.
    fn stretch(&self, o: usize, v: &[f32], r: &[f32]) -> f64 {
        let (mut num, mut den) = (0.0, 0.0);
        for (r, t) in r.iter().zip(self.dual.target(o)) {
            let y = f64::from(*r) + t;
            num += y * t;
            den += y * y;
        }
        for (v, p) in v.iter().zip(&self.dual.prior[o * self.dual.n..]) {
            num += self.dual.mu * f64::from(*v) * p;
            den += self.dual.mu * f64::from(*v) * f64::from(*v);
        }
        num / den
    }

    fn begin(&self, rows: std::ops::Range<usize>) -> Result<State> {
        let (n, samples) = (self.dual.n, self.dual.samples);
        let of_inputs = rows.start * n..rows.end * n;
        Ok(State {
            prior: self.dev.upload(&self.prior[of_inputs.clone()])?,
            v: self.dev.upload(&self.free[of_inputs])?,
            r: self.dev.upload(&vec![0.0; rows.len() * samples])?,
        })
    }

    /// Error feedback: from W*, where residuals are X (v - W*), to levels and residuals X v - t.
    fn round(&self, state: &mut State, rows: std::ops::Range<usize>, scale: &[f64]) -> Result<()> {
        self.sweep(state, scale, &self.feedback, &vec![0.0; self.dual.n], true)?;
        let mut r = self.dev.download(&state.r)?;
        let before = &self.residuals[rows.start * self.dual.samples..rows.end * self.dual.samples];
        r.iter_mut().zip(before).for_each(|(r, before)| *r += before);
        state.r = self.dev.upload(&r)?;
        Ok(())
    }

    /// One sweep; whether anything moved.
    fn sweep(&self, state: &mut State, scale: &[f64], probe: &Buffer<f32>, pull: &[f32], forced: bool) -> Result<bool> {
        self.dual.stop()?;
        let factors = self.dev.upload(&[single(scale).as_slice(), pull].concat())?;
        let inputs = sample_sweep::Inputs {
            n: self.dual.n,
            m: scale.len(),
            samples: self.dual.samples,
            x: &self.x,
            probe,
            prior: &state.prior,
            factors: &factors,
        };
        let moved = sample_sweep::sweep(self.dev, &inputs, &self.steps, &mut state.v, &mut state.r, forced)?;
        Ok(moved.iter().any(|moves| *moves > 0))
    }
}

/// Rows that are swept together.
struct State {
    prior: Buffer<f32>,
    v: Buffer<f32>,
    r: Buffer<f32>,
}
