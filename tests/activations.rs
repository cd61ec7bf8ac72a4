//! Activations other than relu: what is straight between bends is followed as well as a relu, by as few neurons; a larger
//! population follows a curve more closely, and never one that has no curve worse.

mod common;

use common::networks::{block, images, layer, network, output_error};
use common::options;
use synfit::chip::Chip;
use synfit::compute::Device;
use synfit::convert::{self, Options, Populations, Silent, neurons_per_unit};
use synfit::network::{Activation, Network, Node, Op, Shape, Window};
use synfit::spiking::Schedule;

const POPULATIONS: [usize; 4] = [2, 4, 8, 16];

/// Relative error of the outputs of a small network with such a hidden layer, and the neurons that the layer has.
fn error(activation: Activation, change: impl Fn(&mut Options)) -> (f64, usize) {
    let dense = |name: &str, from: usize, to: usize, source: usize, activation| {
        layer(
            name,
            Shape::new(to, 1, 1),
            vec![block(source as u64 + 1, source, Window::POINT, from, to, 1)],
            activation,
        )
    };
    let input = Node { name: "input".into(), shape: Shape::new(12, 1, 1), op: Op::Input };
    let mut hidden = dense("hidden", 12, 16, 0, activation);
    if let Op::Neurons { blocks, bias, .. } = &mut hidden.op {
        // as wide as the bounds of the clips, and some units that see one side of zero only
        blocks[0].weight.iter_mut().for_each(|w| *w *= 1.5);
        (bias[0], bias[1]) = (6.0, -6.0);
    }
    let trained: Network = network("activations", vec![input, hidden, dense("out", 16, 5, 1, Activation::Linear)]);
    let images = images(&trained, -1.0, 256, 3);
    let mut options = options(Chip::load("generic8").unwrap());
    options.chip.replace_grid(Some("16".parse().unwrap()));
    (options.steps, options.schedule) = (64, Schedule::Layered);
    change(&mut options);
    let dev = Device::cpu();
    let folder = tempfile::tempdir().unwrap();
    let done = convert::convert(&dev, &trained, &images, &options, folder.path(), &Silent).unwrap();
    (output_error(&dev, &trained, &done.spiking, &images), done.layers[0].neurons)
}

fn clip(lo: f32, hi: f32) -> Activation {
    Activation::Clip { lo, hi }
}

fn leaky(alpha: f32) -> Activation {
    Activation::LeakyRelu { alpha }
}

fn elu(alpha: f32) -> Activation {
    Activation::Elu { alpha }
}

/// Straight between bends, with the neurons that a unit takes.
fn straight() -> Vec<(Activation, usize)> {
    let (lowest, highest) = (f32::MIN, f32::MAX);
    let one = [
        leaky(0.0),
        elu(0.0),
        clip(-0.5, highest),
        clip(0.5, highest),
        clip(0.0, highest),
        clip(lowest, 1.0),
        clip(lowest, -0.2),
        clip(-1.0, 1.0),
        clip(0.1, 3.0),
        clip(-0.1, 3.0),
        clip(-100.0, 100.0),
        clip(-100.0, 1.0),
        clip(0.0, 1.0),
        Activation::HardSigmoid { alpha: 0.3, beta: 0.4 },
    ];
    let two = [leaky(0.01), leaky(0.2), leaky(2.0), leaky(1.0), clip(lowest, highest)];
    one.into_iter().map(|a| (a, 1)).chain(two.into_iter().map(|a| (a, 2))).collect()
}

#[test]
fn what_is_straight_between_bends_is_followed_as_well_as_a_relu() {
    let (relu, _) = error(Activation::Relu, |_| ());
    assert!(relu < 0.03, "{relu}");
    for (activation, neurons) in straight() {
        for curved in POPULATIONS {
            let (found, all) = error(activation, |o| o.population.curved = curved);
            assert!(found < 2.0 * relu, "{activation:?}, population {curved}: {found}, of relu {relu}");
            assert_eq!(all, 16 * neurons, "{activation:?}, population {curved}");
        }
    }
}

#[test]
fn several_neurons_share_a_straight_piece() {
    for activation in [clip(-1.0, 1.0), clip(f32::MIN, 1.0), clip(0.5, f32::MAX), leaky(0.2)] {
        let at = |rectified| error(activation, |o| (o.steps, o.population.rectified) = (8, rectified));
        let ((one, few), (four, many)) = (at(1), at(4));
        assert!(four < 0.5 * one, "{activation:?}: {four} where one neuron has {one}");
        assert_eq!(many, 4 * few, "{activation:?}");
    }
}

#[test]
fn a_larger_population_follows_a_curve_more_closely() {
    for activation in [elu(1.0), elu(2.0), Activation::Sigmoid, Activation::Tanh, Activation::Softplus] {
        let errors = POPULATIONS.map(|curved| error(activation, |o| o.population.curved = curved).0);
        assert!(errors.windows(2).all(|pair| pair[1] < 1.1 * pair[0]), "{activation:?}: {errors:?}");
        assert!(errors[1] < 0.08 && errors[3] < 0.01, "{activation:?}: {errors:?}");
    }
}

/// Where a neuron may spike several times a step, a piece ends at its highest rate, not at rate 1.
#[test]
fn several_spikes_a_step_end_a_piece() {
    let activations = [
        Activation::Linear,
        Activation::HardSigmoid { alpha: 0.3, beta: 0.4 },
        Activation::Tanh,
        elu(1.0),
        leaky(0.1),
        clip(f32::MIN, 1.0),
    ];
    for activation in activations {
        let (plain, _) = error(activation, |o| o.schedule = Schedule::Streaming);
        let (several, _) = error(activation, |o| (o.schedule, o.chip.neuron.max_spikes) = (Schedule::Streaming, 4));
        assert!(several < 1.2 * plain, "{activation:?}: {several}, one spike a step {plain}");
    }
}

/// A unit of one value says nothing, whatever the population.
#[test]
fn constants_take_one_neuron() {
    for activation in [clip(1.0, -1.0), clip(0.5, 0.5), Activation::HardSigmoid { alpha: 0.0, beta: 0.4 }] {
        for curved in POPULATIONS {
            assert_eq!(error(activation, |o| o.population.curved = curved).1, 16, "{activation:?}");
        }
    }
}

#[test]
fn the_simplest_name_is_of_the_same_function() {
    let more =
        [Activation::Relu, elu(1.0), leaky(0.5), clip(1.0, -1.0), Activation::HardSigmoid { alpha: 0.0, beta: 0.4 }];
    for activation in straight().into_iter().map(|(a, _)| a).chain(more) {
        for z in (-40..40).map(|i| f64::from(i) / 8.0) {
            assert_eq!(activation.apply(z), activation.simplest().apply(z), "{activation:?} at {z}");
        }
    }
    for activation in [leaky(0.0), elu(0.0), clip(0.0, f32::MAX)] {
        assert_eq!(activation.simplest(), Activation::Relu);
    }
    let of = Populations { rectified: 3, curved: 5 };
    let neurons = |activation| neurons_per_unit(activation, of);
    assert_eq!((neurons(Activation::Relu), neurons(clip(-1.0, 1.0)), neurons(leaky(0.1))), (3, 3, 6));
    assert_eq!((neurons(elu(1.0)), neurons(elu(0.0)), neurons(clip(1.0, 1.0))), (5, 3, 1));
}
