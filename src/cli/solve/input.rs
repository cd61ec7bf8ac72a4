//! The problem file of `solve`: which arrays it may hold, and what is wrong with them.

use std::fs::File;
use std::path::Path;

use ndarray::{Array2, ArrayD, Axis};
use ndarray_npy::{NpzReader, ReadNpzError, ReadableElement};

use crate::compute::solver::dense;
use crate::error::{Error, Result};
use crate::fit::{Bounds, Problem, Sums};

/// Samples that are turned to f64 at a time.
const BLOCK: usize = 512;

/// A layer problem from a file, with what it takes to get a bias back.
pub struct Input {
    pub data: Data,
    /// From `h` and `b` nothing is known of the means.
    pub means: Option<Means>,
    pub samples: Option<usize>,
    pub lower: Bounds,
    pub upper: Bounds,
}

/// What the solver is to work on.
pub enum Data {
    Sums(Problem),
    /// The samples themselves, and what the ridge pulls towards (m x n).
    Samples(RawSamples, Option<Vec<f64>>),
}

/// Means over samples.
pub struct Means {
    /// n
    pub x: Vec<f64>,
    /// m
    pub t: Vec<f64>,
}

/// Numbers as the file holds them: f32 stays f32, so that a large `x` is not held twice as large.
enum Numbers {
    Single(ArrayD<f32>),
    Double(ArrayD<f64>),
}

impl Numbers {
    fn shape(&self) -> &[usize] {
        match self {
            Numbers::Single(a) => a.shape(),
            Numbers::Double(a) => a.shape(),
        }
    }

    /// Rows from .. to of a matrix, in f64, row-major.
    fn rows(&self, from: usize, to: usize) -> Vec<f64> {
        let slice = ndarray::Slice::from(from..to);
        match self {
            Numbers::Single(a) => a.slice_axis(Axis(0), slice).iter().map(|v| f64::from(*v)).collect(),
            Numbers::Double(a) => a.slice_axis(Axis(0), slice).iter().copied().collect(),
        }
    }

    fn all(&self) -> Vec<f64> {
        match self {
            Numbers::Single(a) => a.iter().map(|v| f64::from(*v)).collect(),
            Numbers::Double(a) => a.iter().copied().collect(),
        }
    }

    fn finite(&self) -> bool {
        match self {
            Numbers::Single(a) => a.iter().all(|v| v.is_finite()),
            Numbers::Double(a) => a.iter().all(|v| v.is_finite()),
        }
    }
}

/// Reads a problem: `x` (S x n) and `t` (S x m), or `h` (n x n) and `b` (m x n); optional `lower`, `upper` (scalar, m or
/// m x n), `w` (m x n: what the ridge pulls towards), and with `h` also `tt` (m: the targets' sums of squares).
/// `bias`: whether the outputs have one, so that x and t are centred. `keep` is asked whether samples (their number,
/// the inputs', whether the file has bounds) are to be kept as they are.
///
/// # Errors
/// `Input`, naming the file and the array: unreadable, missing, of a wrong shape, NaN or infinity, h not symmetric.
pub fn read(path: &Path, bias: bool, keep: &dyn Fn(usize, usize, bool) -> bool) -> Result<Input> {
    read_named(path, bias, keep).map_err(|e| e.within(path.display()))
}

fn read_named(path: &Path, bias: bool, keep: &dyn Fn(usize, usize, bool) -> bool) -> Result<Input> {
    let file = File::open(path).map_err(|e| Error::input("", e.to_string()))?;
    let mut npz = NpzReader::new(file).map_err(|e| Error::input("", format!("is not an .npz file: {e}")))?;
    let names: Vec<String> = npz
        .names()
        .map_err(|e| Error::input("", e.to_string()))?
        .iter()
        .map(|n| n.strip_suffix(".npy").unwrap_or(n).to_string())
        .collect();
    let mut get = |name: &str| -> Result<Option<Numbers>> {
        if names.iter().any(|n| n == name) { numbers(&mut npz, name).map(Some) } else { Ok(None) }
    };
    let mut input = match (get("x")?, get("t")?, get("h")?, get("b")?) {
        (Some(x), Some(t), _, _) => {
            let bounded = names.iter().any(|n| n == "lower" || n == "upper");
            from_samples(&x, &t, bias, &|samples, n| keep(samples, n, bounded))?
        }
        (None, None, Some(h), Some(b)) => {
            let tt = get("tt")?;
            from_gram(&h, &b, tt.as_ref())?
        }
        _ => {
            let has = if names.is_empty() { "nothing".to_string() } else { names.join(", ") };
            return Err(Error::input("", format!("holds {has}; needs x and t, or h and b")));
        }
    };
    let (n, m) = match &input.data {
        Data::Sums(problem) => (problem.n, problem.m),
        Data::Samples(raw, _) => (raw.n, raw.m),
    };
    if let Some(w) = get("w")? {
        expect("w", w.shape(), &[m, n])?;
        finite("w", &w)?;
        match &mut input.data {
            Data::Sums(Problem { prior, .. }) | Data::Samples(_, prior) => *prior = Some(w.all()),
        }
    }
    for (name, side) in [("lower", &mut input.lower), ("upper", &mut input.upper)] {
        if let Some(bound) = get(name)? {
            *side = bounds(name, &bound, m, n)?;
        }
    }
    Ok(input)
}

/// The samples themselves, in f64.
pub struct RawSamples {
    pub n: usize,
    pub m: usize,
    /// S x n and S x m.
    pub x: Vec<f64>,
    pub t: Vec<f64>,
}

/// Reads `x` and `t` of a problem that `read` has found sound.
///
/// # Errors
/// `Input`: the file has sums only.
pub fn samples(path: &Path) -> Result<RawSamples> {
    let named = |message: String| Error::input("", message).within(path.display());
    let file = File::open(path).map_err(|e| named(e.to_string()))?;
    let mut npz = NpzReader::new(file).map_err(|e| named(format!("is not an .npz file: {e}")))?;
    let needs = |_| named("holds sums only; l1 and chebyshev need x and t".into());
    let x = numbers(&mut npz, "x").map_err(needs)?;
    let t = numbers(&mut npz, "t").map_err(needs)?;
    let (count, n) = two_dimensional("x", &x)?;
    Ok(RawSamples { n, m: t.all().len() / count, x: x.all(), t: t.all() })
}

fn numbers(npz: &mut NpzReader<File>, name: &str) -> Result<Numbers> {
    fn typed<T: ReadableElement>(
        npz: &mut NpzReader<File>,
        name: &str,
    ) -> std::result::Result<ArrayD<T>, ReadNpzError> {
        npz.by_name(name)
    }
    let wrong = |e: ReadNpzError| Error::input(name, e.to_string());
    let other_type = |e: &ReadNpzError| {
        matches!(e, ReadNpzError::Npy(ndarray_npy::ReadNpyError::WrongDescriptor(_))) //
    };
    match typed::<f32>(npz, name) {
        Ok(a) => return Ok(Numbers::Single(a)),
        Err(e) if !other_type(&e) => return Err(wrong(e)),
        Err(_) => {}
    }
    match typed::<f64>(npz, name) {
        Ok(a) => return Ok(Numbers::Double(a)),
        Err(e) if !other_type(&e) => return Err(wrong(e)),
        Err(_) => {}
    }
    // integers: rates are often spike counts
    macro_rules! integer {
        ($($t:ty),*) => {
            $(if let Ok(a) = typed::<$t>(npz, name) {
                return Ok(Numbers::Double(a.mapv(|v| v as f64)));
            })*
        };
    }
    integer!(u8, i8, u16, i16, u32, i32, i64, u64);
    Err(Error::input(name, "holds neither integers nor f32 nor f64"))
}

fn expect(name: &str, has: &[usize], want: &[usize]) -> Result<()> {
    if has == want { Ok(()) } else { Err(Error::input(name, format!("has shape {has:?} where {want:?} is needed"))) }
}

fn finite(name: &str, values: &Numbers) -> Result<()> {
    if values.finite() { Ok(()) } else { Err(Error::input(name, "holds NaN or infinity")) }
}

fn two_dimensional(name: &str, values: &Numbers) -> Result<(usize, usize)> {
    match *values.shape() {
        [rows, columns] if rows > 0 && columns > 0 => Ok((rows, columns)),
        ref other => Err(Error::input(name, format!("has shape {other:?}; a matrix that is not empty is needed"))),
    }
}

fn from_samples(x: &Numbers, t: &Numbers, bias: bool, keep: &dyn Fn(usize, usize) -> bool) -> Result<Input> {
    let (samples, n) = two_dimensional("x", x)?;
    // one output may come as a vector
    let m = match t.shape() {
        [s] if *s == samples => 1,
        _ => two_dimensional("t", t)?.1,
    };
    if t.shape()[0] != samples {
        return Err(Error::input("t", format!("has {} rows where x has {samples}", t.shape()[0])));
    }
    finite("x", x)?;
    finite("t", t)?;
    let of = |data, means| Input { data, means, samples: Some(samples), lower: Bounds::None, upper: Bounds::None };
    if keep(samples, n) {
        let raw = RawSamples { n, m, x: x.all(), t: t.all() };
        let mean = |rows: &[f64], width: usize| -> Vec<f64> {
            (0..width).map(|j| rows.iter().skip(j).step_by(width).sum::<f64>() / samples as f64).collect()
        };
        let means = bias.then(|| Means { x: mean(&raw.x, n), t: mean(&raw.t, m) });
        return Ok(of(Data::Samples(raw, None), means));
    }
    // Sums are taken about the first sample: what varies little keeps its digits, and what is constant sums to nothing.
    let origin = |a: &Numbers, width: usize| if bias { a.rows(0, 1) } else { vec![0.0; width] };
    let (x0, t0) = (origin(x, n), origin(t, m));
    let (mut h, mut b) = (vec![0.0; n * n], vec![0.0; m * n]);
    let (mut sx, mut st, mut tt) = (vec![0.0; n], vec![0.0; m], vec![0.0; m]);
    for from in (0..samples).step_by(BLOCK) {
        let to = samples.min(from + BLOCK);
        let (mut xs, mut ts) = (x.rows(from, to), t.rows(from, to));
        shift_and_sum(&mut xs, &x0, &mut sx);
        shift_and_sum(&mut ts, &t0, &mut st);
        ts.iter().enumerate().for_each(|(at, v)| tt[at % m] += v * v);
        dense::add_outer(&mut h, 1.0, &xs, &xs, (to - from, n, n));
        dense::add_outer(&mut b, 1.0, &ts, &xs, (to - from, m, n));
    }
    let count = samples as f64;
    let sums = Sums { h: &h, b: &b, x: &sx, t: &st, tt: &tt, count };
    let problem = if bias { Problem::from_sums(sums)? } else { Problem::from_sums_without_bias(sums)? };
    let mean = |sum: &[f64], origin: &[f64]| sum.iter().zip(origin).map(|(s, o)| s / count + o).collect();
    let means = bias.then(|| Means { x: mean(&sx, &x0), t: mean(&st, &t0) });
    Ok(of(Data::Sums(problem), means))
}

fn shift_and_sum(values: &mut [f64], origin: &[f64], sum: &mut [f64]) {
    for row in values.chunks_exact_mut(origin.len()) {
        for ((v, o), s) in row.iter_mut().zip(origin).zip(sum.iter_mut()) {
            *v -= o;
            *s += *v;
        }
    }
}

fn from_gram(h: &Numbers, b: &Numbers, tt: Option<&Numbers>) -> Result<Input> {
    let (n, columns) = two_dimensional("h", h)?;
    expect("h", &[n, columns], &[n, n])?;
    let (m, inputs) = two_dimensional("b", b)?;
    expect("b", &[m, inputs], &[m, n])?;
    finite("h", h)?;
    finite("b", b)?;
    let square = Array2::from_shape_vec((n, n), h.all()).map_err(|e| Error::input("h", e.to_string()))?;
    let largest = square.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    for ((i, j), v) in square.indexed_iter() {
        if (v - square[[j, i]]).abs() > 1e-5 * largest {
            let message = format!("is not symmetric: {v} at ({i}, {j}), {} at ({j}, {i})", square[[j, i]]);
            return Err(Error::input("h", message));
        }
    }
    if let Some((i, v)) = square.diag().iter().enumerate().find(|(_, v)| **v < -1e-9 * largest) {
        return Err(Error::input("h", format!("is not positive semidefinite: {v} on its diagonal at {i}")));
    }
    let mut problem = Problem::from_gram(n, m, square.into_raw_vec_and_offset().0, b.all())?;
    if let Some(tt) = tt {
        expect("tt", tt.shape(), &[m])?;
        finite("tt", tt)?;
        problem.tt = Some(tt.all());
    }
    Ok(Input { data: Data::Sums(problem), means: None, samples: None, lower: Bounds::None, upper: Bounds::None })
}

fn bounds(name: &str, values: &Numbers, m: usize, n: usize) -> Result<Bounds> {
    let all = values.all();
    match *values.shape() {
        [] | [1] => Ok(Bounds::Scalar(all[0])),
        [rows] if rows == m => Ok(Bounds::Row(all)),
        [rows, columns] if (rows, columns) == (m, n) => Ok(Bounds::Element(all)),
        ref other => Err(Error::input(name, format!("has shape {other:?}; one value, [{m}] or [{m}, {n}] is needed"))),
    }
}
