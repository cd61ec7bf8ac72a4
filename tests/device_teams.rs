//! Devices that share one job (a software GPU and the CPU will do): sums over spike counts that are exact whoever adds them,
//! rows that are each device's own, and what is done on the host where a device has no room.

mod common;
#[path = "common/fit.rs"]
mod layers;

use std::sync::Mutex;

use common::{both, devices, integers, local, reals};
use synfit::chip::Chip;
use synfit::compute::gram::{self, Moments, PatchSpec, Sums};
use synfit::compute::{Device, Team};
use synfit::convert::{self, Conversion, Finished, Images, LayerRecord, Options, Response, Silent, Targets, Watch};
use synfit::error::Result;
use synfit::fit::{Bounds, Method, Problem, Solution, Spec, solve, solve_with};
use synfit::network::{self, Block, ChannelOrder, Dataset, Layout, Network, Node, Op, Shape, Window};
use synfit::network::{Activation, Head};
use synfit::spiking::{SpikingNetwork, SpikingOp};

fn team(devices: &[(&Device, u32)]) -> Team {
    Team::of(devices.iter().map(|(dev, share)| ((*dev).clone(), *share)).collect()).unwrap()
}

fn digits() -> (Network, Images) {
    let network = network::read(&local("configs/digits/digits_cnn.onnx")).unwrap();
    let path = local("configs/digits/train_images.npy");
    let data = Dataset::open(&path, network.input_shape(), Layout::Nchw, ChannelOrder::Rgb).unwrap().first(83).unwrap();
    (network, Images { data, scale: vec![0.0625], shift: vec![0.0] })
}

/// The layers' problems as they are solved, and the layers as they are finished.
#[derive(Default)]
struct Seen {
    problems: Mutex<Vec<(String, Problem)>>,
    finished: Mutex<Vec<Finished>>,
    stages: Mutex<Vec<String>>,
}

impl Watch for Seen {
    fn stage(&self, name: &str, _: u64) {
        self.stages.lock().unwrap().push(name.into());
    }
    fn tick(&self) {}
    fn cancelled(&self) -> bool {
        false
    }
    fn solved(&self, layer: &str, problem: &Problem, _: &Spec, _: &Solution) -> Result<()> {
        self.problems.lock().unwrap().push((layer.into(), problem.clone()));
        Ok(())
    }
    fn finished(&self, net: &SpikingNetwork, record: &LayerRecord) -> Result<()> {
        let node = net.nodes.last().unwrap().clone();
        self.finished.lock().unwrap().push(Finished { node, record: record.clone() });
        Ok(())
    }
}

#[test]
fn sums_over_counts_are_the_same_bit_for_bit_whoever_adds_them() {
    let (network, images) = digits();
    let options = common::options(Chip::load("generic8").unwrap());
    let convert = |on: &Team, done: Vec<Finished>, seen: &Seen| -> Conversion {
        let folder = tempfile::tempdir().unwrap();
        convert::resume(on, &network, &images, &options, folder.path(), seen, done).unwrap()
    };
    let all = devices();
    let alone = Seen::default();
    convert(&team(&[(&all[1], 1)]), vec![], &alone);
    let finished = alone.finished.lock().unwrap().clone();
    // every other adapter, OpenGL's where there is one, beside the CPU
    let mut teams = vec![team(&[(&all[0], 1), (&all[1], 1)]), team(&[(&all[1], 3), (&all[0], 1), (&all[2], 2)])];
    teams.extend(all.get(3).map(|gl| team(&[(gl, 1), (&all[1], 2)])));
    for on in teams {
        // with the layers before it from the CPU every layer sees the same counts
        for done in 0..finished.len() {
            let seen = Seen::default();
            convert(&on, finished[..done].to_vec(), &seen);
            let (own, other) = (seen.problems.lock().unwrap(), alone.problems.lock().unwrap());
            let (layer, problem) = own.first().unwrap();
            let (_, expected) = other.iter().find(|(name, _)| name == layer).unwrap();
            assert!(problem.h == expected.h, "{on}: another H in {layer}");
            let far = problem.b.iter().zip(&expected.b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let largest = expected.b.iter().fold(0.0f64, |most, b| most.max(b.abs()));
            assert!(far <= 1e-5 * largest, "{on}: B of {layer} is {far} off");
        }
    }
}

/// What the layers' rates and errors are told to be hangs on sums over all devices' images.
#[test]
fn finished_layers_are_taken_by_any_team_and_tell_the_same() {
    let (network, images) = digits();
    let options = common::options(Chip::load("generic8").unwrap());
    let [gpu, cpu] = both();
    let folder = tempfile::tempdir().unwrap();
    let alone = Seen::default();
    convert::convert(cpu, &network, &images, &options, folder.path(), &alone).unwrap();
    let done = alone.finished.lock().unwrap().clone();
    // a layer whose spikes were not those of its record would be refused
    let all =
        convert::resume(team(&[(gpu, 1), (cpu, 1)]), &network, &images, &options, folder.path(), &Silent, done.clone());
    assert_eq!(all.unwrap().spiking.nodes.len(), network.nodes.len());
    let mut wrong = done;
    wrong[0].record.rate = wrong[0].record.rate.map(|rate| rate + 1e-9);
    let refused =
        convert::resume(team(&[(gpu, 1), (cpu, 1)]), &network, &images, &options, folder.path(), &Silent, wrong);
    assert!(refused.err().unwrap().message.contains("does not give the spikes"));
}

/// Passes of every kind: over response-aware targets, through the inverse response, with analytic responses.
#[test]
fn every_way_to_convert_comes_to_nearly_the_same_on_a_team() {
    let (network, images) = digits();
    let [gpu, cpu] = both();
    let base = Options { method: Method::Auto, ..common::options(Chip::load("float").unwrap()) };
    let mut refractory = base.clone();
    refractory.chip.neuron.refractory = 1;
    let ways = [
        Options { targets: Targets::Response, ..base.clone() },
        Options { response: Response::Analytic, ..base },
        refractory,
    ];
    for options in &ways {
        let folder = tempfile::tempdir().unwrap();
        let convert = |on: &Team| convert::convert(on, &network, &images, options, folder.path(), &Silent).unwrap();
        let (shared, alone) = (convert(&team(&[(gpu, 1), (cpu, 2)])), convert(&Team::from(cpu)));
        for (s, a) in shared.layers.iter().zip(&alone.layers) {
            for (s, a) in [(Some(s.error.fit), Some(a.error.fit)), (s.response_error, a.response_error)] {
                let (s, a) = (s.unwrap_or(0.0), a.unwrap_or(0.0));
                assert!((s - a).abs() <= 0.02 * a + 1e-7, "{:?} {:?}: {s} and {a}", options.targets, options.response);
            }
        }
    }
}

#[test]
fn removals_cost_the_same_whoever_surveys() {
    let (network, images) = digits();
    let [gpu, cpu] = both();
    let options = common::options(Chip::load("generic8").unwrap());
    let sweep = |on: &Team| convert::sweep(on, &network, &images, &options, &[], &Silent).unwrap();
    let (shared, alone) = (sweep(&team(&[(cpu, 1), (gpu, 1)])), sweep(&Team::from(cpu)));
    assert_eq!(shared.len(), alone.len());
    for (s, a) in shared.iter().zip(&alone) {
        assert_eq!((&s.layer, s.removals.len()), (&a.layer, a.removals.len()));
        let last = a.removals.last().unwrap().cost;
        for (s, a) in s.removals.iter().zip(&a.removals) {
            assert!((s.cost - a.cost).abs() <= 1e-4 * last, "{s:?} and {a:?} of {last}");
        }
    }
}

fn problem(seed: u64, n: usize, m: usize) -> Problem {
    Problem::from_sums(layers::random(seed, 4 * n, n, m).sums()).unwrap()
}

#[test]
fn rows_of_a_grid_are_each_devices_own() {
    let (n, m) = (96, 64);
    let p = problem(7, n, m);
    let [gpu, cpu] = both();
    for (bits, method, palette) in
        [("8", "descent", None), ("3", "kbest", None), ("8", "feedback", None), ("8", "auto", Some(4))]
    {
        let grid = palette.is_none().then(|| bits.parse().unwrap());
        let spec = Spec { grid, palette, method: method.parse().unwrap(), ..Spec::default() };
        let [on_gpu, on_cpu] = [gpu, cpu].map(|dev| solve(dev, &p, &spec).unwrap());
        let shared = team(&[(gpu, 1), (cpu, 3)]);
        let [split, again] = [(); 2].map(|()| solve(&shared, &p, &spec).unwrap());
        assert_eq!(split.codes, again.codes, "{method}");
        // the CPU's rows are those that it finds alone
        let own = m / 4;
        let rows = |s: &Solution, rows: std::ops::Range<usize>| {
            (s.w[rows.start * n..rows.end * n].to_vec(), s.scale[rows].to_vec())
        };
        assert!(rows(&split, own..m) == rows(&on_cpu, own..m), "{method}: the CPU's rows");
        let total = |s: &Solution| s.objective.grid.iter().sum::<f64>();
        let worst = total(&on_gpu).max(total(&on_cpu));
        assert!(total(&split) <= 1.02 * worst, "{method}: {} shared, {worst} alone", total(&split));
    }
    assert!(team(&[(gpu, 1), (cpu, 1)]).accounts().iter().all(|a| a.seconds == 0.0));
}

#[test]
fn a_scale_of_the_layer_is_found_by_all_devices_together() {
    let p = problem(3, 80, 96);
    let [gpu, cpu] = both();
    let spec = Spec { grid: Some("4".parse().unwrap()), owner: synfit::chip::ScaleOwner::Layer, ..Spec::default() };
    let shared = team(&[(gpu, 1), (cpu, 1)]);
    let split = solve(&shared, &p, &spec).unwrap();
    assert!(split.scale.iter().all(|s| *s == split.scale[0]));
    let alone = solve(cpu, &p, &spec).unwrap();
    let total = |s: &Solution| s.objective.grid.iter().sum::<f64>();
    assert!(total(&split) <= 1.02 * total(&alone), "{} and {}", total(&split), total(&alone));
    assert!(shared.accounts().iter().all(|a| a.seconds > 0.0), "a device had nothing to do");
}

#[test]
fn rows_of_a_box_reach_their_optimum_on_each_device() {
    let (n, m) = (96, 64);
    let p = problem(11, n, m);
    let [gpu, cpu] = both();
    for method in ["admm", "auto"] {
        let spec = Spec {
            lower: Bounds::Scalar(-0.5),
            upper: Bounds::Scalar(0.5),
            method: method.parse().unwrap(),
            ..Spec::default()
        };
        let shared = team(&[(gpu, 1), (cpu, 1)]);
        let (split, alone) = (solve(&shared, &p, &spec).unwrap(), solve(cpu, &p, &spec).unwrap());
        assert!(shared.accounts().iter().all(|a| a.seconds > 0.0), "{method}: a device had nothing to do");
        assert_eq!(split.status, alone.status, "{method}");
        let touched = split.w.iter().filter(|w| w.abs() == 0.5).count();
        assert!(touched > m, "{method}: {touched} weights at their bounds");
        for (o, (a, b)) in split.objective.fit.iter().zip(&alone.objective.fit).enumerate() {
            assert!((a - b).abs() <= 2.0 * spec.tolerance * b, "{method}, row {o}: {a} and {b}");
        }
    }
}

#[test]
fn a_failure_or_an_interrupt_of_one_is_the_teams() {
    let [gpu, cpu] = both();
    let shared = team(&[(gpu, 1), (cpu, 1)]);
    let p = problem(5, 96, 64);
    let spec = Spec { grid: Some("3".parse().unwrap()), ..Spec::default() };
    let stopped = solve_with(&shared, &p, &spec, &|| true).unwrap_err();
    assert_eq!(stopped.kind, synfit::error::Kind::Interrupted);
}

fn moments(dev: &Device, images: usize) -> Sums {
    let (input, output) = (Shape::new(6, 9, 7), Shape::new(5, 9, 7));
    let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
    let block = PatchSpec { input, window, groups: 1 };
    let x: Vec<f32> = integers(1, images * input.len(), 0, 15).into_iter().map(|v| v as f32).collect();
    let (x, z) = (dev.upload(&x).unwrap(), dev.upload(&reals(2, images * output.len())).unwrap());
    let mut moments = Moments::new(dev, &[block], output, 1).unwrap().counts(15);
    moments.add(images, &[&x], &z).unwrap();
    assert_eq!(gram::fits(dev, &[block], output, 1), dev.budget().is_none());
    moments.finish().unwrap()
}

#[test]
fn what_has_no_room_on_a_device_is_done_on_the_host() {
    let [gpu, cpu] = both();
    // room for the images, not for the sums
    let small = gpu.with_budget(Some(70_000));
    assert_eq!((small.room(), gpu.room(), cpu.with_budget(Some(5)).room()), (70_000, u64::MAX, u64::MAX));
    assert!(moments(&small, 20) == moments(cpu, 20), "the host adds otherwise");
    assert!(moments(gpu, 20).b != moments(cpu, 20).b, "the GPU's sums are no different, the test says nothing");
    // rounding likewise
    let p = problem(9, 96, 64);
    let spec = Spec { grid: Some("4".parse().unwrap()), ..Spec::default() };
    let none = gpu.with_budget(Some(50_000));
    assert_eq!(solve(&none, &p, &spec).unwrap().codes, solve(cpu, &p, &spec).unwrap().codes);
    assert_eq!(none.peak_bytes(), 0);
    let enough = gpu.with_budget(Some(256 << 20));
    solve(&enough, &p, &spec).unwrap();
    // real GPUs are given larger problems
    assert!(enough.peak_bytes() > 50_000 || gpu.info().kind != "software");
}

#[test]
fn memory_that_cannot_do_is_told_before_any_work() {
    let (network, images) = digits();
    let [gpu, cpu] = both();
    let folder = tempfile::tempdir().unwrap();
    let options = common::options(Chip::load("generic8").unwrap());
    let refused = |on: &Team, options: &Options| -> String {
        let seen = Seen::default();
        let error = convert::convert(on, &network, &images, options, folder.path(), &seen).err().unwrap();
        assert_eq!(*seen.stages.lock().unwrap(), Vec::<String>::new());
        error.to_string()
    };
    let told = refused(&team(&[(cpu, 1), (&gpu.with_budget(Some(5000)), 1)]), &options);
    assert!(told.starts_with("memory: device: the parameters"), "{told}");
    // less than this process holds already
    let told = refused(&Team::from(cpu), &Options { host_bytes: Some(1 << 20), ..options.clone() });
    assert!(told.starts_with("layer ") && told.contains("where 0.0 GiB are free"), "{told}");
}

/// What a layer will ask for is known before the layers that it reads are converted.
#[test]
fn every_layer_is_asked_for_its_own_inputs() {
    let (network, images) = digits();
    let folder = tempfile::tempdir().unwrap();
    let convert = |options: &Options, done: Vec<Finished>, seen: &Seen| {
        convert::resume(&Device::cpu(), &network, &images, options, folder.path(), seen, done)
    };
    for rectified in [1, 2] {
        let mut options = common::options(Chip::load("generic8").unwrap());
        options.population.rectified = rectified;
        let seen = Seen::default();
        convert(&options, vec![], &seen).unwrap();
        let finished = seen.finished.into_inner().unwrap();
        // a method that fits from samples do not have, so that no layer may do without its Gram matrix
        let options = Options { method: Method::Kbest, host_bytes: Some(1 << 20), ..options };
        for (done, layer) in finished.iter().enumerate() {
            let told = convert(&options, finished[..done].to_vec(), &Seen::default()).err().unwrap().to_string();
            let (name, inputs) = (&layer.record.name, layer.record.inputs);
            let begins = format!("layer {name}: the Gram matrix of its {inputs} inputs");
            assert!(told.starts_with(&begins), "{rectified} neurons a unit: {told}");
        }
    }
}

/// 2040 inputs and 3 outputs.
fn wide() -> Network {
    let inputs = Shape::new(2040, 1, 1);
    let outputs = Shape::new(3, 1, 1);
    let weight = reals(4, 3 * 2040);
    let block = Block { source: 0, window: Window::POINT, groups: 1, weight };
    let node = |name: &str, shape, op| Node { name: name.into(), shape, op };
    let op = Op::Neurons { blocks: vec![block], bias: vec![0.0; 3], activation: Activation::Linear };
    Network {
        name: "wide".into(),
        nodes: vec![node("input", inputs, Op::Input), node("out", outputs, op)],
        output: 1,
        head: Head::None,
        layout: Layout::Nchw,
        input_scale: vec![1.0; 2040],
        input_shift: vec![0.0; 2040],
    }
}

#[test]
fn a_gram_matrix_beyond_the_hosts_budget_is_done_without() {
    let network = wide();
    let data = Dataset::uniform(network.input_shape(), 30, &[-1.0], &[1.0], 3).unwrap();
    let images = Images { data, scale: vec![1.0], shift: vec![0.0] };
    let folder = tempfile::tempdir().unwrap();
    let options = Options { steps: 4, ..common::options(Chip::load("generic8").unwrap()) };
    let [gpu, cpu] = both();
    // problems are told of, fits from samples are not
    let problems = |on: &Team, host_bytes: Option<u64>| {
        let (seen, options) = (Seen::default(), Options { host_bytes, ..options.clone() });
        let done = convert::convert(on, &network, &images, &options, folder.path(), &seen).unwrap();
        assert!(matches!(done.spiking.nodes[1].op, SpikingOp::Neurons(_)));
        (seen.problems.into_inner().unwrap().len(), done.layers[0].error.grid)
    };
    let (gram, error) = problems(&Team::from(cpu), None);
    assert_eq!(gram, 1);
    // its Gram matrix and what it is solved with take 6 x 8 x 2040^2 bytes
    let budget = Some(6 * 8 * 2040 * 2040 - 1);
    for on in [Team::from(cpu), team(&[(gpu, 2), (cpu, 1)])] {
        let (gram, other) = problems(&on, budget);
        assert_eq!(gram, 0, "{on}");
        assert!(other <= 1.5 * error + 1e-6, "{other} by samples, {error} by the Gram matrix");
    }
}
