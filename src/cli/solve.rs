//! `synfit solve PROBLEM.npz`: the bare batch solver for one layer problem.

mod absolute;
mod bias;
mod input;

use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::{Array1, Array2};
use ndarray_npy::NpzWriter;
use serde::Serialize;

use crate::chip::{Grid, ScaleOwner};
use crate::compute::{Choices, Device, Team};
use crate::error::{Error, Result};
use crate::fit::{Bounds, Method, Samples, Signs, Solution, Spec, Status, dual_pays, solve, solve_dual};
use crate::verify;
use bias::Stored;
use input::{Data, Input, Means, RawSamples};

/// Solve one layer problem: least squares under bounds on the weights, or with weights on a grid
///
/// PROBLEM.npz holds `x` (S x n) and `t` (S x m), or `h` (n x n) and `b` (m x n); optionally `lower` and `upper`
/// (a scalar, m, or m x n values) and `w` (m x n: what the ridge pulls towards). One JSON line on standard output says
/// what was reached; W.npz holds `w` (m x n), `scale` (m), `bias` (m), with a grid `codes` (m x n), with palettes
/// `palette` (m x K) and `codes` (positions in the row's palette), with types `types` (n), and where inputs own the signs
/// `signs` (n).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The problem file
    #[arg(value_name = "PROBLEM.npz")]
    pub problem: PathBuf,
    /// Where to write the weights; nothing is written without it
    #[arg(long, value_name = "W.npz")]
    pub out: Option<PathBuf>,
    /// Smallest weight (the file's `lower` otherwise)
    #[arg(long, allow_hyphen_values = true)]
    pub lower: Option<f64>,
    /// Largest weight (the file's `upper` otherwise)
    #[arg(long, allow_hyphen_values = true)]
    pub upper: Option<f64>,
    /// Bits of a stored weight: 2 to 16 (two's complement: -128 to 127 at 8), sym8 (sign and magnitude: -127 to 127), u8
    /// (unsigned), even8 (even values only), 1.58 (ternary), 1 (-1 or 1)
    #[arg(long, conflicts_with = "levels")]
    pub bits: Option<Grid>,
    /// Who owns a scale: layer, channel or neuron
    #[arg(long, default_value = "channel")]
    pub bits_scale: ScaleOwner,
    /// Scales are powers of two
    #[arg(long)]
    pub scale_power_of_two: bool,
    /// Who owns a weight's sign: free (every weight its own), or input: all weights of an input have one sign, which the
    /// fit chooses, and the grid is unsigned (--bits u4)
    #[arg(long, default_value = "free")]
    pub signs: Signs,
    /// The values a stored weight may take, in units of its scale: a,b,c
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, num_args = 1)]
    pub levels: Option<Vec<f64>>,
    /// Every output has K values of its own, which the fit chooses, and a weight is one of them
    #[arg(long, value_name = "K", conflicts_with_all = ["bits", "levels"])]
    pub palette: Option<usize>,
    /// Every input has one of K types, which the fit chooses, every output a level of the grid for each type, and a weight is
    /// its output's level for the input's type, or zero
    #[arg(long, value_name = "K", conflicts_with_all = ["palette", "bias_bits"])]
    pub types: Option<usize>,
    /// How residuals count: l2 (squared), l1 (sum of magnitudes) or chebyshev (the largest magnitude); the latter two
    /// need x and t
    #[arg(long, value_enum, default_value = "l2")]
    pub objective: Objective,
    /// Ridge in units of the mean of H's diagonal
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub ridge: f64,
    /// The outputs have no bias: x and t are not centred
    #[arg(long)]
    pub no_bias: bool,
    /// An output's bias is stored as an integer of so many bits times the output's scale, and the weights are fitted to
    /// it; otherwise biases are real numbers
    #[arg(long, value_name = "BITS", conflicts_with_all = ["no_bias", "palette"])]
    pub bias_bits: Option<u32>,
    /// rtn, feedback, descent, kbest, exact (grid), admm, gradient (bounds) or auto
    #[arg(long, default_value = "auto")]
    pub method: Method,
    /// Partial solutions that kbest keeps, 1 to 64
    #[arg(long, value_name = "K", default_value_t = Spec::default().paths)]
    pub paths: usize,
    /// Most nodes a row that --method exact looks at; rows that need more are left heuristic, with a bound
    #[arg(long, value_name = "N", default_value_t = Spec::default().nodes)]
    pub nodes: u64,
    /// Relative gap at which weights under bounds count as optimal
    #[arg(long, default_value_t = 1e-5)]
    pub tolerance: f64,
    /// What the solver works on: gram (sums over samples, n x n), samples (x itself, S x n: for fewer samples than
    /// inputs), or auto: samples where n is large and S smaller
    #[arg(long, value_enum, default_value = "auto")]
    pub form: Form,
    /// Have rows solved again by an independent interior point, with a table on standard error; exit code 1 if any
    /// disagrees
    #[arg(long)]
    pub check: bool,
    /// Rows that --check looks at
    #[arg(long, value_name = "K", default_value_t = 16)]
    pub rows: usize,
    /// auto, gpu, cpu, opengl or the number of a device; several with commas share the rows where they can (0:3,1)
    #[arg(long, default_value = "auto")]
    pub device: Choices,
    /// The result as a JSON line on standard output, as always
    #[arg(long)]
    pub json: bool,
}

/// Iterations of the fits by magnitude.
const MOST_ITERATIONS: usize = 50_000;

/// How residuals count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Objective {
    L2,
    L1,
    Chebyshev,
}

/// What the solver works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    Auto,
    Gram,
    Samples,
}

/// The JSON line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// sum_s ||W x_s + b - t_s||^2 (plus the ridge) of the stored weights; by magnitude with l1 and chebyshev.
    objective: f64,
    /// The same for round to nearest with max-abs scale; without a grid, for the clipped unconstrained solution.
    rtn_objective: f64,
    /// The same for continuous weights under the bounds.
    fit_objective: f64,
    /// Proven lower bound of `objective`.
    bound: f64,
    /// (objective - bound) / objective.
    gap: f64,
    /// The largest such gap of a single output.
    worst_gap: f64,
    status: Status,
    iterations: usize,
    seconds: f64,
    inputs: usize,
    outputs: usize,
    samples: Option<usize>,
    /// What was added to the diagonal of H (scaled to unit diagonal) to factor it.
    damping: f64,
    device: &'a str,
    note: Option<&'a str>,
    /// Rows that --check looked at, and how many of them disagreed.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disagreements: Option<usize>,
}

impl Args {
    /// Whether `samples` samples of `n` inputs are solved as they are.
    fn keeps_samples(&self, spec: &Spec, samples: usize, n: usize, bounded: bool) -> bool {
        let plain = self.objective == Objective::L2 && !self.check && self.bias_bits.is_none();
        match self.form {
            Form::Gram => false,
            Form::Samples => plain,
            Form::Auto => plain && !bounded && dual_pays(spec, n, samples),
        }
    }
}

/// # Errors
/// `Input`: an unreadable or inconsistent problem, wrong flags. `Work`: the device or the disk failed.
pub fn run(args: &Args) -> Result<()> {
    let team = Team::open(&args.device, None)?;
    if !(args.ridge >= 0.0 && args.ridge.is_finite()) {
        return Err(Error::input("--ridge", format!("{} is not a number >= 0", args.ridge)));
    }
    let grid = match (&args.levels, &args.bits) {
        (Some(levels), _) => Some(Grid::from_levels(levels.clone()).map_err(|e| Error::input("--levels", e.message))?),
        (None, bits) => bits.clone(),
    };
    let spec = Spec {
        lower: args.lower.map_or(Bounds::None, Bounds::Scalar),
        upper: args.upper.map_or(Bounds::None, Bounds::Scalar),
        grid,
        owner: args.bits_scale,
        signs: args.signs,
        palette: args.palette,
        types: args.types,
        power_of_two: args.scale_power_of_two,
        method: args.method,
        paths: args.paths,
        tolerance: args.tolerance,
        nodes: args.nodes,
        ..Spec::default()
    };
    let keep = |samples, n, bounded| args.keeps_samples(&spec, samples, n, bounded);
    let Input { data, means, samples, lower, upper } = input::read(&args.problem, !args.no_bias, &keep)?;
    let or = |flag: &Bounds, file: Bounds| if flag.is_none() { file } else { flag.clone() };
    let spec = Spec { lower: or(&spec.lower, lower), upper: or(&spec.upper, upper), ..spec };
    let mut problem = match data {
        Data::Sums(problem) => problem,
        Data::Samples(raw, prior) => {
            return by_samples(args, team.first(), &raw, prior.as_deref(), means.as_ref(), &spec);
        }
    };
    if args.form == Form::Samples {
        return Err(Error::input(
            "--form samples",
            "needs x and t, --objective l2, and neither --check nor --bias-bits",
        ));
    }
    problem.ridge = args.ridge;
    if args.objective != Objective::L2 {
        for (flag, set) in [("--ridge", args.ridge > 0.0), ("--bias-bits", args.bias_bits.is_some())] {
            if set {
                return Err(Error::input(flag, "is for --objective l2"));
            }
        }
        let raw = input::samples(&args.problem)?;
        // First-order iterations take long for what least squares gets by pivoting.
        let spec = Spec { max_iterations: MOST_ITERATIONS, ..spec };
        return absolute::run(args, team.first(), &raw, &spec);
    }
    if let Some(bits) = args.bias_bits {
        bias::check(bits, means.is_some(), spec.grid.is_some())?;
    }
    let begun = Instant::now();
    let within = |e: Error| e.within(args.problem.display());
    let solution = solve(&team, &problem, &spec).map_err(within)?;
    let stored = match (args.bias_bits, &means, samples) {
        (Some(bits), Some(means), Some(count)) => {
            Some(bias::store(&team, (&problem, &spec), &solution, (means, count), bits).map_err(within)?)
        }
        _ => None,
    };
    let (bias, bias_codes) = match &stored {
        Some(stored) => (stored.bias.clone(), Some(stored.codes.clone())),
        None => (means.as_ref().map_or(vec![0.0; problem.m], |means| bias::real(&solution, means)), None),
    };
    let (problem, spec, solution) = match stored {
        Some(Stored { problem, spec, solution, .. }) => (problem, spec, solution),
        None => (problem, spec, solution),
    };
    let seconds = begun.elapsed().as_secs_f64();
    // Sums over samples need a hair of damping at most; more shows an h that no samples have.
    if samples.is_none() && solution.damping > 1e-6 {
        let message =
            format!("is not positive semidefinite: its unit-diagonal form needs {:.0e} more", solution.damping);
        return Err(Error::input("h", message).within(args.problem.display()));
    }
    let checked = match args.check {
        true => Some(verify::check(&problem, &spec, &solution, &verify::sampled(problem.m, args.rows.max(1), 0))?),
        false => None,
    };
    let disagreements = checked.as_ref().map(|rows| rows.iter().filter(|r| !r.verdict.agrees()).count());
    if let Some(rows) = &checked {
        eprintln!("{}", super::check::table("output", rows.iter().map(|r| (r.row.to_string(), r))));
    }
    let checked = checked.map(|rows| rows.len());
    let outcome = Outcome { solution: &solution, bias, bias_codes, samples, seconds, checked };
    outcome.tell(args, &team.to_string(), (problem.n, problem.m), disagreements)
}

/// By the samples themselves: fewer of them than inputs.
fn by_samples(
    args: &Args,
    device: &Device,
    raw: &RawSamples,
    prior: Option<&[f64]>,
    means: Option<&Means>,
    spec: &Spec,
) -> Result<()> {
    let given = Samples { n: raw.n, m: raw.m, x: &raw.x, t: &raw.t, bias: !args.no_bias };
    let begun = Instant::now();
    let solution = solve_dual(device, &given, (prior, args.ridge), spec, &|| false)
        .map_err(|e| e.within(args.problem.display()))?;
    let seconds = begun.elapsed().as_secs_f64();
    let bias = means.map_or(vec![0.0; raw.m], |means| bias::real(&solution, means));
    let samples = Some(given.count());
    let outcome = Outcome { solution: &solution, bias, bias_codes: None, samples, seconds, checked: None };
    outcome.tell(args, &device.info().name, (raw.n, raw.m), None)
}

/// What there is to tell and to write.
struct Outcome<'a> {
    solution: &'a Solution,
    bias: Vec<f64>,
    bias_codes: Option<Vec<i32>>,
    samples: Option<usize>,
    seconds: f64,
    checked: Option<usize>,
}

impl Outcome<'_> {
    /// Writes the result file, if one is wanted, and the JSON line. Rows that disagree are an error.
    fn tell(self, args: &Args, device: &str, (n, m): (usize, usize), disagreements: Option<usize>) -> Result<()> {
        let Outcome { solution, bias, bias_codes, samples, seconds, checked } = self;
        if let Some(out) = &args.out {
            let found = Found {
                w: &solution.w,
                codes: solution.codes.as_deref(),
                signs: solution.signs.as_deref(),
                palette: solution.palette.as_deref(),
                types: solution.types.as_deref(),
                scale: &solution.scale,
                bias,
                bias_codes,
            };
            write(out, &found, n, m)?;
        }
        let total = |rows: &[f64]| rows.iter().sum::<f64>();
        let line = Line {
            objective: total(&solution.objective.grid),
            rtn_objective: total(&solution.objective.rtn),
            fit_objective: total(&solution.objective.fit),
            bound: total(&solution.objective.bound),
            gap: solution.gap,
            worst_gap: solution.worst_gap,
            status: solution.status,
            iterations: solution.iterations,
            seconds,
            inputs: n,
            outputs: m,
            samples,
            damping: solution.damping,
            device,
            note: solution.note.as_deref(),
            checked,
            disagreements,
        };
        let text = serde_json::to_string(&line).map_err(|e| Error::work("result", e.to_string()))?;
        println!("{text}");
        match disagreements {
            None | Some(0) => Ok(()),
            Some(n) => Err(Error::work(args.problem.display().to_string(), format!("{n} rows disagree"))),
        }
    }
}

/// What the result file holds.
struct Found<'a> {
    w: &'a [f64],
    codes: Option<&'a [i32]>,
    signs: Option<&'a [i8]>,
    /// m x K.
    palette: Option<&'a [f64]>,
    /// n.
    types: Option<&'a [u8]>,
    scale: &'a [f64],
    bias: Vec<f64>,
    bias_codes: Option<Vec<i32>>,
}

/// Writes the result beside its place first, so that a failure leaves no half of it.
fn write(out: &Path, found: &Found, n: usize, m: usize) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::work(out.display().to_string(), e.to_string());
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder).map_err(|e| failed(&e))?;
    let mut npz = NpzWriter::new(file.as_file());
    let matrix = Array2::from_shape_vec((m, n), found.w.to_vec()).map_err(|e| failed(&e))?;
    npz.add_array("w", &matrix).map_err(|e| failed(&e))?;
    npz.add_array("scale", &Array1::from(found.scale.to_vec())).map_err(|e| failed(&e))?;
    npz.add_array("bias", &Array1::from(found.bias.clone())).map_err(|e| failed(&e))?;
    if let Some(codes) = &found.bias_codes {
        npz.add_array("bias_codes", &Array1::from(codes.clone())).map_err(|e| failed(&e))?;
    }
    if let Some(codes) = found.codes {
        let codes = Array2::from_shape_vec((m, n), codes.to_vec()).map_err(|e| failed(&e))?;
        npz.add_array("codes", &codes).map_err(|e| failed(&e))?;
    }
    if let Some(signs) = found.signs {
        npz.add_array("signs", &Array1::from(signs.to_vec())).map_err(|e| failed(&e))?;
    }
    if let Some(palette) = found.palette {
        let palette =
            Array2::from_shape_vec((m, palette.len() / m.max(1)), palette.to_vec()).map_err(|e| failed(&e))?;
        npz.add_array("palette", &palette).map_err(|e| failed(&e))?;
    }
    if let Some(types) = found.types {
        npz.add_array("types", &Array1::from(types.to_vec())).map_err(|e| failed(&e))?;
    }
    npz.finish().map_err(|e| failed(&e))?;
    file.persist(out).map_err(|e| failed(&e))?;
    Ok(())
}
