//! What `convert` refuses, before any work: exit code 2, one line that names the file or field, nothing written.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ndarray::{Array1, Array4};
use ndarray_npy::write_npy;
use tempfile::TempDir;

/// A folder of inputs, good and bad.
struct Inputs {
    folder: TempDir,
}

impl Inputs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("results")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name).display().to_string()
    }

    fn images<T: ndarray_npy::WritableElement + Clone>(&self, name: &str, shape: [usize; 4], value: T) -> String {
        write_npy(self.path(name), &Array4::from_elem(shape, value)).unwrap();
        self.path(name).display().to_string()
    }

    fn labels(&self, name: &str, labels: Vec<i64>) -> String {
        write_npy(self.path(name), &Array1::from(labels)).unwrap();
        self.path(name).display().to_string()
    }

    /// `convert` on the digits with some flags changed: must be refused with a line that holds all `words`.
    fn refused(&self, changed: &[(&str, &str)], words: &[&str]) {
        let digits = |name: &str| format!("{}/configs/digits/{name}", env!("CARGO_MANIFEST_DIR"));
        let out = self.path("results/out").display().to_string();
        let mut flags = vec![
            ("--model", digits("digits_cnn.onnx")),
            ("--calibration", digits("train_images.npy")),
            ("--test", digits("test_images.npy")),
            ("--labels", digits("test_labels.npy")),
            ("--scale", "0.0625".into()),
            ("--device", "cpu".into()),
            // The work would take minutes: what is refused in seconds was refused before it.
            ("--steps", "2000".into()),
            ("--out", out),
        ];
        for &(flag, value) in changed {
            flags.retain(|(f, _)| *f != flag);
            flags.push((flag, value.to_string()));
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
        command.arg("convert");
        for (flag, value) in &flags {
            match *flag {
                "JOB" => command.arg(value),
                flag => command.arg(format!("{flag}={value}")),
            };
        }
        let before = everything(self.folder.path());
        let start = Instant::now();
        let done = command.output().unwrap();
        let (out, err) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
        assert_eq!((done.status.code(), out.as_str()), (Some(2), ""), "{changed:?}: {err}");
        assert!(err.starts_with("error: ") && err.lines().count() == 1, "{changed:?}: {err}");
        words.iter().for_each(|w| assert!(err.contains(w), "{changed:?}: `{w}` is not in: {err}"));
        assert_eq!(everything(self.folder.path()), before, "{changed:?}: something was written or removed");
        assert!(start.elapsed() < Duration::from_secs(10), "{changed:?}: refused after work");
    }
}

/// An .npy file of complex numbers.
fn complex(shape: [usize; 4]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '<c8', 'fortran_order': False, 'shape': {shape:?}, }}").replace(['[', ']'], "|");
    header = header.replacen('|', "(", 1).replacen('|', ")", 1);
    header.push_str(&" ".repeat((117 - header.len() % 64) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + 8 * shape.iter().product::<usize>(), 0);
    bytes
}

/// All files below a folder.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .flat_map(|p| if p.is_dir() { [vec![p.clone()], everything(&p)].concat() } else { vec![p] })
        .collect();
    all.sort();
    all
}

#[test]
fn models() {
    let inputs = Inputs::new();
    inputs.refused(&[("--model", "none.onnx")], &["none.onnx"]);
    for (name, bytes) in [("text.onnx", &b"hello, this is no model"[..]), ("empty.onnx", b""), ("zero.onnx", &[0; 999])]
    {
        inputs.refused(&[("--model", &inputs.bytes(name, bytes))], &[name]);
    }
    let whole = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/digits/digits_cnn.onnx")).unwrap();
    inputs.refused(&[("--model", &inputs.bytes("half.onnx", &whole[..whole.len() / 2]))], &["half.onnx"]);
    inputs.refused(&[("--model", &inputs.path("").display().to_string())], &[]);
}

#[test]
fn calibration_and_test_data() {
    let inputs = Inputs::new();
    for flag in ["--calibration", "--test"] {
        inputs.refused(&[(flag, "none.npy")], &["none.npy"]);
        inputs.refused(&[(flag, &inputs.bytes("text.npy", b"hello"))], &["text.npy"]);
        inputs.refused(&[(flag, &inputs.images("shape.npy", [10, 1, 9, 9], 1u8))], &["shape.npy", "9"]);
        inputs.refused(&[(flag, &inputs.images("channels.npy", [10, 3, 8, 8], 1f32))], &["channels.npy", "3"]);
        inputs.refused(&[(flag, &inputs.bytes("dtype.npy", &complex([10, 1, 8, 8])))], &["dtype.npy", "<c8"]);
        inputs.refused(&[(flag, &inputs.images("none.npy", [0, 1, 8, 8], 1u8))], &["none.npy"]);
        inputs.refused(&[(flag, &inputs.images("nan.npy", [10, 1, 8, 8], f32::NAN))], &["nan.npy", "NaN"]);
        inputs.refused(&[(flag, &inputs.images("inf.npy", [10, 1, 8, 8], f64::INFINITY))], &["inf.npy"]);
    }
    std::fs::create_dir_all(inputs.path("folder")).unwrap();
    let folder = inputs.path("folder").display().to_string();
    inputs.refused(&[("--calibration", &folder)], &["folder"]);
    inputs.bytes("folder/notes.txt", b"no picture");
    inputs.refused(&[("--calibration", &folder)], &["folder"]);
    inputs.bytes("folder/broken.png", b"no picture");
    inputs.refused(&[("--calibration", &folder)], &["broken.png"]);
    for bad in ["uniform:", "uniform:1..0", "uniform:nan..1", "uniform:0..1,0..1"] {
        inputs.refused(&[("--calibration", bad)], &["uniform"]);
    }
}

#[test]
fn labels() {
    let inputs = Inputs::new();
    inputs.refused(&[("--labels", "none.npy")], &["none.npy"]);
    inputs.refused(&[("--labels", &inputs.labels("few.npy", vec![1, 2, 3]))], &["few.npy", "3", "500"]);
    inputs.refused(&[("--labels", &inputs.labels("ten.npy", vec![10; 500]))], &["10"]);
    inputs.refused(&[("--labels", &inputs.labels("negative.npy", vec![-1; 500]))], &["-1"]);
}

#[test]
fn values_of_keys() {
    let inputs = Inputs::new();
    for (flag, value) in [
        ("--chip", "potato"),
        ("--neuron", "magic"),
        ("--bits", "99"),
        ("--bits", "x"),
        ("--bits-scale", "core"),
        ("--schedule", "someday"),
        ("--response", "guessed"),
        ("--method", "magic"),
        ("--decision", "median"),
        ("--device", "abacus"),
        ("--layout", "hcnw"),
        ("--channels", "grb"),
        ("--steps", "0"),
        ("--steps", "1000000"),
        ("--population", "1"),
        ("--ridge", "-1"),
        ("--ridge", "inf"),
    ] {
        inputs.refused(&[(flag, value)], &[flag.trim_start_matches('-'), value]);
    }
    inputs.refused(&[("--images", "0")], &["images"]);
    inputs.refused(&[("--test-every", "0")], &[]);
    inputs.refused(&[("--mean", "0.1,0.2,0.3")], &["mean", "3"]);
    inputs.refused(&[("--std", "0")], &["std"]);
    inputs.refused(&[("--scale", "inf")], &["scale"]);
    inputs.refused(&[("--schedule", "layered"), ("--neuron", "lif")], &["layered"]);
    let chip = inputs.bytes("odd.toml", b"name = \"odd\"\nspeed = 3\n[neuron]\nreset = \"zero\"\n");
    inputs.refused(&[("--chip", &chip)], &["odd.toml", "speed"]);
}

#[test]
fn job_files() {
    let inputs = Inputs::new();
    inputs.refused(&[("JOB", "none.toml")], &["none.toml"]);
    for (text, word) in [
        ("colour = 3", "colour"),
        ("steps = \"many\"", "steps"),
        ("steps = 16\nsteps = 17", "steps"),
        ("][", "job.toml"),
        ("neuron = \"magic\"", "magic"),
    ] {
        inputs.refused(&[("JOB", &inputs.bytes("job.toml", text.as_bytes()))], &[word]);
    }
}

#[test]
fn places_for_the_result() {
    let inputs = Inputs::new();
    std::fs::create_dir(inputs.path("results/mine")).unwrap();
    inputs.bytes("results/mine/thesis.txt", b"precious");
    let mine = inputs.path("results/mine").display().to_string();
    inputs.refused(&[("--out", &mine)], &["mine"]);
    let file = inputs.bytes("results/file", b"precious");
    inputs.refused(&[("--out", &file)], &["results/file"]);
    inputs.refused(&[("--out", &format!("{file}/below"))], &["results/file"]);
    assert_eq!(std::fs::read(inputs.path("results/mine/thesis.txt")).unwrap(), b"precious");
}

#[test]
fn flags_that_cannot_be_are_told_in_one_line() {
    for (args, words) in [
        (&["convert", "--steps", "-1", "--out", "x"][..], "--steps"),
        (&["convert", "--stepz", "3"], "similar argument exists: '--steps'"),
        (&["convert", "--model", "m"], "--out"),
        (&["convert", "--memory", "0", "--out", "x"], "no size"),
        (&["prune"], "<DIR>"),
        (&["transmute"], "transmute"),
    ] {
        let done = Command::new(env!("CARGO_BIN_EXE_synfit")).args(args).output().unwrap();
        let text = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), text.lines().count(), done.stdout.len()), (Some(2), 1, 0), "{args:?}: {text}");
        assert!(text.starts_with("error: ") && text.contains(words), "{args:?}: {text}");
    }
}
