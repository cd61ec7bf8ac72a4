//! `synfit bench`: what this machine's devices reach, kernel by kernel and on whole conversions.

use super::job::JobArgs;
use super::progress::Progress;
use super::table;
use super::timing::Steps;
use crate::bench::networks::Shape;
use crate::bench::{Conversion, Document, Kernel, Limit, Measured, Plan, Size, conversions, kernels, peaks};
use crate::compute::{Choice, Choices, Device};
use crate::convert::{Watch, go_on};
use crate::error::{Error, Result};

#[derive(clap::Args)]
pub struct Args {
    /// auto (a real GPU if there is one, else the CPU), gpu, cpu, opengl or an index of `synfit devices`; several with commas,
    /// or all of `synfit devices`, are measured one after the other
    #[arg(long, default_value = "auto")]
    device: String,
    /// Kernels to measure, with commas; all, or none
    #[arg(long, value_name = "A,B", default_value = "all", value_delimiter = ',')]
    kernels: Vec<String>,
    /// Sizes of the kernels' work: tiny, small or large [default: large on a GPU, small on cores]
    #[arg(long)]
    size: Option<String>,
    /// Most runs of a kernel after its warm-up
    #[arg(long, value_name = "N", default_value_t = 9)]
    runs: usize,
    /// Seconds after which a kernel does not run again
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    seconds: f64,
    /// Conversions to measure, with commas: lenet, resnet20, vgg16-cifar, resnet50, vgg16-imagenet; all, or none
    /// [default: lenet,resnet20; lenet alone on a software GPU, which takes long]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    networks: Option<Vec<String>>,
    /// Calibration images of a conversion
    #[arg(long, value_name = "N", default_value_t = 64)]
    images: usize,
    /// Time steps of a conversion
    #[arg(long, value_name = "T", default_value_t = 16)]
    steps: u32,
    /// Bits of a synapse in a conversion, as in `synfit convert` [default: the chip's, 8]
    #[arg(long, value_name = "B")]
    bits: Option<String>,
    /// Seed of weights and inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Only see that all runs: tiny kernels, one run each, lenet on 4 images in 4 steps
    #[arg(long, conflicts_with_all = ["size", "runs", "seconds", "networks", "images", "steps"])]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let wanted = Wanted::new(args)?;
    let progress = Progress::new()?;
    let mut document = Document {
        version: 1,
        synfit: env!("CARGO_PKG_VERSION").to_string(),
        cores: rayon::current_num_threads(),
        seed: args.seed,
        devices: Vec::new(),
    };
    for choice in &wanted.choices {
        document.devices.push(measure(&wanted, *choice, &progress)?);
    }
    progress.done();
    if args.json {
        let text = serde_json::to_string_pretty(&document).map_err(|e| Error::work("bench", e.to_string()))?;
        println!("{text}");
    } else {
        document.devices.iter().for_each(print);
    }
    Ok(())
}

/// The arguments, checked.
struct Wanted {
    choices: Vec<Choice>,
    size: Option<Size>,
    plan: Plan,
    kernels: Vec<String>,
    /// None: what the device can do in a short time.
    networks: Option<Vec<Shape>>,
    images: usize,
    job: JobArgs,
}

impl Wanted {
    /// Errors: input, by the flag's name.
    fn new(args: &Args) -> Result<Self> {
        let choices = args.device.parse::<Choices>()?.each();
        if args.runs == 0 || args.images == 0 {
            let name = if args.runs == 0 { "runs" } else { "images" };
            return Err(Error::input(name, "must be at least 1"));
        }
        if !(args.seconds >= 0.0 && args.seconds.is_finite()) {
            return Err(Error::input("seconds", format!("{} is not a number >= 0", args.seconds)));
        }
        let kernels: Vec<String> = match listed(&args.kernels, "kernels")? {
            Listed::All => kernels::names().map(String::from).collect(),
            Listed::These(names) => names.to_vec(),
        };
        kernels::check(&kernels)?;
        let networks = match args.networks.as_deref().map(|names| listed(names, "networks")).transpose()? {
            None => None,
            Some(Listed::All) => Some(Shape::ALL.to_vec()),
            Some(Listed::These(names)) => Some(names.iter().map(|n| n.parse()).collect::<Result<_>>()?),
        };
        let job = JobArgs {
            steps: Some(Steps::Number(args.steps)),
            bits: args.bits.clone(),
            seed: Some(args.seed),
            ..JobArgs::default()
        };
        let wanted = Self {
            choices,
            size: args.size.as_deref().map(str::parse).transpose()?,
            plan: Plan { runs: args.runs, seconds: args.seconds },
            kernels,
            networks,
            images: args.images,
            job,
        };
        let wanted = if args.quick { wanted.quick() } else { wanted };
        // What is wrong with the conversions' options shows before any work.
        let smallest = Shape::Lenet.build(0).network;
        wanted.job.clone().resolved(&smallest)?.options(&smallest)?;
        Ok(wanted)
    }

    fn quick(self) -> Self {
        let job = JobArgs { steps: Some(Steps::Number(4)), ..self.job };
        let plan = Plan { runs: 1, seconds: 0.0 };
        Self { size: Some(Size::Tiny), plan, networks: Some(vec![Shape::Lenet]), images: 4, job, ..self }
    }
}

/// A list of names on the command line.
enum Listed<'a> {
    All,
    These(&'a [String]),
}

fn listed<'a>(names: &'a [String], flag: &str) -> Result<Listed<'a>> {
    match names {
        [one] if one == "all" => Ok(Listed::All),
        [one] if one == "none" => Ok(Listed::These(&[])),
        many if many.iter().any(|n| n == "all" || n == "none") => Err(Error::input(flag, "all and none stand alone")),
        these => Ok(Listed::These(these)),
    }
}

/// All that is wanted of one device.
fn measure(wanted: &Wanted, choice: Choice, progress: &Progress) -> Result<Measured> {
    let dev = Device::open(choice)?;
    let size = wanted.size.unwrap_or_else(|| Size::of(&dev));
    let sizes = size.sizes();
    progress.stage(&format!("kernels on {}", dev.info().name), 2 + wanted.kernels.len() as u64);
    let peaks = peaks::peaks(&dev, &sizes, &wanted.plan, progress)?;
    let kernels = kernels::kernels(&dev, &sizes, &wanted.plan, &peaks, &wanted.kernels, progress)?;
    let (info, timestamps) = (dev.info().clone(), dev.has_clock());
    drop(dev);
    let usual = if info.software() { &[Shape::Lenet][..] } else { &[Shape::Lenet, Shape::Resnet20] };
    let mut conversions = Vec::new();
    for shape in wanted.networks.as_deref().unwrap_or(usual) {
        go_on(progress)?;
        let built = shape.build(wanted.job.seed.unwrap_or_default());
        // A fresh device, so that its peak of memory is this conversion's.
        let dev = Device::open(choice)?;
        let options = wanted.job.clone().resolved(&built.network)?.options_on(&built.network, &(&dev).into())?;
        let done = conversions::conversion(&dev, *shape, &built, wanted.images, &options, progress);
        conversions.push(done.map_err(|e| if e.subject.is_empty() { e } else { e.within(shape) })?);
    }
    Ok(Measured { info, timestamps, size, peaks, kernels, conversions })
}

fn print(device: &Measured) {
    let info = &device.info;
    let driver = if info.driver.is_empty() { String::new() } else { format!(", {}", info.driver) };
    println!("{} ({}{driver})", info.name, info.backend);
    let p = &device.peaks;
    println!(
        "peaks: {:.1} GFLOP/s (multiply-adds, {} clock), {:.1} GB/s (copy, {} clock)\n",
        p.gflops,
        p.fma.clock.name(),
        p.gbps,
        p.copy.clock.name()
    );
    if !device.kernels.is_empty() {
        let header = ["kernel", "shape", "clock", "limit", "runs", "ms", "GFLOP/s", "GB/s", "of peak"];
        println!("{}\n", table::render(&header, &device.kernels.iter().map(kernel_row).collect::<Vec<_>>(), 4));
    }
    if !device.conversions.is_empty() {
        let header = [
            "conversion",
            "bits",
            "layers",
            "parameters",
            "images",
            "steps",
            "seconds",
            "moments",
            "targets",
            "simulate",
            "solve",
            "images/s",
            "host MiB",
            "device MiB",
            "stored",
            "response",
        ];
        println!("{}\n", table::render(&header, &device.conversions.iter().map(conversion_row).collect::<Vec<_>>(), 2));
    }
}

fn kernel_row(k: &Kernel) -> Vec<String> {
    let limit = match k.limit {
        Limit::Arithmetic => "arithmetic",
        Limit::Memory => "memory",
    };
    vec![
        k.name.to_string(),
        k.shape.clone(),
        k.timing.clock.name().to_string(),
        limit.to_string(),
        k.timing.runs.to_string(),
        format!("{:.3}", 1e3 * k.timing.seconds),
        format!("{:.2}", k.gflops),
        format!("{:.2}", k.gbps),
        table::percent(Some(k.percent_of_peak / 100.0)),
    ]
}

fn conversion_row(c: &Conversion) -> Vec<String> {
    let mib = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(1 << 20));
    let s = &c.seconds;
    vec![
        c.network.to_string(),
        c.bits.clone().unwrap_or_else(|| "none".into()),
        c.layers.to_string(),
        table::grouped(c.parameters as f64),
        c.images.to_string(),
        c.steps.to_string(),
        format!("{:.2}", s.total),
        format!("{:.2}", s.moments),
        format!("{:.2}", s.targets),
        format!("{:.2}", s.simulate),
        format!("{:.2}", s.solve),
        format!("{:.*}", if c.images_per_second < 10.0 { 3 } else { 1 }, c.images_per_second),
        c.peak_memory.host_bytes.map_or_else(|| "-".into(), mib),
        mib(c.peak_memory.device_bytes),
        format!("{:.2e}", c.mean_error.grid),
        c.mean_error.response.map_or_else(|| "-".into(), |e| format!("{e:.2e}")),
    ]
}
