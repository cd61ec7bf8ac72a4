//! `synfit solve`: what it reads, what it writes, what it refuses.

use std::fs::File;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use ndarray::{Array1, Array2, array};
use ndarray_npy::{NpzReader, NpzWriter};

/// Runs the binary: its exit code, standard output and standard error.
fn solve(file: &Path, flags: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("synfit").unwrap();
    let done = command.arg("solve").arg(file).args(["--device", "cpu"]).args(flags).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

/// The JSON line of a solve that must succeed.
fn solved(file: &Path, flags: &[&str]) -> serde_json::Value {
    let (code, out, err) = solve(file, flags);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 1, "{out}");
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    for key in ["objective", "rtn_objective", "bound", "gap", "iterations", "seconds"] {
        assert!(line[key].is_number(), "{key} in {out}");
    }
    assert!(line["status"].is_string());
    line
}

fn file(folder: &tempfile::TempDir, write: impl FnOnce(&mut NpzWriter<File>)) -> PathBuf {
    let path = folder.path().join("problem.npz");
    let mut npz = NpzWriter::new(File::create(&path).unwrap());
    write(&mut npz);
    npz.finish().unwrap();
    path
}

/// x (30 x 3) in f32 with a constant column, t = x W^T + b.
fn samples() -> (Array2<f32>, Array2<f64>) {
    let x = Array2::from_shape_fn((30, 3), |(s, i)| if i == 1 { 4.0 } else { ((s * (3 + 2 * i)) % 11) as f32 * 0.1 });
    let t = Array2::from_shape_fn((30, 2), |(s, o)| {
        let (a, b) = (f64::from(x[[s, 0]]), f64::from(x[[s, 2]]));
        if o == 0 { 0.5 * a - 0.25 * b + 3.0 } else { -a + 2.0 }
    });
    (x, t)
}

#[test]
fn samples_in_weights_and_bias_out() {
    let folder = tempfile::tempdir().unwrap();
    let (x, t) = samples();
    let path = file(&folder, |npz| {
        npz.add_array("x", &x).unwrap();
        npz.add_array("t", &t).unwrap();
    });
    let out = folder.path().join("w.npz");
    let line = solved(&path, &["--out", out.to_str().unwrap(), "--json"]);
    assert_eq!(line["status"], "optimal");
    assert!(line["objective"].as_f64().unwrap() < 1e-9);
    let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
    let w: Array2<f64> = npz.by_name("w").unwrap();
    let bias: Array1<f64> = npz.by_name("bias").unwrap();
    let scale: Array1<f64> = npz.by_name("scale").unwrap();
    assert!((&w - &array![[0.5, 0.0, -0.25], [-1.0, 0.0, 0.0]]).iter().all(|d| d.abs() < 1e-9), "{w}");
    assert!((&bias - &array![3.0, 2.0]).iter().all(|d| d.abs() < 1e-9), "{bias}");
    assert_eq!(scale, array![1.0, 1.0]);
    assert!(npz.by_name::<ndarray::OwnedRepr<i32>, ndarray::Ix2>("codes").is_err());
    // nothing but the result lies in its folder
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

    let boxed = ["--out", out.to_str().unwrap(), "--bits", "4", "--lower", "-0.6", "--upper", "0.6"];
    let line = solved(&path, &[&boxed[..], &["--method", "descent"]].concat());
    assert_eq!(line["status"], "heuristic");
    // rows as short as these are proven by the way
    let line = solved(&path, &boxed);
    assert_eq!(line["status"], "optimal");
    let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
    let (w, scale): (Array2<f64>, Array1<f64>) = (npz.by_name("w").unwrap(), npz.by_name("scale").unwrap());
    let codes: Array2<i32> = npz.by_name("codes").unwrap();
    assert!(w.iter().all(|w| w.abs() <= 0.6 + 1e-9) && codes.iter().all(|c| (-8..=7).contains(c)));
    assert!(w.indexed_iter().all(|((o, i), w)| *w == scale[o] * f64::from(codes[[o, i]])));
}

/// Stored biases: integers times the scale; the weights make up for what rounding and clamping them leaves.
#[test]
fn biases_in_integers() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    let x = Array2::from_shape_fn((200, 12), |_| rng.f64());
    let weights = Array2::from_shape_fn((4, 12), |_| 2.0 * rng.f64() - 1.0);
    // the last output's bias is beyond what 8 bits of its scale hold
    let given = array![0.3, -0.7, 0.11, 60.0];
    let t = x.dot(&weights.t()) + &given;
    let path = file(&folder, |npz| {
        npz.add_array("x", &x).unwrap();
        npz.add_array("t", &t).unwrap();
    });
    let out = folder.path().join("w.npz");
    let line = solved(&path, &["--bits", "6", "--bias-bits", "8", "--check", "--out", out.to_str().unwrap()]);
    assert_eq!(line["disagreements"], 0);
    let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
    let (w, scale): (Array2<f64>, Array1<f64>) = (npz.by_name("w").unwrap(), npz.by_name("scale").unwrap());
    let (bias, codes): (Array1<f64>, Array1<i32>) = (npz.by_name("bias").unwrap(), npz.by_name("bias_codes").unwrap());
    assert!(bias.iter().zip(&codes).zip(&scale).all(|((b, c), s)| *b == f64::from(*c) * s));
    assert!(codes.iter().all(|c| (-128..=127).contains(c)) && codes[3] == 127, "{codes}");
    // the objective is that of what is stored
    let error = |w: &Array2<f64>| ((x.dot(&w.t()) + &bias - &t).mapv(|v| v * v)).sum_axis(ndarray::Axis(0));
    let (errors, objective) = (error(&w), line["objective"].as_f64().unwrap());
    assert!((errors.sum() - objective).abs() <= 1e-6 * objective, "{errors} for {objective}");
    // fitted to the best bias and then given the stored one, weights are worse, by much where it was clamped
    solved(&path, &["--bits", "6", "--out", out.to_str().unwrap()]);
    let free: Array2<f64> = NpzReader::new(File::open(&out).unwrap()).unwrap().by_name("w").unwrap();
    let rounded = error(&free);
    assert!(errors.sum() < 0.9 * rounded.sum() && errors[0] <= rounded[0] * 1.000001, "{errors} for {rounded}");

    for (flags, word) in [
        (&["--bias-bits", "8"][..], "needs a grid"),
        (&["--bits", "4", "--bias-bits", "40"], "outside 2..=31"),
        (&["--bits", "4", "--bias-bits", "8", "--objective", "l1"], "l2"),
    ] {
        let (code, _, err) = solve(&path, flags);
        assert!(code == 2 && err.contains("--bias-bits") && err.contains(word), "{err}");
    }
}

#[test]
fn gram_matrices_levels_and_owners() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, |npz| {
        npz.add_array("h", &array![[2.0, 0.5], [0.5, 1.0]]).unwrap();
        npz.add_array("b", &array![[1.0, -0.5], [0.25, 2.0]]).unwrap();
        npz.add_array("upper", &array![0.3, 5.0]).unwrap();
    });
    for flags in [
        &["--levels", "-1,-0.5,0,0.25,1"][..],
        &["--bits", "1.58", "--bits-scale", "layer", "--method", "feedback"],
        &["--ridge", "0.1", "--method", "gradient"],
        &["--bits", "sym4", "--scale-power-of-two"],
    ] {
        let line = solved(&path, flags);
        assert!(line["bound"].as_f64().unwrap() <= line["objective"].as_f64().unwrap());
    }
}

/// Signs by input: an array of them, and codes that are magnitudes.
#[test]
fn signs_by_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, |npz| {
        npz.add_array("h", &array![[2.0, 0.5], [0.5, 1.0]]).unwrap();
        npz.add_array("b", &array![[1.0, -0.5], [0.75, -2.0]]).unwrap();
    });
    let out = folder.path().join("w.npz");
    for flags in [&["--signs", "input", "--check"][..], &["--signs", "input", "--bits", "u4", "--check"]] {
        let line = solved(&path, &[flags, &["--out", out.to_str().unwrap()]].concat());
        assert_eq!(line["disagreements"], 0);
        let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
        let (signs, w): (Array1<i8>, Array2<f64>) = (npz.by_name("signs").unwrap(), npz.by_name("w").unwrap());
        assert_eq!(signs, array![1, -1]);
        assert!(w.indexed_iter().all(|((_, i), w)| w * f64::from(signs[i]) >= 0.0));
        if flags.len() > 3 {
            let (codes, scale): (Array2<i32>, Array1<f64>) =
                (npz.by_name("codes").unwrap(), npz.by_name("scale").unwrap());
            assert!(codes.iter().all(|c| (0..16).contains(c)));
            assert!(
                w.indexed_iter().all(|((o, i), w)| *w == f64::from(signs[i]) * scale[o] * f64::from(codes[[o, i]]))
            );
        }
    }
}

/// Palettes: an array of values, and codes that are positions in it.
#[test]
fn palettes() {
    let folder = tempfile::tempdir().unwrap();
    let (x, t) = samples();
    let path = file(&folder, |npz| {
        npz.add_array("x", &x).unwrap();
        npz.add_array("t", &t).unwrap();
    });
    let out = folder.path().join("w.npz");
    solved(&path, &["--palette", "2", "--check", "--out", out.to_str().unwrap()]);
    let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
    let (w, palette): (Array2<f64>, Array2<f64>) = (npz.by_name("w").unwrap(), npz.by_name("palette").unwrap());
    let codes: Array2<i32> = npz.by_name("codes").unwrap();
    assert_eq!(palette.dim(), (2, 2));
    assert!(w.indexed_iter().all(|((o, i), w)| *w == palette[[o, codes[[o, i]] as usize]]));
}

/// Types: one an input; an output's codes are one number for each type, or zero.
#[test]
fn types() {
    let folder = tempfile::tempdir().unwrap();
    let (x, t) = samples();
    let path = file(&folder, |npz| {
        npz.add_array("x", &x).unwrap();
        npz.add_array("t", &t).unwrap();
    });
    let out = folder.path().join("w.npz");
    solved(&path, &["--types", "2", "--bits", "9", "--out", out.to_str().unwrap()]);
    let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
    let (w, codes): (Array2<f64>, Array2<i32>) = (npz.by_name("w").unwrap(), npz.by_name("codes").unwrap());
    let (scale, types): (Array1<f64>, Array1<u8>) = (npz.by_name("scale").unwrap(), npz.by_name("types").unwrap());
    assert_eq!(types.len(), w.dim().1);
    let mut levels = vec![[None; 2]; w.dim().0];
    for ((o, i), q) in codes.indexed_iter().filter(|(_, q)| **q != 0) {
        assert_eq!(*levels[o][usize::from(types[i])].get_or_insert(*q), *q);
        assert_eq!(w[[o, i]], f64::from(*q) * scale[o]);
    }
    assert!(codes.iter().any(|q| *q != 0));
}

#[test]
fn bad_files_are_refused_in_one_line_that_names_the_array() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path, flags: &[&str], words: &[&str]| {
        let (code, out, text) = solve(path, flags);
        assert_eq!((code, out.as_str()), (2, ""), "{text}");
        assert!(text.trim_end().lines().count() == 1 && text.contains("problem.npz"), "{text}");
        words.iter().for_each(|w| assert!(text.contains(w), "`{w}` is not in: {text}"));
    };
    let path = folder.path().join("problem.npz");
    refused(&path, &[], &["No such file"]);
    std::fs::write(&path, b"not a zip").unwrap();
    refused(&path, &[], &["not an .npz"]);

    let (x, t) = samples();
    type Write<'a> = Box<dyn Fn(&mut NpzWriter<File>) + 'a>;
    let with = |x: Array2<f32>, t: Array2<f64>| -> Write<'_> {
        Box::new(move |npz| {
            npz.add_array("x", &x).unwrap();
            npz.add_array("t", &t).unwrap();
        })
    };
    let mut nan = x.clone();
    nan[[3, 1]] = f32::NAN;
    let gram = |h: Array2<f64>| -> Write<'_> {
        Box::new(move |npz| {
            npz.add_array("h", &h).unwrap();
            npz.add_array("b", &array![[1.0, 2.0]]).unwrap();
        })
    };
    let bounded = |lower: Array1<f64>, upper: Array1<f64>| -> Write<'_> {
        Box::new(move |npz| {
            npz.add_array("h", &array![[1.0, 0.0], [0.0, 1.0]]).unwrap();
            npz.add_array("b", &array![[1.0, 2.0]]).unwrap();
            npz.add_array("lower", &lower).unwrap();
            npz.add_array("upper", &upper).unwrap();
        })
    };
    let cases: Vec<(Write<'_>, &[&str])> = vec![
        (Box::new(|npz| npz.add_array("x", &x).unwrap()), &["needs x and t"]),
        (with(nan, t.clone()), &["x", "NaN"]),
        (with(x.clone(), Array2::zeros((29, 2))), &["t", "29", "30"]),
        (with(Array2::zeros((0, 3)), Array2::zeros((0, 2))), &["x", "empty"]),
        (gram(array![[1.0, 0.5, 0.0], [0.5, 1.0, 0.0]]), &["h", "shape"]),
        (gram(array![[1.0, 0.5], [0.2, 1.0]]), &["h", "symmetric"]),
        (gram(array![[1.0, 3.0], [3.0, 1.0]]), &["h", "semidefinite"]),
        (gram(array![[1.0, 0.0], [0.0, -1.0]]), &["h", "semidefinite"]),
        (bounded(array![2.0], array![1.0]), &["lower", "upper"]),
        (bounded(array![2.0, 3.0, 4.0], array![1.0]), &["lower", "shape"]),
    ];
    for (write, words) in cases {
        refused(&file(&folder, write), &[], words);
    }
}

#[test]
fn bad_flags_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (x, t) = samples();
    let path = file(&folder, |npz| {
        npz.add_array("x", &x).unwrap();
        npz.add_array("t", &t).unwrap();
    });
    for bad in [
        &["--bits", "17"][..],
        &["--bits", "x"],
        &["--bits-scale", "core"],
        &["--method", "magic"],
        &["--bits", "4", "--levels", "1,2"],
        &["--levels", "1,x"],
        &["--levels", "nan"],
        &["--ridge", "-1"],
        &["--method", "descent"],
        &["--tolerance", "0"],
        &["--scale-power-of-two"],
        &["--signs", "row"],
        &["--palette", "0"],
        &["--palette", "4", "--bits", "4"],
        &["--palette", "4", "--bits-scale", "layer"],
        &["--palette", "4", "--scale-power-of-two"],
        &["--palette", "4", "--objective", "chebyshev"],
        &["--types", "4"],
        &["--types", "0", "--bits", "9"],
        &["--types", "4", "--bits", "u4"],
        &["--types", "4", "--palette", "4"],
        &["--types", "4", "--bits", "9", "--lower", "-1"],
        &["--types", "4", "--bits", "9", "--objective", "l1"],
        &["--signs", "input", "--bits", "4"],
        &["--signs", "input", "--levels", "-1,0,1"],
        &["--signs", "input", "--objective", "l1"],
    ] {
        let (code, out, err) = solve(&path, bad);
        assert_eq!((code, out.as_str()), (2, ""), "{bad:?}: {err}");
    }
}
