//! What a pruned layer's channels are to compute: not what they did in the trained network, but what serves the layers that
//! read them best without the others.
//!
//! For a pruned layer h = max(0, W x + b) and the readers' weights V, sum ||V h + c - z||^2 over the readers' trained
//! pre-activations z is made smaller in both, on trained inputs x: V and c by least squares (of a rectified reader, towards
//! response-aware targets), W and b along the preconditioned gradient, G H^-1 with G the sum of (V^T r)(x - xm)^T where the
//! layer is active, r what the readers lack and H the layer's own Gram matrix (Gauss-Newton as if V^T V were a multiple of
//! the identity). The step is a share beyond the least squares of its linearization, since V follows. The walk then fits the
//! layer to W x + b in the place of the trained pre-activations, as any other.

mod reader;
mod target;

use rayon::prelude::*;

use super::linear::Linear;
use super::remainder;
use super::trim::Trim;
use super::walk::Walk;
use super::worker::At;
use crate::compute::gram::{Moments, PatchSpec, Sums};
use crate::compute::simd::sum_pairs;
use crate::compute::{Buffer, Device, activate};
use crate::error::Result;
use crate::fit::{self, Problem, Spec};
use crate::network::{Activation, Block, Op, Shape};
use reader::{Placed, Reader};

pub(super) use target::{Refined, Target};

/// Steps: each brings about half of what the one before it did.
const ROUNDS: usize = 4;
/// Length of a step, over the one that is best while the readers stay as they are.
const FURTHER: f64 = 1.5;

struct Search {
    index: usize,
    sources: Vec<usize>,
    blocks: Vec<PatchSpec>,
    output: Shape,
    w: Vec<f64>,
    bias: Vec<f64>,
    readers: Vec<Reader>,
    /// Of x, once it is known.
    known: Option<Sums>,
}

/// A change of W and b.
struct Step {
    w: Vec<f64>,
    bias: Vec<f64>,
}

/// The layer on a device, and its readers.
struct OnDevice<'a> {
    layer: Linear,
    readers: Vec<Placed<'a>>,
}

/// A batch seen through both layers.
struct Seen {
    /// Per source of the layer: its trained activations.
    xs: Vec<Buffer<f32>>,
    h: Buffer<f32>,
    /// Per reader: what it reads, where that is not `h`, and what it lacks.
    inputs: Vec<Vec<Option<Buffer<f32>>>>,
    lacks: Vec<Buffer<f32>>,
}

impl Seen {
    fn inputs(&self, reader: usize) -> Vec<&Buffer<f32>> {
        self.inputs[reader].iter().map(|x| x.as_ref().unwrap_or(&self.h)).collect()
    }
}

impl Walk<'_> {
    /// Gives the pruned layer `index` other targets, if that serves its readers. `trained`: the whole layer's blocks.
    pub(super) fn refine(&mut self, index: usize, trained: &[Block], trim: &mut Trim) -> Result<()> {
        if !self.options.refine || self.plan.as_ref().is_some_and(|plan| plan.tuned.is_some()) {
            return Ok(());
        }
        let Some(kept) = trim.picked.as_ref().map(|p| p.kept.clone()) else { return Ok(()) };
        let Some(refined) = self.refined(index, &kept)? else { return Ok(()) };
        let targets = self.states(|walk, _, dev| Target::new(walk, dev, index, &kept, &refined).map(Some))?;
        self.workers.iter_mut().zip(targets).for_each(|(worker, target)| worker.refined = target);
        trim.refine(trained, &refined);
        Ok(())
    }

    /// `None` if layer `index`, of which the channels `kept` stay, is none that this can do better.
    fn refined(&mut self, index: usize, kept: &[usize]) -> Result<Option<Refined>> {
        let Some(mut search) = self.search(index, kept) else { return Ok(None) };
        let (mut before, mut best) = (None, f64::INFINITY);
        let mut kept_so_far = (search.w.clone(), search.bias.clone());
        for round in 0..=ROUNDS {
            self.refit(&mut search, round)?;
            let (lacking, step) = self.direction(&mut search, round)?;
            tracing::debug!(layer = self.network.nodes[index].name, round, lacking, "refined");
            before.get_or_insert(lacking);
            if lacking >= best {
                (search.w, search.bias) = kept_so_far;
                break;
            }
            best = lacking;
            kept_so_far = (search.w.clone(), search.bias.clone());
            if round < ROUNDS {
                let length = FURTHER * self.length(&search, &step, round)?;
                let change = |all: &mut [f64], by: &[f64]| all.iter_mut().zip(by).for_each(|(v, by)| *v += length * by);
                change(&mut search.w, &step.w);
                change(&mut search.bias, &step.bias);
            }
        }
        let single = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect();
        Ok(Some(Refined {
            sources: search.sources,
            blocks: search.blocks,
            w: single(search.w),
            bias: single(search.bias),
            before: before.unwrap_or(0.0),
            after: best,
        }))
    }

    fn search(&self, index: usize, kept: &[usize]) -> Option<Search> {
        let (network, plan) = (self.network, self.plan.as_ref()?);
        let node = &network.nodes[index];
        let Op::Neurons { blocks, bias, activation: Activation::Relu } = &node.op else { return None };
        if blocks.iter().any(|b| b.groups != 1) {
            return None;
        }
        let rows = |j: usize| plan.kept.get(&j).cloned().unwrap_or_else(|| (0..network.nodes[j].shape.c).collect());
        let reads = |j: &usize| network.nodes[*j].sources().contains(&index);
        let mut read: Vec<usize> = (index + 1..network.nodes.len()).filter(reads).collect();
        if read.iter().any(|&j| remainder::of(network, j) == Some(index)) {
            // that remainder is fitted to what its spikes leave of the trained layer
            return None;
        }
        // the remainder of a reader reads it as the reader does
        read.retain(|&j| remainder::of(network, j).is_none());
        let readers: Vec<Reader> =
            read.into_iter().map(|j| Reader::new(network, j, rows(j), index, kept)).collect::<Option<_>>()?;
        if readers.is_empty() {
            return None;
        }
        let mut w = Vec::new();
        for &row in kept {
            for b in blocks {
                let width = b.weight.len() / node.shape.c;
                w.extend(b.weight[row * width..(row + 1) * width].iter().map(|w| f64::from(*w)));
            }
        }
        let patches =
            blocks.iter().map(|b| PatchSpec { input: network.nodes[b.source].shape, window: b.window, groups: 1 });
        Some(Search {
            index,
            sources: blocks.iter().map(|b| b.source).collect(),
            blocks: patches.collect(),
            output: Shape { c: kept.len(), ..node.shape },
            w,
            bias: kept.iter().map(|&r| f64::from(bias[r])).collect(),
            readers,
            known: None,
        })
    }

    fn stage(&self, search: &Search, round: usize, part: &str) -> String {
        format!("refine {} {}{part}", self.network.nodes[search.index].name, round + 1)
    }

    /// Fits the readers to what the layer gives now.
    fn refit(&mut self, search: &mut Search, round: usize) -> Result<()> {
        let stage = self.stage(search, round, "a");
        let start = |walk: &Self, _, dev: &Device| {
            let moments = search.readers.iter().map(|r| Moments::new(dev, &r.blocks, r.output, 1));
            // the readers' weights are the trained ones yet, which say little of what stays silent
            Ok((search.on(walk, dev, round > 0)?, moments.collect::<Result<Vec<_>>>()?))
        };
        let done = self.each_batch(&stage, start, |at, (on, moments)| {
            let seen = at.seen(search, on)?;
            for (k, moments) in moments.iter_mut().enumerate() {
                moments.add(at.images(), &seen.inputs(k), &seen.lacks[k])?;
            }
            Ok(())
        })?;
        let mut of_reader: Vec<Vec<Moments>> = search.readers.iter().map(|_| vec![]).collect();
        let mut current = None;
        for (on, moments) in done {
            moments.into_iter().zip(&mut of_reader).for_each(|(m, all)| all.push(m));
            current.get_or_insert(on.readers.into_iter().map(|r| r.now).collect::<Vec<_>>());
        }
        let mut fitted = Vec::new();
        for ((moments, now), reader) in of_reader.into_iter().zip(current.unwrap_or_default()).zip(&search.readers) {
            let sums = now.restore(Moments::finish_all(moments)?);
            fitted.push(self.least_squares(&sums, Some(&reader.trained))?);
        }
        for (reader, fitted) in search.readers.iter_mut().zip(fitted) {
            if round == 0 {
                reader.unit = 1.0 / fitted.spread.max(f64::MIN_POSITIVE);
            }
            (reader.w, reader.bias) = (fitted.w, fitted.bias);
        }
        Ok(())
    }

    /// What the readers lack, a share of their targets, and where W and b are to go.
    fn direction(&mut self, search: &mut Search, round: usize) -> Result<(f64, Step)> {
        let stage = self.stage(search, round, "b");
        let start = |walk: &Self, _, dev: &Device| {
            let moments = Moments::new(dev, &search.blocks, search.output, 1)?;
            let moments = if search.known.is_some() { moments.targets_only() } else { moments };
            Ok((search.on(walk, dev, true)?, moments, 0.0))
        };
        let done = self.each_batch(&stage, start, |at, (on, moments, lacking)| {
            let (dev, images) = (at.dev, at.images());
            let seen = at.seen(search, on)?;
            let mut asked = vec![0.0; images * search.output.len()];
            for (k, placed) in on.readers.iter().enumerate() {
                placed.back(dev, images, &seen.lacks[k], &mut asked)?;
                *lacking += search.readers[k].unit * product(&dev.view(&seen.lacks[k])?, &dev.view(&seen.lacks[k])?);
            }
            silence(&mut asked, &dev.view(&seen.h)?);
            moments.add(images, &seen.xs.iter().collect::<Vec<_>>(), &dev.upload(&asked)?)
        })?;
        let lacking = done.iter().map(|(_, _, lacking)| lacking).sum::<f64>() / search.readers.len() as f64;
        let mut sums = Moments::finish_all(done.into_iter().map(|(_, moments, _)| moments))?;
        match &search.known {
            Some(known) => sums.h.clone_from(&known.h),
            None => search.known = Some(sums.clone()),
        }
        let fitted = self.least_squares(&sums, None)?;
        Ok((lacking, Step { w: fitted.w, bias: fitted.bias }))
    }

    /// How far to go along `step`: the least squares if the readers and what is active stay as they are.
    fn length(&mut self, search: &Search, step: &Step, round: usize) -> Result<f64> {
        let stage = self.stage(search, round, "c");
        let start = |walk: &Self, _, dev: &Device| {
            Ok((search.on(walk, dev, true)?, linear(dev, search, &step.w, &step.bias)?, [0.0; 2]))
        };
        let done = self.each_batch(&stage, start, |at, (on, step, [along, square])| {
            let (dev, images) = (at.dev, at.images());
            let seen = at.seen(search, on)?;
            let change = step.run(dev, images, &seen.xs.iter().collect::<Vec<_>>())?;
            let mut change = dev.view(&change)?.into_owned();
            silence(&mut change, &dev.view(&seen.h)?);
            let change = dev.upload(&change)?;
            for (k, placed) in on.readers.iter().enumerate() {
                let forth = placed.forth(dev, images, &change)?;
                let forth = dev.view(&forth)?;
                *along += search.readers[k].unit * product(&dev.view(&seen.lacks[k])?, &forth);
                *square += search.readers[k].unit * product(&forth, &forth);
            }
            Ok(())
        })?;
        let sum = |k: usize| done.iter().map(|(_, _, sums)| sums[k]).sum::<f64>();
        let (along, square) = (sum(0), sum(1));
        Ok(if square > 0.0 { along / square } else { 0.0 })
    }

    /// One group's least squares, under the job's ridge towards `prior` or nothing.
    fn least_squares(&self, sums: &Sums, prior: Option<&[f64]>) -> Result<Fitted> {
        let Sums { h, b, x_sum, z_sum, zz, count, .. } = sums;
        let raw = || fit::Sums { h, b, x: x_sum, t: z_sum, tt: zz, count: *count as f64 };
        let ridge = self.options.ridge.fixed();
        let problem = Problem { prior: prior.map(<[f64]>::to_vec), ridge, ..Problem::from_sums(raw())? };
        let spread = problem.tt.as_ref().map_or(0.0, |tt| tt.iter().sum());
        let w = fit::solve_with(&self.team, &problem, &Spec::default(), &|| self.watch.cancelled())?.w;
        let bias = Problem::bias(&w, &raw());
        Ok(Fitted { w, bias, spread })
    }
}

struct Fitted {
    w: Vec<f64>,
    bias: Vec<f64>,
    /// sum (t - mean t)^2.
    spread: f64,
}

impl Search {
    /// `aware`: of targets that rectified readers need not reach.
    fn on<'a>(&'a self, walk: &Walk<'_>, dev: &Device, aware: bool) -> Result<OnDevice<'a>> {
        let readers = self.readers.iter().map(|r| Placed::new(dev, walk.network, r, aware)).collect::<Result<_>>()?;
        Ok(OnDevice { layer: linear(dev, self, &self.w, &self.bias)?, readers })
    }
}

fn linear(dev: &Device, search: &Search, w: &[f64], bias: &[f64]) -> Result<Linear> {
    let single = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<_>>();
    Linear::new(dev, &search.blocks, search.output, &single(w), &single(bias))
}

impl At<'_> {
    fn seen(&mut self, search: &Search, on: &OnDevice<'_>) -> Result<Seen> {
        let (dev, images) = (self.dev, self.images());
        let mut whole = self.pre_activations(search.index)?;
        self.activate(search.index, &mut whole)?;
        let xs = search.sources.iter().map(|&s| self.activations(s)).collect::<Result<Vec<_>>>()?;
        let all: Vec<&Buffer<f32>> = xs.iter().collect();
        let mut h = on.layer.run(dev, images, &all)?;
        activate::apply(dev, Activation::Relu, &mut h)?;
        let inputs = on.readers.iter().map(|r| r.inputs(self)).collect::<Result<Vec<_>>>()?;
        let mut seen = Seen { xs, h, inputs, lacks: vec![] };
        for (k, reader) in on.readers.iter().enumerate() {
            let lacks = reader.lacks(self, &whole, &seen.inputs(k))?;
            seen.lacks.push(lacks);
        }
        Ok(seen)
    }
}

/// Zero where `h` is.
fn silence(values: &mut [f32], h: &[f32]) {
    values.par_iter_mut().zip(h).for_each(|(v, h)| *v = if *h > 0.0 { *v } else { 0.0 });
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    let parts = a.par_chunks(4096).zip(b.par_chunks(4096)).map(|(a, b)| sum_pairs(a, b, |a, b| a * b));
    // in one order whatever the threads
    parts.collect::<Vec<f64>>().iter().sum()
}
