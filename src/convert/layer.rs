//! One layer of the walk: survey its inputs and targets, choose its code, solve for its synapses, store them in the
//! chip's integers, and simulate it.

use std::time::Instant;

use super::encode::{self, Code, Ramp};
use super::group::Group;
use super::record::record;
use super::residual::Baseline;
use super::sampled::Sampled;
use super::sparse::Thin;
use super::survey::Pass;
use super::trim::{Picked, Trim};
use super::views::is_coarse;
use super::walk::Walk;
use super::{LayerRecord, NoiseUse, Response, contrast, remainder};
use crate::compute::gram::{Moments, PatchSpec, Sums};
use crate::compute::{Device, activate, gather, response};
use crate::error::{Error, Result};
use crate::fit::{self, Problem, Solution, Spec};
use crate::network::{Activation, Block, Op, Shape};
use crate::spiking::SpikingOp;

/// Most ridge under which weights are rounded to a grid: that towards the trained weights chooses what is rounded, and may be
/// far larger.
const ROUNDING_RIDGE: f64 = 1e-2;

/// What a pass over the calibration images found.
enum Survey {
    /// Over all images; by folds over what the trained weights lack, where the ridge is chosen by them.
    Sums(Sums, Vec<Sums>),
    /// Fewer images than inputs.
    Samples(Sampled),
}

/// The layer's rows: what each output channel of the spiking layer is to receive, t = gain z + offset wherever the
/// neuron's inverse is linear.
pub(super) struct Rows {
    /// Rows per channel of the trained layer.
    pub population: usize,
    pub gain: Vec<f64>,
    pub offset: Vec<f64>,
    /// Rows that follow one current, so that only their sum counts: the population's, or one.
    pub repeats: usize,
}

/// A problem per group, solved.
pub(super) struct Solved {
    pub solutions: Vec<Solution>,
    /// cout x n of the real weights, in thresholds per unit of a block's rate.
    pub bias: Vec<f64>,
    pub tt: f64,
    /// Expected squared error that programming noise adds, if there is any.
    pub noise: Option<f64>,
    pub samples: u64,
}

/// A layer that no grid holds yet.
pub(super) struct Continuous {
    pub w: Vec<f64>,
    pub bias: Vec<f64>,
}

/// The layer as the fit sees it.
pub(super) struct Task<'a> {
    pub index: usize,
    pub name: &'a str,
    pub shape: Shape,
    pub blocks: &'a [Block],
    /// Of the trained layer.
    bias: Vec<f32>,
    pub groups: usize,
    /// False for the output layer.
    pub fires: bool,
    /// The rows are deviations from the outputs' mean, and the mean: outputs of the trained layer.
    pub contrast: Option<Shape>,
    /// The rows are some of the trained layer's channels.
    pub picked: Option<&'a Picked>,
    /// Per block: spiking channels and taps of one row, rate of one total, and the power of two that its codes are
    /// shifted by.
    pub columns: Vec<Columns>,
    /// Which synapses there are, if not all.
    pub thin: Option<Thin>,
    /// Towards the trained weights, relative to the mean diagonal of H.
    pub ridge: f64,
}

#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub channels: usize,
    pub taps: usize,
    pub rate: f64,
    pub shift: u32,
}

impl Task<'_> {
    pub(super) fn inputs(&self) -> usize {
        self.columns.iter().map(|c| c.channels * c.taps).sum()
    }

    /// m x n of group `g`: which synapses there are; none if all.
    pub(super) fn mask(&self, g: usize) -> Option<Vec<bool>> {
        self.thin.as_ref().map(|thin| thin.masks[g].clone())
    }

    /// Per column of a row: a code's current per total, relative to a code's current per rate of an unshifted block.
    pub(super) fn scales(&self) -> Vec<f64> {
        self.columns
            .iter()
            .flat_map(|c| std::iter::repeat_n(c.rate * f64::from(1u32 << c.shift), c.channels * c.taps))
            .collect()
    }
}

impl Walk<'_> {
    /// Fits node `index`, appends it to the spiking network, and simulates it if somebody reads it (`keep`).
    pub(super) fn layer(&mut self, index: usize, keep: bool) -> Result<LayerRecord> {
        let start = Instant::now();
        let network = self.network;
        let node = &network.nodes[index];
        let Op::Neurons { blocks, bias, activation } = &node.op else {
            return Err(Error::work(&node.name, "not a layer of neurons"));
        };
        let mut trim = match &self.plan {
            Some(plan) => Trim::of(&self.team, plan, index, node.shape, blocks, bias)?,
            None => None,
        };
        if let Some(trim) = &mut trim {
            self.refine(index, blocks, trim)?;
        }
        let (blocks, bias) = trim.as_ref().map_or((blocks, bias), |t| (&t.blocks, &t.bias));
        let fires = index != network.output || *activation != Activation::Linear;
        let groups = blocks.first().map_or(1, |b| b.groups);
        let contrast = (!fires && self.options.decides && groups == 1 && node.shape.c > 1).then_some(node.shape);
        let contrasted = contrast.map(|shape| contrast::blocks(blocks, shape.c));
        let mut task = Task {
            index,
            name: &node.name,
            shape: Shape { c: bias.len() + usize::from(contrast.is_some()), ..node.shape },
            blocks: contrasted.as_deref().unwrap_or(blocks),
            bias: if contrast.is_some() { contrast::rows(bias, node.shape.c) } else { bias.clone() },
            groups,
            fires,
            contrast,
            picked: trim.as_ref().and_then(|t| t.picked.as_ref()),
            columns: self.columns(blocks)?,
            thin: None,
            ridge: self.options.ridge.fixed(),
        };
        task.columns = self.shifted(&task);
        let _layer = tracing::info_span!("layer", name = task.name).entered();
        let by_samples = self.by_samples(&task);
        self.room(&task, by_samples)?;
        let (survey, samples) = if by_samples {
            let (sampled, samples) = self.survey_samples(&task, keep)?;
            (Survey::Samples(sampled), samples)
        } else {
            let (sums, folds, samples) = self.survey(&task, keep)?;
            (Survey::Sums(sums, folds), samples)
        };
        let mut code = fires.then(|| match remainder::of(network, index) {
            Some(counted) => self.remainder_code(counted),
            None => encode::code(&encode::Layer {
                activation: activation.simplest(),
                samples: &samples,
                model: self.spiking.model,
                steps: self.spiking.steps,
                population: self.options.population,
                coarse: self.rules.grid.as_ref().is_some_and(is_coarse),
                coarser: self.coarser(),
                above_zero: self.may_rest_above_zero(index),
            }),
        });
        if let Some(code) = &mut code {
            self.equalized(index, code, &samples);
        }
        let rows = rows(&task, code.as_ref());
        let solved = match survey {
            Survey::Samples(sampled) => self.solve_samples(&task, &rows, sampled)?,
            Survey::Sums(sums, folds) => {
                task.ridge = self.ridge(&task, &rows, &folds)?;
                drop(folds);
                let mut targets = self.targets(&task, &rows, code.as_ref(), sums)?;
                task.thin = self.thinned(&task, &rows, &targets)?;
                if let Some(code) = &code {
                    targets = self.aware_targets(&task, &rows, code, targets)?;
                }
                let solved = self.solve_within(&task, &rows, &targets)?;
                match code.as_mut().and_then(|code| self.widened(code, &solved, &mut targets)) {
                    Some(code) => self.solve_within(&task, &self::rows(&task, Some(code)), &targets)?,
                    None => solved,
                }
            }
        };
        let layer = self.store(&task, &solved)?;
        let stored = self.append(&task, layer, code.clone());
        self.push(self.rounding_down(index, stored))?;
        let mut record = record(&task, &solved, &self.spiking.nodes[index]);
        record.curved = fires && activation.is_curved();
        self.keep_signs(index);
        if keep {
            self.initial_potentials(index)?;
            self.fire(index, &mut record)?;
            record.parts = code.map(|code| self.parts(&task, &code, &record.error)).transpose()?.flatten();
        }
        self.workers.iter_mut().for_each(|worker| worker.refined = None);
        record.seconds = start.elapsed().as_secs_f64();
        tracing::debug!(layer = task.name, error = record.error.grid, seconds = record.seconds, "fitted");
        Ok(record)
    }

    fn columns(&self, blocks: &[Block]) -> Result<Vec<Columns>> {
        let largest = blocks.iter().map(|b| self.spiking.nodes[b.source].peak).max().unwrap_or(1);
        let most = self.rules.shifts.map_or(u32::MAX, |[least, most]| most - least);
        blocks
            .iter()
            .map(|b| {
                let source = &self.spiking.nodes[b.source];
                if !source.shape.c.is_multiple_of(b.groups) {
                    return Err(Error::input("", "its groups do not divide the populations that it reads"));
                }
                Ok(Columns {
                    channels: source.shape.c / b.groups,
                    taps: b.window.taps(),
                    rate: self.rate_per_total(b.source),
                    // Inputs of unlike size share one grid: small counts take the codes' higher bits.
                    shift: ((largest as f64 / source.peak as f64).log2().round() as u32).min(most),
                })
            })
            .collect()
    }

    /// Moments of (rates, pre-activations), the same by folds over what the trained weights lack of the pre-activations if
    /// the ridge is chosen by them, and pre-activations per channel to choose thresholds by.
    fn survey(&mut self, task: &Task, keep: bool) -> Result<(Sums, Vec<Sums>, Vec<Vec<f32>>)> {
        let parts = self.folds(task);
        let mut states =
            self.states(|walk, _, dev| Ok((walk.baseline(task, dev)?, walk.moments(task, task.shape, dev)?)))?;
        let mut pass = Pass::new(self, task, keep)?;
        let mut folds: Vec<Sums> = Vec::new();
        for part in 0..parts {
            let images = self.images.len() * part / parts..self.images.len() * (part + 1) / parts;
            pass.over(self, images, &mut states, |at, xs, z, (baseline, moments)| {
                moments.add(at.images(), xs, &baseline.subtract(at.dev, at.images(), xs, z)?)
            })?;
            if part + 1 < parts {
                let next = self.states(|walk, _, dev| walk.moments(task, task.shape, dev))?;
                let done = states.iter_mut().zip(next).map(|((_, moments), next)| std::mem::replace(moments, next));
                folds.push(Moments::finish_all(done)?);
            }
        }
        let samples = pass.finish(self);
        let (mut baselines, moments): (Vec<_>, Vec<_>) = states.into_iter().unzip();
        let mut total = Moments::finish_all(moments)?;
        if !folds.is_empty() {
            let last = total.clone();
            folds.iter().for_each(|fold| total.add(fold));
            folds.push(last);
        }
        Ok((baselines.swap_remove(0).restore(total), folds, samples))
    }

    pub(super) fn patches(&self, task: &Task) -> Vec<PatchSpec> {
        let spec =
            |b: &Block| PatchSpec { input: self.spiking.nodes[b.source].shape, window: b.window, groups: b.groups };
        task.blocks.iter().map(spec).collect()
    }

    pub(super) fn moments(&self, task: &Task, output: Shape, dev: &Device) -> Result<Moments> {
        let moments = Moments::new(dev, &self.patches(task), output, task.groups)?;
        let once = self.options.response == Response::Measured;
        let total = |b: &Block| {
            let source = &self.spiking.nodes[b.source];
            source.peak.saturating_mul(if once && source.constant { 1 } else { u64::from(self.spiking.steps) })
        };
        let largest = task.blocks.iter().map(total).max().unwrap_or(1);
        let spikes = task.blocks.iter().all(|b| self.fires(b.source));
        Ok(if spikes { moments.counts(largest) } else { moments.integers(largest) })
    }

    /// Whether a node's counts are all of spikes, none of the input, which may be negative.
    fn fires(&self, node: usize) -> bool {
        match &self.spiking.nodes[node].op {
            SpikingOp::Input => false,
            SpikingOp::Neurons(_) => true,
            _ => self.spiking.nodes[node].sources().into_iter().all(|source| self.fires(source)),
        }
    }

    /// The trained weights as they act on the totals.
    fn baseline(&self, task: &Task, dev: &Device) -> Result<Baseline> {
        let weights = self.prior(task, &rows(task, None), &vec![1.0; task.inputs()]);
        let mut bias = task.bias.clone();
        for block in task.blocks {
            let decode = &self.spiking.nodes[block.source].decode;
            let row = block.weight.len() / task.shape.c;
            let (fan, taps) = (row / block.window.taps(), block.window.taps());
            for (channel, b) in bias.iter_mut().enumerate() {
                let group = channel / (task.shape.c / task.groups);
                // the trained layer's group: some may be gone
                let spiking = group * (decode.origin.len() / block.groups);
                let first = decode.origin[spiking] as usize / fan * fan;
                let weights = block.weight[channel * row..(channel + 1) * row].chunks_exact(taps);
                for (w, base) in weights.zip(&decode.base[first..first + fan]) {
                    *b += (f64::from(w.iter().sum::<f32>()) * base) as f32;
                }
            }
        }
        Baseline::new(dev, &self.patches(task), task.shape, &weights, &bias)
    }

    /// Sums over the targets t instead of z: a linear map of the survey's where the code is linear, a second pass
    /// through the inverse response where it is not.
    fn targets(&mut self, task: &Task, rows: &Rows, code: Option<&Code>, sums: Sums) -> Result<Sums> {
        match code {
            Some(code) if encode::inverts(&self.spiking.model) => self.nonlinear_targets(task, code),
            _ => Ok(linear_targets(rows, &sums)),
        }
    }

    fn nonlinear_targets(&mut self, task: &Task, code: &Code) -> Result<Sums> {
        let population = code.population();
        let shape = Shape { c: task.shape.c * population, ..task.shape };
        let model = self.spiking.model;
        // Each unit's plane, once per neuron of its population, as wanted rates and then as currents.
        let area = shape.area();
        let index: Vec<u32> = (0..shape.len()).map(|i| (i / area / population * area + i % area) as u32).collect();
        let map = |f: fn(&Ramp) -> f64| code.ramps.iter().flatten().map(|r| f(r) as f32).collect::<Vec<_>>();
        let (gain, offset) = (map(|r| 1.0 / r.width), map(|r| -r.start / r.width));
        let start = |walk: &Self, _, dev: &Device| {
            let moments = walk.moments(task, shape, dev)?;
            Ok((dev.upload(&index)?, dev.upload(&gain)?, dev.upload(&offset)?, moments))
        };
        let done =
            self.each_batch(&format!("targets {}", task.name), start, |at, (index, gain, offset, moments)| {
                let (dev, images) = (at.dev, at.images());
                let z = at.wanted(task)?;
                let mut t = dev.poisoned(images * shape.len())?;
                gather::into(dev, index, images, task.shape.len(), &z, 0, shape.len(), &mut t)?;
                activate::affine(dev, shape, gain, offset, &mut t)?;
                response::inverse(dev, &model, &mut t)?;
                let xs = at.rates(task)?;
                moments.add(images, &xs.iter().collect::<Vec<_>>(), &t)
            })?;
        Moments::finish_all(done.into_iter().map(|(.., moments)| moments))
    }

    /// The layer without a grid: cout x n synapses in thresholds per total, and biases.
    pub(super) fn continuous(&self, task: &Task, rows: &Rows, sums: &Sums) -> Result<Continuous> {
        let spec = |g: usize| Spec { mask: task.mask(g), ..Spec::default() };
        let specs: Vec<Spec> = (0..task.groups).map(spec).collect();
        let solved = self.solve(task, rows, sums, &specs, false)?;
        let scales = task.scales();
        let w = solved.solutions.iter().flat_map(|s| s.w.iter().zip(scales.iter().cycle()).map(|(w, s)| w * s));
        Ok(Continuous { w: w.collect(), bias: solved.bias })
    }

    /// One problem per group, all rows of a group together. `told`: the watch hears of it.
    pub(super) fn solve(&self, task: &Task, rows: &Rows, sums: &Sums, specs: &[Spec], told: bool) -> Result<Solved> {
        let n = task.inputs();
        let m = task.shape.c * rows.population / task.groups;
        let scales = task.scales();
        let prior = self.prior(task, rows, &scales);
        let mut expected: Option<f64> = None;
        let mut solve = |g: usize| -> Result<(Solution, Vec<f64>, f64)> {
            let group = Group::new(task, sums, g, m);
            let mut problem = group.problem(&prior[g * m * n..(g + 1) * m * n], task.ridge)?;
            let tt = problem.tt.as_ref().map_or(0.0, |tt| tt.iter().sum());
            let spec = &specs[g];
            if spec.grid.is_some() && task.ridge > ROUNDING_RIDGE {
                let free = Spec { mask: spec.mask.clone(), ..Spec::default() };
                let free = fit::solve_with(&self.team, &problem, &free, &|| self.watch.cancelled())?.w;
                problem = problem.rounding(&free, ROUNDING_RIDGE);
            }
            let noise = self.noise.as_ref().zip(spec.grid.as_ref()).map(|(noise, grid)| (group.noise(noise), grid));
            let cancelled = || self.watch.cancelled();
            let solution = match &noise {
                Some((noise, _)) if self.options.noise == NoiseUse::Fit => {
                    fit::solve_noisy(&self.team, &problem, spec, noise, &cancelled)?
                }
                _ => fit::solve_repeats(&self.team, &problem, spec, rows.repeats, &cancelled)?,
            };
            if let Some((noise, grid)) = &noise {
                *expected.get_or_insert(0.0) += noise.expected(&solution, grid).iter().sum::<f64>();
            }
            if told {
                self.watch.solved(task.name, &problem, spec, &solution)?;
            }
            let bias = Problem::bias(&solution.w, &group.sums());
            Ok((solution, bias, tt))
        };
        let mut all = Solved { solutions: vec![], bias: vec![], tt: 0.0, noise: None, samples: sums.count };
        for g in 0..task.groups {
            let (solution, bias, tt) = solve(g)?;
            all.solutions.push(solution);
            all.bias.extend(bias);
            all.tt += tt;
        }
        all.noise = expected;
        Ok(all)
    }

    /// W0: the trained weights in the units of a shifted code, rows x n.
    pub(super) fn prior(&self, task: &Task, rows: &Rows, scales: &[f64]) -> Vec<f64> {
        let n = task.inputs();
        let per_group = task.shape.c / task.groups;
        let mut prior = Vec::with_capacity(rows.gain.len() * n);
        for (row, gain) in rows.gain.iter().enumerate() {
            let channel = row / rows.population;
            let group = channel / per_group;
            let mut column = 0;
            for (block, columns) in task.blocks.iter().zip(&task.columns) {
                let decode = &self.spiking.nodes[block.source].decode;
                let fan = block.weight.len() / (task.shape.c * columns.taps);
                for i in 0..columns.channels {
                    let spiking = group * columns.channels + i;
                    let from = decode.origin[spiking] as usize % fan;
                    let at = (channel * fan + from) * columns.taps;
                    for w in &block.weight[at..at + columns.taps] {
                        // A decode gain is per rate; a scaled column is rate * 2^shift.
                        let per_column = columns.rate / scales[column];
                        prior.push(gain * f64::from(*w) * decode.gain[spiking] * per_column);
                        column += 1;
                    }
                }
            }
        }
        prior
    }
}

/// What each row's current is to be. A readout's target is z itself, which its bias and weights give without a code.
pub(super) fn rows(task: &Task, code: Option<&Code>) -> Rows {
    match code {
        Some(code) => {
            let ramps = || code.ramps.iter().flatten();
            Rows {
                population: code.population(),
                gain: ramps().map(|r| r.slope / r.width).collect(),
                offset: ramps().map(|r| r.rest - r.slope * r.start / r.width).collect(),
                repeats: if code.repeats() { code.population() } else { 1 },
            }
        }
        None => Rows { population: 1, gain: vec![1.0; task.shape.c], offset: vec![0.0; task.shape.c], repeats: 1 },
    }
}

/// Sums over t = gain z + offset from sums over z.
fn linear_targets(rows: &Rows, sums: &Sums) -> Sums {
    let (n, m) = (sums.n, sums.m);
    let count = sums.count as f64;
    let mut out = Sums { m: m * rows.population, b: vec![], z_sum: vec![], zz: vec![], ..sums.clone() };
    for row in 0..rows.gain.len() {
        let (gain, offset) = (rows.gain[row], rows.offset[row]);
        let channel = row / rows.population;
        let group = channel / m;
        let x = &sums.x_sum[group * n..(group + 1) * n];
        out.b.extend(sums.b[channel * n..(channel + 1) * n].iter().zip(x).map(|(b, x)| gain * b + offset * x));
        let (z, zz) = (sums.z_sum[channel], sums.zz[channel]);
        out.z_sum.push(gain * z + offset * count);
        out.zz.push(gain * gain * zz + 2.0 * gain * offset * z + offset * offset * count);
    }
    out
}
