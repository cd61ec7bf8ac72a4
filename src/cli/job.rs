//! A job: what `convert` is asked for. Each key is a flag and a line of JOB.toml under the same name; a flag wins over
//! the file, the file over the default. The resolved job is written beside the result as job.toml.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::memory::{self, Memory};
use super::timing::{Auto, Choice, PerUnit, Steps, Timing};
use crate::compare::Decision;
use crate::compute::{Choices, Team};
use crate::convert::{Choose, Keep, Options, Populations, Ridge, Sparsity};
use crate::error::{Error, Result};
use crate::network::Network;

/// All keys are optional here; `Job::resolve` says which are needed.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct JobArgs {
    /// The trained network, an ONNX file
    #[arg(long, value_name = "M.onnx", help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Images to fit on: .npy, .npz, idx, idx.gz, a folder of PNG/JPEG, or uniform:LO..HI[,LO..HI ...] (random inputs,
    /// one range or one a feature)
    #[arg(long, value_name = "X", help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
    /// Images to compare the two networks on [default: the calibration images]
    #[arg(long, value_name = "X", help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Labels of the test images: .npy, idx, idx.gz or text
    #[arg(long, value_name = "Y", help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The network's input is (x * scale - mean) / std [default: 1]
    #[arg(long, help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// One value, or one a channel [default: 0]
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// One value, or one a channel [default: 1]
    #[arg(long, value_delimiter = ',', help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// How the image files are laid out: nchw or nhwc [default: what their shape and the model say]
    #[arg(long, help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// Channel order that the network wants of RGB images: rgb or bgr [default: rgb]
    #[arg(long, help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<String>,
    /// Use the first N calibration images [default: all; 1000 random ones]
    #[arg(long, value_name = "N", help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Use N test images [default: all; 1000 random ones]
    #[arg(long, value_name = "N", help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_images: Option<usize>,
    /// Use every K-th test image [default: 1]
    #[arg(long, value_name = "K", help_heading = "Input")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_every: Option<usize>,

    /// A built-in chip (see `synfit chips`) or a chip file [default: generic8]
    #[arg(long, value_name = "NAME|FILE", help_heading = "Target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chip: Option<String>,
    /// Neuron model instead of the chip's: if, if-zero, if-multi, lif
    #[arg(long, help_heading = "Target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neuron: Option<String>,
    /// Time steps, or auto: as few as reach --agreement [default: 32]
    #[arg(long, value_name = "T|auto", help_heading = "Target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
    /// With --steps auto: the fraction of test images on which both networks must decide alike
    #[arg(long, value_name = "FRACTION", help_heading = "Target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// The result must come within L steps of the first input: what L leaves beyond --steps goes to settling windows of one
    /// step, evenly over the layers, unless --settle says otherwise [default: as --settle makes it]
    #[arg(long, value_name = "L", help_heading = "Target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<u64>,
    /// Bits of a synapse instead of the chip's: 2..16 (two's complement), sym2..sym16 (sign and magnitude), u1..u16
    /// (unsigned), even2..even16, 1.58 (ternary), or none (real-valued)
    #[arg(long, value_name = "B", help_heading = "Target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<String>,
    /// Who shares a scale, instead of the chip's rule: layer, channel or neuron
    #[arg(long, help_heading = "Target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_scale: Option<String>,
    /// streaming (all layers run at once) or layered (a layer fires after its input has settled) [default: streaming]
    #[arg(long, help_heading = "Target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// Presynaptic rates: measured (simulated) or analytic (response function) [default: measured]
    #[arg(long, help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// Potentials to start from: calibrated (per channel, by trial) or half (a threshold) [default: calibrated]
    #[arg(long, value_name = "HOW", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_potential: Option<String>,
    /// Steps of input that a layer integrates before its first chance to fire; several with commas repeat from layer to layer
    /// (2,0: every other one); auto: 1 where all layers run at once and neurons neither leak nor rest, else 0; a sum over a
    /// shortcut leaves its step to the layer before it; up to 3 more where a layer's error falls by it on the calibration
    /// images and the longest path waits for a quarter of the steps at most. Latency grows by as much for each layer on the
    /// longest path [default: auto]
    #[arg(long, value_name = "N[,N..]|auto", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle: Option<String>,
    /// Currents to fit: response (where a unit is silent or saturated, any current that keeps its neuron so) or linear
    /// (the trained pre-activations everywhere); auto: response from the first layer on that is made smaller, and
    /// in the streaming schedule unless the chip's sources own signs, else linear [default: auto]
    #[arg(long, value_name = "WHICH", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<String>,
    /// Rectified units that never rest begin to fire where their values begin, not at zero, where what reads them allows it
    /// (no padding): on or off [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// Higher thresholds for channels that are read by small synapses, where weights have 16 levels or fewer: on or off
    /// [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equalize: Option<String>,
    /// Layer solver: auto, rtn, feedback, descent or kbest [default: auto]
    #[arg(long, help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Make layers smaller: LAYER=N, LAYER=0.5 or LAYER=50% (a layer by its name, or conv2 for the second convolution,
    /// fc1 for the first dense layer), one size without a name for all other layers, or neurons=N or cores=N (of the chip) for the whole network;
    /// several with commas [default: all nodes stay]
    #[arg(long, value_name = "SIZES", value_delimiter = ',', help_heading = "Size")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Vec<String>>,
    /// How to look for the nodes that lose least: optimal (exact costs, greedy and swaps) or exact (proven by branch and
    /// bound, for small layers) [default: optimal]
    #[arg(long, value_name = "HOW", help_heading = "Size")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<String>,
    /// Remove nodes and synapses by another order, to compare with: magnitude (of synapses) or rate (for synapses:
    /// magnitude times the spread of the input); cost is ours [default: cost]
    #[arg(long, value_name = "WHAT", help_heading = "Size")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune_by: Option<String>,
    /// Refine pruned layers: what is left of one is fitted to what serves its readers best, not to what it was trained to:
    /// on or off [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Size")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refine: Option<String>,
    /// Tune what is left of a pruned network: passes over the calibration images, shifted, mirrored and mixed where they are
    /// images, in which all its layers are fitted together, in the place of refining each; minutes on a CPU [default: 0]
    #[arg(long, value_name = "PASSES", help_heading = "Size")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tune: Option<usize>,
    /// Remove this share of each layer's synapses and refit the rest: 0.8, 80%, or LAYER=0.8 (layers as for --keep);
    /// several with commas [default: all synapses stay]
    #[arg(long, value_name = "SHARES", value_delimiter = ',', help_heading = "Size")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<Vec<String>>,
    /// Leave each neuron at most so many inputs; a chip's own limit (core.fan_in) is kept without being asked for
    /// [default: no limit but the chip's]
    #[arg(long, value_name = "N", help_heading = "Size")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fan_in: Option<usize>,
    /// Leave N of every M synapses of a row: 2:4 [default: no pattern]
    #[arg(long, value_name = "N:M", help_heading = "Size")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Ridge towards the trained weights, relative to the mean square of an input, or auto: each layer's by cross-validation
    /// over the calibration images [default: auto]
    #[arg(long, value_name = "MU", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ridge: Option<Ridge>,
    /// Neurons for a rectified unit (a clip too; a leaky one: for each of its slopes): N together count T steps as finely as
    /// one counts N T, and weights as if their steps were finer; auto: 1, in the layered schedule 2 instead of remainders from
    /// 32 steps on if weights have at most 16 levels and the chip does not bound a neuron's inputs [default: auto]
    #[arg(long, value_name = "N|auto", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_unit: Option<PerUnit>,
    /// Layered schedule: layers of as many neurons send what the spikes of a layer leave of its units after them, N spikes of
    /// a smaller threshold for one, to whoever comes two layers later (shortcuts, other such layers) and to the readout, which
    /// waits T steps more for them unless --latency leaves no time; off: none; auto: 3, from 32 steps on 6, off where units have several neurons [default: auto]
    #[arg(long, value_name = "N|auto|off", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remainder: Option<String>,
    /// Neurons for a unit whose activation is curved (sigmoid, tanh, softplus, elu), at least 2; a straight piece of any other
    /// takes one, or --per-unit [default: 4]
    #[arg(long, value_name = "P", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub population: Option<usize>,
    /// What counts as agreement: argmax, argmin, or none (regression) [default: argmax; none for a single output]
    #[arg(long, help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,

    /// auto (a real GPU if there is one, else the CPU), gpu, cpu, opengl, or an index of `synfit devices`; several with commas,
    /// or all (real GPUs), share images and rows, evenly or by the shares that they are given: 0:3,1 [default: auto]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Where the chip's file gives the noise of programming (weights.programming): fit (the fit knows it and the result is
    /// tried under it), test (the result is tried under it) or off [default: fit]
    #[arg(long, value_name = "WHAT", help_heading = "Fit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<String>,
    /// Programmings that the result is tried under [default: 5]
    #[arg(long, value_name = "K", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_draws: Option<u32>,
    /// Seed of all random choices [default: 0]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Memory for activations and spikes in flight, in MiB, or with a unit: 160, 2G; or batch=SIZE (the same), host=SIZE (the
    /// whole process) and device=SIZE (all buffers of a GPU), with commas: host=2G,device=8G. What has no room on a GPU is
    /// done on the host. auto: 160, on discrete GPUs 1024 [default: auto]
    #[arg(long, value_name = "SIZE", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

impl JobArgs {
    /// Reads a job file. Paths in it are relative to it.
    ///
    /// # Errors
    /// Input: unreadable, or an unknown or ill-typed key.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::input(&name, e.to_string()))?;
        let mut job: JobArgs = toml::from_str(&text).map_err(|e| {
            let line = e.to_string().lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
            Error::input(&name, line)
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in [&mut job.model, &mut job.calibration, &mut job.test, &mut job.labels] {
            if let Some(given) = file.as_mut().filter(|f| !is_uniform(f)) {
                *given = folder.join(&*given).display().to_string();
            }
        }
        // A chip may be a name; a file beside the job is meant if there is one.
        if let Some(chip) = job.chip.as_mut().filter(|c| folder.join(&**c).is_file()) {
            *chip = folder.join(&*chip).display().to_string();
        }
        Ok(job)
    }

    /// `self` where it says something, `below` elsewhere.
    pub fn over(self, below: JobArgs) -> JobArgs {
        JobArgs {
            model: self.model.or(below.model),
            calibration: self.calibration.or(below.calibration),
            test: self.test.or(below.test),
            labels: self.labels.or(below.labels),
            scale: self.scale.or(below.scale),
            mean: self.mean.or(below.mean),
            std: self.std.or(below.std),
            layout: self.layout.or(below.layout),
            channels: self.channels.or(below.channels),
            images: self.images.or(below.images),
            test_images: self.test_images.or(below.test_images),
            test_every: self.test_every.or(below.test_every),
            chip: self.chip.or(below.chip),
            neuron: self.neuron.or(below.neuron),
            steps: self.steps.or(below.steps),
            agreement: self.agreement.or(below.agreement),
            latency: self.latency.or(below.latency),
            bits: self.bits.or(below.bits),
            bits_scale: self.bits_scale.or(below.bits_scale),
            schedule: self.schedule.or(below.schedule),
            response: self.response.or(below.response),
            initial_potential: self.initial_potential.or(below.initial_potential),
            settle: self.settle.or(below.settle),
            targets: self.targets.or(below.targets),
            offset: self.offset.or(below.offset),
            equalize: self.equalize.or(below.equalize),
            method: self.method.or(below.method),
            keep: self.keep.or(below.keep),
            prune: self.prune.or(below.prune),
            prune_by: self.prune_by.or(below.prune_by),
            refine: self.refine.or(below.refine),
            tune: self.tune.or(below.tune),
            sparsity: self.sparsity.or(below.sparsity),
            fan_in: self.fan_in.or(below.fan_in),
            pattern: self.pattern.or(below.pattern),
            ridge: self.ridge.or(below.ridge),
            per_unit: self.per_unit.or(below.per_unit),
            remainder: self.remainder.or(below.remainder),
            population: self.population.or(below.population),
            decision: self.decision.or(below.decision),
            device: self.device.or(below.device),
            noise: self.noise.or(below.noise),
            noise_draws: self.noise_draws.or(below.noise_draws),
            seed: self.seed.or(below.seed),
            memory: self.memory.or(below.memory),
        }
    }

    /// What holds where neither a flag nor a job file says anything.
    fn usual() -> JobArgs {
        let text = |s: &str| Some(s.to_string());
        JobArgs {
            scale: Some(1.0),
            mean: Some(vec![0.0]),
            std: Some(vec![1.0]),
            channels: text("rgb"),
            test_every: Some(1),
            chip: text("generic8"),
            steps: Some(Steps::Number(32)),
            schedule: text("streaming"),
            response: text("measured"),
            initial_potential: text("calibrated"),
            settle: text("auto"),
            targets: text("auto"),
            offset: text("on"),
            equalize: text("on"),
            method: text("auto"),
            prune: text("optimal"),
            prune_by: text("cost"),
            refine: text("on"),
            tune: Some(0),
            ridge: Some(Ridge::Auto),
            per_unit: Some(Choice::Auto(Auto::Auto)),
            remainder: text("auto"),
            population: Some(4),
            device: text("auto"),
            noise: text("fit"),
            noise_draws: Some(5),
            seed: Some(0),
            memory: Some(Memory::default()),
            ..JobArgs::default()
        }
    }

    /// The job with every default written out, so that it means the same to a later version. The data's layout and
    /// number and the chip's own neuron and grid stay open: file and chip say them.
    ///
    /// # Errors
    /// As `decision`.
    pub fn resolved(self, network: &Network) -> Result<JobArgs> {
        let decision = word_of(&self.decision(network)?)?;
        let job = JobArgs { decision: Some(decision), ..self.over(JobArgs::usual()) };
        Ok(JobArgs { per_unit: Some(Choice::Number(job.neurons_per_unit()?)), ..job })
    }

    /// Makes the files' paths absolute, so that the job can be repeated from anywhere.
    pub fn absolute(mut self) -> JobArgs {
        for file in [&mut self.model, &mut self.calibration, &mut self.test, &mut self.labels] {
            if let Some(given) = file.as_mut().filter(|f| !is_uniform(f))
                && let Ok(full) = std::fs::canonicalize(&*given)
            {
                *given = full.display().to_string();
            }
        }
        if let Some(chip) = self.chip.as_mut().filter(|c| Path::new(c.as_str()).is_file())
            && let Ok(full) = std::fs::canonicalize(&*chip)
        {
            *chip = full.display().to_string();
        }
        self
    }

    /// The conversion's options, of a resolved job.
    ///
    /// # Errors
    /// Input: a value that a key does not know, by the key's name.
    pub fn options(&self, network: &Network) -> Result<Options> {
        let chip = self.target()?;
        let Timing { steps, schedule, settle } = self.timing(network, &chip)?;
        let ridge = *given("ridge", &self.ridge)?;
        if let Ridge::Fixed(ridge) = ridge
            && !(ridge >= 0.0 && ridge.is_finite())
        {
            return Err(Error::input("ridge", format!("{ridge} is neither auto nor a number >= 0")));
        }
        let population =
            Populations { rectified: self.neurons_per_unit()?, curved: *given("population", &self.population)? };
        for (key, least, number) in [("per_unit", 1, population.rectified), ("population", 2, population.curved)] {
            if !(least..=64).contains(&number) {
                return Err(Error::input(key, format!("{number} is outside {least}..=64")));
            }
        }
        let bounds = given("memory", &self.memory)?;
        Ok(Options {
            chip,
            steps,
            schedule,
            settle,
            response: word("response", given("response", &self.response)?, "measured, analytic")?,
            initial: word(
                "initial_potential",
                given("initial_potential", &self.initial_potential)?,
                "calibrated, half",
            )?,
            targets: word("targets", given("targets", &self.targets)?, "auto, response, linear")?,
            offset: switch("offset", &self.offset)?,
            equalize: switch("equalize", &self.equalize)?,
            method: given("method", &self.method)?.parse()?,
            keep: Keep::parse(self.keep.as_deref().unwrap_or_default())?,
            prune: self.choose()?,
            refine: switch("refine", &self.refine)?,
            tune: self.tune.unwrap_or_default(),
            sparse: Sparsity::parse(
                self.sparsity.as_deref().unwrap_or_default(),
                self.fan_in,
                self.pattern.as_deref(),
            )?,
            ridge,
            noise: word("noise", given("noise", &self.noise)?, "fit, test, off")?,
            population,
            remainder: self.remainder_spikes()?.unwrap_or(0),
            decides: self.decision(network)? != Decision::None,
            batch_bytes: bounds.batch.unwrap_or(memory::USUAL_BATCH),
            host_bytes: bounds.host,
            seed: *given("seed", &self.seed)?,
        })
    }

    fn choose(&self) -> Result<Choose> {
        let how = word("prune", given("prune", &self.prune)?, "optimal, exact")?;
        match given("prune-by", &self.prune_by)?.as_str() {
            "cost" => Ok(how),
            "magnitude" => Ok(Choose::Magnitude),
            "rate" => Ok(Choose::Rate),
            other => Err(unknown("prune-by", other, "cost, magnitude, rate")),
        }
    }

    /// The devices of a resolved job.
    pub fn device_list(&self) -> Result<Choices> {
        given("device", &self.device)?.parse()
    }

    /// Opens them.
    pub fn open_devices(&self) -> Result<Team> {
        Team::open(&self.device_list()?, given("memory", &self.memory)?.device)
    }

    /// `options` with batches of a size that suits the devices.
    pub fn options_on(&self, network: &Network, team: &Team) -> Result<Options> {
        let batch_bytes = given("memory", &self.memory)?.batch_on(team);
        Ok(Options { batch_bytes, ..self.options(network)? })
    }

    /// Names the first key that is needed and missing.
    pub fn need(&self) -> Result<(&str, &str)> {
        Ok((given("model", &self.model)?, given("calibration", &self.calibration)?))
    }

    /// What counts as agreement for `network`.
    pub fn decision(&self, network: &Network) -> Result<Decision> {
        let usual = if network.output_shape().len() == 1 { Decision::None } else { Decision::Argmax };
        self.decision.as_deref().map_or(Ok(usual), |d| word("decision", d, "argmax, argmin, none"))
    }
}

/// Random inputs instead of a file.
pub fn is_uniform(source: &str) -> bool {
    source.starts_with("uniform:")
}

pub(super) fn unknown(key: &str, value: &str, known: &str) -> Error {
    Error::input(key, format!("`{value}` is none of {known}"))
}

/// A value of an enum by its serde name.
pub(super) fn word<T: serde::de::DeserializeOwned>(key: &str, value: &str, known: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(value.to_string())).map_err(|_| unknown(key, value, known))
}

/// A key of a resolved job that is on or off.
fn switch(key: &str, value: &Option<String>) -> Result<bool> {
    match given(key, value)?.as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(unknown(key, other, "on, off")),
    }
}

/// The serde name of an enum's value.
fn word_of<T: Serialize>(value: &T) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(Error::work("job", "a value without a name")),
    }
}

/// A key of a resolved job.
pub(super) fn given<'a, T>(key: &str, value: &'a Option<T>) -> Result<&'a T> {
    value.as_ref().ok_or_else(|| Error::input(format!("--{key}"), "is needed (or a line of that name in the job file)"))
}

/// Where a result folder keeps its job.
pub fn job_file(folder: &Path) -> PathBuf {
    folder.join("job.toml")
}
