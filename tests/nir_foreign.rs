//! Other tools' NIR graphs, run by `synfit simulate`: against straight-line code for each graph that reads the file's
//! parameters and steps the equations of NIR's own page; and graphs that the reference reader rejects.

mod common;

use std::path::Path;
use std::process::Command;

use hdf5_pure::File;
use ndarray::{Array, Array2, Dimension};
use ndarray_npy::{WritableElement, write_npy};

/// Runs `synfit simulate` on a graph; the outputs and the spikes of its layers, of all images.
fn simulate(graph: &Path, data: &Path, images: usize, more: &[&str]) -> (Array2<f32>, Vec<f64>) {
    let folder = tempfile::tempdir().unwrap();
    let outputs = folder.path().join("outputs.npy");
    let run = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["simulate", graph.to_str().unwrap(), "--data", data.to_str().unwrap(), "--json"])
        .args(["--outputs", outputs.to_str().unwrap()])
        .args(more)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let layers = report["layers"].as_array().unwrap();
    let spikes = layers.iter().map(|l| l["spikes_per_image"].as_f64().unwrap() * images as f64);
    (ndarray_npy::read_npy(&outputs).unwrap(), spikes.collect())
}

fn refused(graph: &Path, data: &Path, more: &[&str], words: &[&str]) {
    let run = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["simulate", graph.to_str().unwrap(), "--data", data.to_str().unwrap()])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!((run.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(words.iter().all(|w| said.contains(w)), "{words:?}: {said}");
}

fn saved<T: WritableElement, D: Dimension>(folder: &Path, data: &Array<T, D>) -> std::path::PathBuf {
    let path = folder.join("data.npy");
    write_npy(&path, data).unwrap();
    path
}

fn field(file: &File, node: &str, name: &str) -> Vec<f64> {
    let group = file.group(&format!("node/nodes/{node}")).unwrap();
    group.dataset(name).unwrap().read_f64().unwrap()
}

/// One leaky neuron of Norse: tau = 2.5 ms, threshold 0.1, reset to 0.
#[test]
fn a_leaky_neuron() {
    let Some(graph) = common::data("nir/lif_norse.nir") else { return };
    let folder = tempfile::tempdir().unwrap();
    let drives: Vec<f32> = (0..40).map(|i| i as f32 * 0.02 - 0.1).collect();
    let data = saved(folder.path(), &Array::from_shape_vec((40, 1), drives.clone()).unwrap());
    for (dt, steps) in [(1e-4, 300), (1e-3, 60)] {
        let flags = ["--dt", &dt.to_string(), "--steps", &steps.to_string()];
        let (outputs, spikes) = simulate(&graph, &data, 40, &flags);
        let mut all = 0.0;
        for (drive, output) in drives.iter().zip(&outputs) {
            // as the file has it, in f32
            let (tau, theta) = (f64::from(0.0025f32), f64::from(0.1f32));
            let (mut v, mut n) = (0.0, 0);
            for _ in 0..steps {
                v += dt / tau * (0.0 - v + f64::from(*drive));
                if v > theta {
                    v = 0.0;
                    n += 1;
                }
            }
            all += f64::from(n);
            assert!((f64::from(*output) - f64::from(n) / f64::from(steps)).abs() < 1e-6, "{drive}: {output}, {n}");
        }
        assert!((spikes[0] - all).abs() < 1e-6 && all > 100.0, "{spikes:?}, {all}");
    }
    refused(&graph, &data, &["--steps", "10"], &["node 1", "tau", "0.0025", "--dt"]);
    refused(&graph, &data, &["--steps", "10", "--dt", "0.01"], &["node 1", "tau", "below the time step"]);
    refused(&graph, &data, &["--dt", "0.001"], &["--steps"]);
}

/// A recurrent network of snnTorch, reset by subtraction, on random spike trains. Recurrent spikes come a step late.
#[test]
fn a_recurrent_network() {
    let Some(graph) = common::data("nir/braille_noDelay_noBias_subtract.nir") else { return };
    let file = File::open(&graph).unwrap();
    let (images, steps, dt) = (6usize, 120usize, 1e-4);
    let mut rng = fastrand::Rng::with_seed(5);
    let trains: Vec<u8> = (0..images * steps * 12).map(|_| u8::from(rng.f32() < 0.3)).collect();
    let folder = tempfile::tempdir().unwrap();
    let data = saved(folder.path(), &Array::from_shape_vec((images, steps, 12), trains.clone()).unwrap());
    let weights = ["fc1", "lif1.w_rec", "fc2"].map(|node| field(&file, node, "weight"));
    let lif = |node: &str| ["tau_syn", "tau_mem", "r", "w_in", "v_threshold"].map(|name| field(&file, node, name));
    let neurons = [lif("lif1.lif"), lif("lif2")];
    let product = |w: &[f64], x: &[f64]| -> Vec<f64> {
        w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    for subtract in [true, false] {
        let fire = |[tau_syn, tau_mem, r, w_in, theta]: &[Vec<f64>; 5], x: &[f64], state: &mut Vec<(f64, f64)>| {
            let one = |(k, (x, (i, v))): (usize, (&f64, &mut (f64, f64)))| {
                *i += dt / tau_syn[k] * (w_in[k] * x - *i);
                *v += dt / tau_mem[k] * (r[k] * *i - *v);
                if *v <= theta[k] {
                    return 0.0;
                }
                *v = if subtract { *v - theta[k] } else { 0.0 };
                1.0
            };
            x.iter().zip(state.iter_mut()).enumerate().map(one).collect::<Vec<f64>>()
        };
        let flags: &[&str] = if subtract { &["--reset", "subtract"] } else { &[] };
        let (outputs, spikes) =
            simulate(&graph, &data, images, &[flags, &["--trains", "--dt", &dt.to_string()]].concat());
        let mut sums = [0.0, 0.0];
        for image in 0..images {
            let (mut first, mut second) = (vec![(0.0, 0.0); 40], vec![(0.0, 0.0); 7]);
            let (mut fired, mut counts) = (vec![0.0; 40], vec![0.0; 7]);
            for t in 0..steps {
                let x: Vec<f64> = trains[(image * steps + t) * 12..][..12].iter().map(|v| f64::from(*v)).collect();
                let back = product(&weights[1], &fired);
                let current: Vec<f64> = product(&weights[0], &x).iter().zip(&back).map(|(a, b)| a + b).collect();
                fired = fire(&neurons[0], &current, &mut first);
                let out = fire(&neurons[1], &product(&weights[2], &fired), &mut second);
                sums[0] += fired.iter().sum::<f64>();
                sums[1] += out.iter().sum::<f64>();
                counts.iter_mut().zip(out).for_each(|(n, s)| *n += s);
            }
            for (k, n) in counts.iter().enumerate() {
                assert!((f64::from(outputs[[image, k]]) - n / steps as f64).abs() < 1e-6, "image {image}, output {k}");
            }
        }
        assert!(spikes.iter().zip(sums).all(|(a, b)| (a - b).abs() < 1e-6), "{spikes:?}, {sums:?}");
        assert!(sums[0] > 30.0 && sums[1] > 30.0, "hardly a spike: {sums:?}");
    }
    refused(&graph, &data, &["--dt", "0.0001", "--steps", "9"], &["data.npy", "12"]);
}

/// A convolutional network of sinabs: every layer by plain loops.
#[test]
fn a_convolutional_network() {
    let Some(graph) = common::data("nir/cnn_sinabs.nir") else { return };
    let file = File::open(&graph).unwrap();
    let (images, steps, len) = (2usize, 12usize, 2 * 34 * 34);
    let mut rng = fastrand::Rng::with_seed(3);
    let trains: Vec<f32> = (0..images * steps * len).map(|_| f32::from(u8::from(rng.f32() < 0.25)) * 2.0).collect();
    let folder = tempfile::tempdir().unwrap();
    let data = saved(folder.path(), &Array::from_shape_vec((images, steps, 2, 34, 34), trains.clone()).unwrap());
    let (outputs, spikes) = simulate(&graph, &data, images, &["--trains", "--reset", "subtract"]);

    let conv = |node: &str, x: &[f64], (cin, size): (usize, usize), (cout, k, stride): (usize, usize, usize)| {
        let (w, bias, out) = (field(&file, node, "weight"), field(&file, node, "bias"), (size + 2 - k) / stride + 1);
        let mut y = Vec::new();
        for (o, b) in bias.iter().enumerate().take(cout) {
            for at in 0..out * out {
                let mut sum = *b;
                for (c, i, j) in (0..cin * k * k).map(|n| (n / (k * k), n / k % k, n % k)) {
                    let (row, column) = (at / out * stride + i, at % out * stride + j);
                    if (1..=size).contains(&row) && (1..=size).contains(&column) {
                        sum += w[((o * cin + c) * k + i) * k + j] * x[(c * size + row - 1) * size + column - 1];
                    }
                }
                y.push(sum);
            }
        }
        y
    };
    let pool = |x: &[f64], size: usize| -> Vec<f64> {
        let half = size / 2;
        let at = |n: usize| (n / (half * half) * size + n / half % half * 2) * size + n % half * 2;
        (0..x.len() / 4).map(at).map(|p| x[p] + x[p + 1] + x[p + size] + x[p + size + 1]).collect()
    };
    let dense = |node: &str, x: &[f64]| -> Vec<f64> {
        let (w, bias) = (field(&file, node, "weight"), field(&file, node, "bias"));
        let rows = w.chunks_exact(x.len()).zip(bias);
        rows.map(|(row, b)| b + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()).collect()
    };
    let theta = ["1", "3", "6", "10", "12"].map(|node| field(&file, node, "v_threshold"));
    let mut sums = [0.0; 5];
    for image in 0..images {
        let mut v: Vec<Vec<f64>> = theta.iter().map(|t| vec![0.0; t.len()]).collect();
        let mut counts = [0.0; 10];
        for t in 0..steps {
            let mut fire = |layer: usize, x: &[f64]| -> Vec<f64> {
                let one = |((v, x), theta): ((&mut f64, &f64), &f64)| {
                    *v += x;
                    let fires = *v > *theta;
                    *v -= if fires { *theta } else { 0.0 };
                    f64::from(u8::from(fires))
                };
                let out: Vec<f64> = v[layer].iter_mut().zip(x).zip(&theta[layer]).map(one).collect();
                sums[layer] += out.iter().sum::<f64>();
                out
            };
            let x: Vec<f64> = trains[(image * steps + t) * len..][..len].iter().map(|v| f64::from(*v)).collect();
            let x = fire(0, &conv("0", &x, (2, 34), (16, 5, 2)));
            let x = pool(&fire(1, &conv("2", &x, (16, 16), (16, 3, 1))), 16);
            let x = pool(&fire(2, &conv("5", &x, (16, 8), (8, 3, 1))), 8);
            let x = fire(3, &dense("9", &x));
            let x = fire(4, &dense("11", &x));
            counts.iter_mut().zip(x).for_each(|(n, s)| *n += s);
        }
        for (k, n) in counts.iter().enumerate() {
            assert!((f64::from(outputs[[image, k]]) - n / steps as f64).abs() < 1e-6, "image {image}, output {k}");
        }
    }
    // layers by their nodes' names, in the order of the graph
    let mut all = spikes.clone();
    all.sort_by(f64::total_cmp);
    sums.sort_by(f64::total_cmp);
    assert!(all.iter().zip(sums).all(|(a, b)| (a - b).abs() < 1e-6), "{all:?}, {sums:?}");
    assert!(sums.iter().all(|s| *s > 0.0), "{sums:?}");
}

/// What the reference reader rejects is rejected, with the node.
#[test]
fn sizes_that_do_not_fit() {
    let Some(graph) = common::data("nir/lif_rockpool.nir") else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = saved(folder.path(), &Array::from_shape_vec((3, 1), vec![0.5f32; 3]).unwrap());
    let words = ["lif_rockpool.nir", "node output", "[1, 1, 1]", "1_LIFNeuronTorch"];
    refused(&graph, &data, &["--steps", "10", "--dt", "0.0001"], &words);
}
