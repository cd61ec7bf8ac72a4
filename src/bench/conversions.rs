//! Whole conversions of the built-in architectures, with seeded weights and inputs.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ndarray::Array4;

use super::networks::{Built, Shape};
use super::record::{Conversion, MeanErrors, Memory, Phases};
use crate::compute::Device;
use crate::convert::{self, Images, LayerRecord, Options, Watch};
use crate::error::{Error, Result};
use crate::network::{ChannelOrder, Dataset, Layout, Network};
use crate::report::PeakMemory;

/// Waves that a picture is made of.
const WAVES: usize = 6;

/// Converts `built` to `options.chip` on `images` seeded pictures. For `peak_memory` to be the conversion's own, `dev`
/// must be fresh.
///
/// # Errors
/// As `convert::convert`; a scratch folder that cannot be written.
pub fn conversion(
    dev: &Device,
    shape: Shape,
    built: &Built,
    images: usize,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Conversion> {
    let Built { network, trained } = built;
    let scratch = tempfile::tempdir().map_err(|e| Error::work("scratch folder", e.to_string()))?;
    let pictures = pictures(network, images, options.seed, &scratch.path().join("images.npy"))?;
    PeakMemory::restart();
    let watch = Phased::new(watch);
    let start = Instant::now();
    let done = convert::convert(dev, network, &pictures, options, scratch.path(), &watch)?;
    let total = start.elapsed().as_secs_f64();
    let memory = PeakMemory::measure(dev);
    Ok(Conversion {
        network: shape,
        input: network.input_shape().to_string(),
        outputs: network.output_shape().len(),
        parameters: *trained,
        macs: network.macs(),
        images,
        chip: options.chip.name.clone(),
        steps: options.steps,
        bits: options.chip.weights.grid.as_ref().map(ToString::to_string),
        layers: done.layers.len(),
        neurons: done.spiking.neurons(),
        synapses: done.spiking.synapses(),
        seconds: watch.finish(total),
        images_per_second: images as f64 / total,
        mean_error: mean_errors(&done.layers),
        peak_memory: Memory { host_bytes: memory.host_bytes, device_bytes: memory.device_bytes },
    })
}

fn mean_errors(layers: &[LayerRecord]) -> MeanErrors {
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let of = |f: fn(&LayerRecord) -> f64| mean(layers.iter().map(f).collect());
    let responses: Vec<f64> = layers.iter().filter_map(|l| l.response_error).collect();
    MeanErrors {
        round: of(|l| l.error.round),
        fit: of(|l| l.error.fit),
        grid: of(|l| l.error.grid),
        response: (!responses.is_empty()).then(|| mean(responses)),
    }
}

/// Seeded pictures in bytes: a few waves of any direction and length in each channel, as different from each other as
/// photographs are (even noise would look the same to all deeper layers). The file is written to `path`.
pub fn pictures(network: &Network, images: usize, seed: u64, path: &Path) -> Result<Images> {
    let shape = network.input_shape();
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x7069_6374);
    let mut all = Vec::with_capacity(images * shape.len());
    for _ in 0..images * shape.c {
        let turn = std::f32::consts::TAU;
        // Across the picture up to eight periods in each direction.
        let waves: [_; WAVES] =
            std::array::from_fn(|_| [rng.f32() * 16.0 - 8.0, rng.f32() * 16.0 - 8.0, rng.f32(), 20.0 * rng.f32()]);
        for y in 0..shape.h {
            for x in 0..shape.w {
                let (y, x) = (y as f32 / shape.h as f32, x as f32 / shape.w as f32);
                let sum: f32 =
                    waves.iter().map(|[a, b, phase, size]| size * (turn * (a * y + b * x + phase)).sin()).sum();
                all.push((128.0 + 2.0 * sum).clamp(0.0, 255.0) as u8);
            }
        }
    }
    let failed = |e: &dyn std::fmt::Display| Error::work(path.display().to_string(), e.to_string());
    let array = Array4::from_shape_vec((images, shape.c, shape.h, shape.w), all).map_err(|e| failed(&e))?;
    ndarray_npy::write_npy(path, &array).map_err(|e| failed(&e))?;
    let data = Dataset::open(path, shape, Layout::Nchw, ChannelOrder::Rgb)?;
    // About mean 0 and variance 1.
    Ok(Images { data, scale: vec![1.0 / 48.0; shape.c], shift: vec![-128.0 / 48.0; shape.c] })
}

/// Passes on what it hears, and keeps the time: what lies between a stage's beginning and its last tick is the stage's,
/// the rest is solving.
struct Phased<'a> {
    inner: &'a dyn Watch,
    state: Mutex<State>,
}

struct State {
    since: Instant,
    /// The first word of the present stage's name; empty between stages.
    stage: String,
    ticks: u64,
    phases: Phases,
}

impl State {
    /// Ends the present stretch of time.
    fn turn(&mut self, stage: &str, ticks: u64) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let phases = &mut self.phases;
        match self.stage.as_str() {
            "fit" => phases.moments += seconds,
            "targets" => phases.targets += seconds,
            "simulate" => phases.simulate += seconds,
            _ => phases.solve += seconds,
        }
        self.stage = stage.split(' ').next().unwrap_or_default().to_string();
        self.ticks = ticks;
    }
}

impl<'a> Phased<'a> {
    fn new(inner: &'a dyn Watch) -> Self {
        let state = State { since: Instant::now(), stage: String::new(), ticks: 0, phases: Phases::default() };
        Self { inner, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, total: f64) -> Phases {
        let mut state = self.state();
        state.turn("", 0);
        Phases { total, ..state.phases }
    }
}

impl Watch for Phased<'_> {
    fn stage(&self, name: &str, ticks: u64) {
        self.state().turn(name, ticks);
        self.inner.stage(name, ticks);
    }

    fn tick(&self) {
        let mut state = self.state();
        state.ticks = state.ticks.saturating_sub(1);
        if state.ticks == 0 {
            state.turn("", 0);
        }
        drop(state);
        self.inner.tick();
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}
