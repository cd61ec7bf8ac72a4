//! A layer's response error by its parts: each of them moves with what causes it, and alone.

mod common;

use common::networks::{K3, block, images, layer, network};
use common::options;
use synfit::chip::Chip;
use synfit::compute::{Choice, Device};
use synfit::convert::{self, LayerRecord, Options, Parts, Response, Silent};
use synfit::network::{Activation, Network, Node, Op, Shape, Window};
use synfit::spiking::Schedule;

fn trained(activation: Activation) -> Network {
    let shape = Shape::new(8, 6, 6);
    network(
        "parts",
        vec![
            Node { name: "input".into(), shape: Shape::new(3, 6, 6), op: Op::Input },
            layer("first", shape, vec![block(1, 0, K3, 3, 8, 1)], activation),
            layer("second", shape, vec![block(2, 1, K3, 8, 8, 1)], activation),
            layer("third", shape, vec![block(3, 2, K3, 8, 8, 1)], activation),
            layer("out", shape, vec![block(4, 3, Window::POINT, 8, 8, 1)], Activation::Linear),
        ],
    )
}

fn layers(network: &Network, options: &Options) -> Vec<LayerRecord> {
    let dev = Device::open(Choice::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let images = images(network, -1.0, 150, 7);
    convert::convert(&dev, network, &images, options, folder.path(), &Silent).unwrap().layers
}

/// Of the third layer, and its response error.
fn third(activation: Activation, change: impl Fn(&mut Options)) -> (Parts, f64) {
    of("third", activation, change)
}

fn of(name: &str, activation: Activation, change: impl Fn(&mut Options)) -> (Parts, f64) {
    let mut options = options(Chip::load("generic8").unwrap());
    change(&mut options);
    let layers = layers(&trained(activation), &options);
    assert!(layers.iter().all(|l| l.parts.is_some() == l.response_error.is_some()));
    let layer = layers.iter().find(|l| l.name == name).unwrap();
    (layer.parts.unwrap(), layer.response_error.unwrap())
}

#[test]
fn spike_times_matter_only_where_layers_run_at_once() {
    let (streaming, error) = third(Activation::Relu, |_| ());
    assert!(streaming.unevenness > 1e-3, "{streaming:?}");
    let sum: f64 = streaming.named().iter().map(|(_, part)| part).sum();
    assert!(0.5 * error < sum && sum < 3.0 * error, "{streaming:?} of {error}");
    let (layered, _) = third(Activation::Relu, |o| o.schedule = Schedule::Layered);
    // counts of the settled input, but for those that rounding in f32 decides
    assert!(layered.unevenness < 1e-4 && layered.quantization > 1e-3, "{layered:?}");
    let (analytic, _) = third(Activation::Relu, |o| o.response = Response::Analytic);
    assert!(analytic.unevenness < 1e-4, "{analytic:?}");
}

#[test]
fn more_steps_round_less_and_coarse_weights_cost_more() {
    let (few, _) = third(Activation::Relu, |o| o.steps = 8);
    let (many, _) = third(Activation::Relu, |o| o.steps = 64);
    assert!(many.quantization < 0.1 * few.quantization, "{many:?} {few:?}");
    let (coarse, _) = of("first", Activation::Relu, |o| o.chip.replace_grid(Some("2".parse().unwrap())));
    assert!(coarse.inputs < 1e-3 && few.weights < 1e-3, "{coarse:?} {few:?}");
    assert_eq!(coarse.largest().0, "weights", "{coarse:?}");
}

/// A population of pieces cannot follow a curve wholly, whatever the steps; more pieces follow it better.
#[test]
fn populations_clip_what_they_cannot_follow() {
    let curved = |pieces| {
        of("first", Activation::Sigmoid, |o| {
            (o.steps, o.schedule, o.population.curved) = (256, Schedule::Layered, pieces);
        })
        .0
    };
    let (two, eight) = (curved(2), curved(8));
    assert!(two.clipping > 4.0 * eight.clipping && two.largest().0 == "clipping", "{two:?} {eight:?}");
}
