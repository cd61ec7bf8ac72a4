//! The simulation against a naive one on random networks with every kind of node: spike trains, synaptic operations and
//! outputs, on both devices, integers bit for bit.

mod common;
#[path = "common/naive.rs"]
mod naive;
#[path = "common/spiking.rs"]
mod spiking;

use common::both;
use naive::{each_synapse, naive};
use spiking::{Recipe, images, network};
use synfit::compute::Device;
use synfit::neuron::{Model, Reset};
use synfit::spiking::simulate::{Activity, Output, Runner, Simulation, encode};
use synfit::spiking::{Layer, Schedule, SpikingNetwork, SpikingOp, State, Weights};

const BATCH: usize = 3;
/// Random networks of each test.
const NETWORKS: u64 = 40;
const WIDE: (i32, i32) = (-i32::MAX, i32::MAX);

fn recipe(seed: u64, model: Model) -> Recipe {
    let steps = [1, 2, 5, 8, 13][(seed % 5) as usize];
    Recipe { seed, model, schedule: Schedule::Streaming, steps, potential: WIDE, settle: 0, real: false }
}

/// All nodes' trains `[steps][images][shape]` on `dev`, node by node; none for a readout.
fn trains(dev: &Device, net: &SpikingNetwork, raw: &[f32]) -> Vec<(usize, Vec<i32>)> {
    let mut all = vec![encode(dev, net, raw, BATCH).unwrap()];
    for node in 1..net.nodes.len() {
        let runner = Runner::new(dev, net, node).unwrap();
        let inputs: Vec<_> = runner.sources().iter().map(|&s| &all[s]).collect();
        match runner.run(dev, BATCH, &inputs).unwrap() {
            Output::Trains(trains) => all.push(trains),
            Output::Values(_) => assert_eq!(node, net.output),
        }
    }
    all.iter().map(|t| (t.steps, dev.download(&*t.counts(dev).unwrap()).unwrap())).collect()
}

/// Simulates on both devices and naively; all must be the same. Gives the spikes and the neuron steps.
fn check(recipe: &Recipe) -> (u64, u64) {
    let net = network(recipe);
    let raw = images(&net, BATCH, recipe.seed);
    let runs: Vec<_> = raw.chunks(net.nodes[0].shape.len()).map(|image| naive(&net, image)).collect();
    let firing = |node: usize| net.nodes[node].firing().is_some();
    let spikes: Vec<u64> = (0..net.nodes.len())
        .map(|n| if firing(n) { runs.iter().flat_map(|r| r.counts[n].iter().flatten()).sum::<i64>() as u64 } else { 0 })
        .collect();
    let operations: Vec<u64> = (0..net.nodes.len()).map(|n| runs.iter().map(|r| r.operations[n]).sum()).collect();
    for dev in both() {
        for (node, (steps, got)) in trains(dev, &net, &raw).into_iter().enumerate() {
            // One step stands for the first of all alike, or (layered) for the sum of all.
            let layered = net.schedule == Schedule::Layered && !net.nodes[node].constant;
            let of_step = |image: usize, t: usize| -> Vec<i64> {
                let counts = &runs[image].counts[node];
                let last = if layered { counts.len() } else { t + 1 };
                (0..counts[t].len()).map(|i| counts[t..last].iter().map(|s| s[i]).sum()).collect()
            };
            let want: Vec<i32> = (0..steps)
                .flat_map(|t| (0..BATCH).flat_map(move |image| of_step(image, t)))
                .map(|n| n as i32)
                .collect();
            assert!(got == want, "{recipe:?}: node {node} on {}:\n{:?}", dev.info().name, net.nodes[node]);
        }
        let mut activity = Activity::default();
        let values = Simulation::new(dev, &net).unwrap().run(dev, BATCH, &raw, &mut activity).unwrap();
        assert_eq!(activity.spikes, spikes, "{recipe:?}: spikes");
        assert_eq!(activity.synaptic_operations, operations, "{recipe:?}: synaptic operations");
        let output = &net.nodes[net.output];
        for (run, values) in runs.iter().zip(values.chunks(output.decode.channels)) {
            let rate = |i: usize| match firing(net.output) {
                true => run.counts[net.output].iter().map(|s| s[i]).sum::<i64>() as f64 / f64::from(net.steps),
                false => run.potential[i] as f64,
            };
            let d = &output.decode;
            let from = |c: usize| (0..5).filter(move |&i| d.origin[i] == c as u32 || d.origin[i] == u32::MAX);
            let want: Vec<f64> =
                (0..3).map(|c| d.base[c] + from(c).map(|i| d.gain[i] * rate(i)).sum::<f64>()).collect();
            for (&got, want) in values.iter().zip(want) {
                // Rates are rounded to f32 on their way; potentials are whole numbers.
                let near = if firing(net.output) { 1e-5 } else { 0.0 };
                assert!((f64::from(got) - want).abs() <= near, "{recipe:?}: output {got}, want {want}");
            }
        }
    }
    let neurons: u64 = (0..net.nodes.len()).filter(|&n| firing(n)).map(|n| net.nodes[n].shape.len() as u64).sum();
    (spikes.iter().sum(), neurons * u64::from(net.steps) * BATCH as u64)
}

/// Checks many networks; the neurons must be neither silent nor always on.
fn check_all(recipes: impl Iterator<Item = Recipe>) {
    let (spikes, chances) = recipes.map(|r| check(&r)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let rate = spikes as f64 / chances as f64;
    assert!((0.05..3.0).contains(&rate), "mean rate {rate}");
}

#[test]
fn integrate_and_fire() {
    check_all((0..NETWORKS).map(|s| recipe(s, Model { strict: s % 2 == 1, ..Model::IF })));
}

#[test]
fn reset_to_zero_and_refractory() {
    check_all((100..100 + NETWORKS).map(|s| {
        let reset = if s % 2 == 0 { Reset::Zero } else { Reset::Subtract };
        recipe(s, Model { reset, refractory: (s % 3) as u32, strict: s % 4 < 2, ..Model::IF })
    }));
}

#[test]
fn several_spikes_a_step() {
    check_all(
        (200..200 + NETWORKS)
            .map(|s| recipe(s, Model { max_spikes: 2 + (s % 7) as u32, strict: s % 2 == 0, ..Model::IF })),
    );
}

#[test]
fn clipped_potentials() {
    check_all((300..300 + NETWORKS).map(|s| Recipe {
        potential: (-40, 60),
        ..recipe(s, Model { max_spikes: 1 + (s % 3) as u32, strict: s % 2 == 0, ..Model::IF })
    }));
}

#[test]
fn settling() {
    check_all((600..600 + NETWORKS).map(|s| Recipe {
        settle: 1 + (s % 9) as u32,
        potential: if s % 3 == 0 { (-40, 60) } else { WIDE },
        ..recipe(s, Model { max_spikes: 1 + (s % 2) as u32, strict: s % 4 < 2, ..Model::IF })
    }));
}

#[test]
fn layered() {
    check_all((400..400 + NETWORKS).map(|s| Recipe {
        schedule: Schedule::Layered,
        ..recipe(s, Model { max_spikes: 1 + (s % 3) as u32, strict: s % 2 == 0, ..Model::IF })
    }));
}

/// Real neurons: every layer on the trains that its sources really gave. Counts are equal but for neurons whose
/// potential came so near to a threshold that rounding decides, which are few.
#[test]
fn real_synapses() {
    let (mut neurons, mut unclear) = (0, 0);
    for seed in 500..510 {
        let decay = [0.0, 0.5, 0.95, 0.951_229_4][(seed % 4) as usize];
        let model = [
            Model { decay, ..Model::LIF },
            Model { decay, strict: false, refractory: 2, ..Model::LIF },
            Model { decay, max_spikes: 3, ..Model::IF },
        ][(seed % 3) as usize];
        let net = network(&Recipe { real: true, ..recipe(seed, model) });
        let raw = images(&net, BATCH, seed);
        for dev in both() {
            let trains = trains(dev, &net, &raw);
            for (node, (_, got)) in trains.iter().enumerate() {
                let Some(layer) = net.nodes[node].firing() else { continue };
                let len = BATCH * net.nodes[node].shape.len();
                for (i, (want, clear)) in real_layer(&net, node, layer, &trains).into_iter().enumerate() {
                    let got = got.iter().skip(i).step_by(len).sum::<i32>();
                    assert!(!clear || got == want, "seed {seed}, node {node}, neuron {i}: {got} spikes, want {want}");
                    neurons += 1;
                    unclear += usize::from(!clear);
                }
            }
        }
    }
    assert!(neurons > 3_000 && unclear * 50 < neurons, "{unclear} of {neurons} neurons near a threshold");
}

/// Spikes of each neuron of a batch in f64, and whether no potential came near a threshold.
fn real_layer(net: &SpikingNetwork, node: usize, layer: &Layer, trains: &[(usize, Vec<i32>)]) -> Vec<(i32, bool)> {
    let (shape, model) = (net.nodes[node].shape, net.model);
    let State::Real { bias, initial } = &layer.state else { unreachable!() };
    let channel = |i: usize| i % shape.len() / shape.area();
    let mut v: Vec<f64> = (0..BATCH * shape.len()).map(|i| f64::from(initial[channel(i)])).collect();
    let mut wait = vec![0; v.len()];
    let mut result = vec![(0, true); v.len()];
    for t in 0..net.steps as usize {
        let mut drive: Vec<f64> = (0..v.len()).map(|i| f64::from(bias[channel(i)])).collect();
        let mut size: Vec<f64> = vec![1.0; v.len()];
        for s in &layer.synapses {
            let Weights::Real(weights) = &s.weight else { unreachable!() };
            let (from, (steps, counts)) = (net.nodes[s.source].shape, &trains[s.source]);
            let row = &counts[if *steps == 1 { 0 } else { t } * BATCH * from.len()..];
            for image in 0..BATCH {
                each_synapse(s, from, shape, |i, w, o| {
                    let part = f64::from(row[image * from.len() + i]) * f64::from(weights[w]);
                    drive[image * shape.len() + o] += part;
                    size[image * shape.len() + o] += part.abs();
                });
            }
        }
        for i in 0..v.len() {
            if wait[i] > 0 {
                wait[i] -= 1;
                continue;
            }
            let decay = f64::from(model.decay);
            v[i] = if model.is_leaky() { decay * v[i] + (1.0 - decay) * drive[i] } else { v[i] + drive[i] };
            let near = |k: f64| (v[i] - k).abs() < 1e-5 * size[i].max(v[i].abs());
            let most = if model.reset == Reset::Zero { 1 } else { model.max_spikes };
            if (1..=most).any(|k| near(f64::from(k))) {
                result[i].1 = false;
            }
            let mut n = 0;
            while n < most && v[i] >= 1.0 {
                n += 1;
                v[i] -= 1.0;
            }
            if n > 0 {
                result[i].0 += n as i32;
                wait[i] = model.refractory;
                if model.reset == Reset::Zero {
                    v[i] = 0.0;
                }
            }
        }
    }
    result
}

/// The random networks hold every kind of node, or the tests above test less than they say.
#[test]
fn random_networks_hold_everything() {
    let nets: Vec<SpikingNetwork> = (0..NETWORKS).map(|s| network(&recipe(s, Model::IF))).collect();
    let ops: Vec<&SpikingOp> = nets.iter().flat_map(|n| n.nodes.iter().map(|n| &n.op)).collect();
    let has = |what: &str, test: &dyn Fn(&SpikingOp) -> bool| assert!(ops.iter().any(|op| test(op)), "no {what}");
    let layer = |op: &SpikingOp, test: &dyn Fn(&Layer) -> bool| matches!(op, SpikingOp::Neurons(l) if test(l));
    has("grouped convolution", &|op| layer(op, &|l| l.synapses[0].groups > 1));
    has("readout", &|op| layer(op, &|l| !l.fires));
    has("skip connection from the input", &|op| layer(op, &|l| l.synapses.len() == 2 && l.synapses[1].source == 0));
    has("maximum of the input", &|op| matches!(op, SpikingOp::MaxPool { source: 0, .. }));
    has("sum of spikes", &|op| matches!(op, SpikingOp::SumPool { source: 1.., .. }));
    has(
        "concatenation with the input",
        &|op| matches!(op, SpikingOp::Concat { sources } if sources.len() > 1 && sources.contains(&0)),
    );
    has("rearrangement", &|op| matches!(op, SpikingOp::Gather { source: 1.., .. }));
}
