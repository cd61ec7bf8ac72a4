//! Integrate-and-fire by table lookup against currents and steps one after the other, bit for bit; and spike bits
//! against counts.

mod common;

use common::{integers, sliding};
use proptest::prelude::*;
use synfit::compute::Device;
use synfit::compute::conv::{self, Conv, Start};
use synfit::compute::lookup::{Layer, Neurons, Synapses};
use synfit::compute::spikes::Spikes;
use synfit::compute::step::{self, StepSpec};
use synfit::network::Shape;
use synfit::neuron::{Model, Reset};

/// Counts 0 and 1, `share` in 100 of them 1.
fn spikes(seed: u64, len: usize, share: i32) -> Vec<i32> {
    integers(seed, len, 0, 99).into_iter().map(|v| i32::from(v < share)).collect()
}

/// Trains and their sums, `[images][shape]`, by convolution and stepping.
fn stepped(
    spec: &StepSpec,
    convs: &[Conv],
    codes: &[Vec<i32>],
    shifts: &[u32],
    inputs: &[Vec<i32>],
    constant: &[i32],
    [bias, threshold, initial]: [&[i32]; 3],
) -> (Vec<i32>, Vec<f32>) {
    let dev = Device::cpu();
    let up = |v: &[i32]| dev.upload(v).unwrap();
    let mut current = up(&constant.repeat(spec.steps));
    for (((conv, codes), shift), x) in convs.iter().zip(codes).zip(shifts).zip(inputs) {
        let w: Vec<i32> = codes.iter().map(|c| c << shift).collect();
        let (frames, bound) = (spec.steps * spec.images, i32::MAX as u64);
        conv::integer(&dev, conv, frames, &up(x), &up(&w), Start::Keep, bound, &mut current).unwrap();
    }
    let len = spec.images * spec.shape.len();
    let (mut trains, mut end) = (dev.poisoned(spec.steps * len).unwrap(), dev.poisoned(len).unwrap());
    step::integer(&dev, spec, &current, &up(bias), &up(threshold), &up(initial), &mut trains, &mut end).unwrap();
    let trains = dev.download(&trains).unwrap();
    let totals = (0..len).map(|i| trains.iter().skip(i).step_by(len).sum::<i32>() as f32).collect();
    (trains, totals)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn lookups_are_convolutions_and_steps(s in sliding(9), c in 1..=19usize, outputs in 1..=70usize,
                                          images in 1..=3usize, steps in 1..=20usize, two in prop::bool::ANY,
                                          zero in prop::bool::ANY, strict in prop::bool::ANY, tight in prop::bool::ANY,
                                          share in 0..=100i32, settle in 0..=23usize, seed in 0..1000u64) {
        let output = Shape::new(outputs, s.output[0], s.output[1]);
        let mut convs = vec![Conv { input: Shape::new(c, s.input[0], s.input[1]), output, window: s.window, groups: 1 }];
        if two {
            // A shortcut: the layer's own positions.
            convs.push(Conv { input: Shape { c: 3, ..output }, window: synfit::network::Window::POINT, ..convs[0] });
        }
        let model = Model { reset: if zero { Reset::Zero } else { Reset::Subtract }, strict, ..Model::IF };
        let (floor, ceil) = if tight { (-300, 2000) } else { (i32::MIN, i32::MAX) };
        let spec = StepSpec { model, steps, steps_in: steps, settle, counted: false, images, shape: output, floor, ceil };
        let codes: Vec<_> = convs.iter().map(|v| integers(seed, outputs * v.depth(), -8, 7)).collect();
        let shifts = [3, 5];
        let inputs: Vec<_> = convs.iter().map(|v| spikes(seed + 1, steps * images * v.input.len(), share)).collect();
        let constant = integers(seed + 2, images * output.len(), -50, 50);
        let (bias, threshold) = (integers(seed + 3, outputs, -30, 60), integers(seed + 4, outputs, 1, 900));
        let initials: Vec<Vec<i32>> = (0..3).map(|k| threshold.iter().map(|t| t * k / 4).collect()).collect();
        let packed: Vec<_> = convs.iter().zip(&inputs).map(|(v, x)| Spikes::pack(images, v.input, steps, x).unwrap()).collect();
        let packed: Vec<&Spikes> = packed.iter().collect();
        let synapses: Vec<_> = convs.iter().zip(&codes).zip(shifts)
            .map(|((&conv, codes), shift)| Synapses { conv, codes, shift }).collect();
        let neurons = Neurons { model, steps, settle, shape: output, bias: &bias, threshold: &threshold, floor, ceil };
        let layer = Layer::new(&synapses, &neurons).unwrap();
        prop_assert!(layer.holds(50, &threshold));
        let mut counts = vec![vec![f32::NAN; images * output.len()]; initials.len()];
        let mut into: Vec<&mut [f32]> = counts.iter_mut().map(Vec::as_mut_slice).collect();
        layer.counts(images, &packed, Some(&constant), &initials, &mut into);
        for (initial, counts) in initials.iter().zip(&counts) {
            let (trains, totals) =
                stepped(&spec, &convs, &codes, &shifts, &inputs, &constant, [&bias, &threshold, initial]);
            let got = layer.run(images, &packed, Some(&constant), initial);
            let mut unpacked = vec![-1; trains.len()];
            got.unpack(&mut unpacked);
            prop_assert_eq!(&unpacked, &trains);
            prop_assert_eq!(&got, &Spikes::pack(images, output, steps, &trains).unwrap());
            let mut summed = vec![f32::NAN; totals.len()];
            got.totals(&mut summed);
            prop_assert_eq!(&summed, &totals);
            prop_assert_eq!(counts, &totals);
        }
    }
}

#[test]
fn sums_of_long_trains_do_not_overflow() {
    let shape = Shape::new(9, 1, 2);
    let spikes = Spikes::pack(1, shape, 700, &vec![1; 700 * shape.len()]).unwrap();
    let mut totals = vec![f32::NAN; shape.len()];
    spikes.totals(&mut totals);
    assert_eq!(totals, vec![700.0; shape.len()]);
    assert_eq!(Spikes::from_bytes(1, shape, 700, spikes.bytes().to_vec()).unwrap(), spikes);
    assert!(Spikes::from_bytes(2, shape, 700, spikes.bytes().to_vec()).is_err());
}

/// A layer of one input and one output channel on 2 x 2 positions.
fn small(model: Model, code: i32, groups: usize) -> Option<Layer> {
    let shape = Shape::new(2, 2, 2);
    let conv = Conv { input: shape, output: shape, window: synfit::network::Window::POINT, groups };
    let codes = vec![code; 2 * conv.depth()];
    let neurons =
        Neurons { model, steps: 4, settle: 0, shape, bias: &[0, 0], threshold: &[9, 9], floor: -100, ceil: 100 };
    Layer::new(&[Synapses { conv, codes: &codes, shift: 15 }], &neurons)
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(small(Model::IF, 3, 1).is_some());
    assert!(small(Model::IF, 3, 2).is_none(), "groups");
    assert!(small(Model::IF, 17_000, 1).is_none(), "sums beyond 16 bits");
    assert!(small(Model { refractory: 1, ..Model::IF }, 3, 1).is_none(), "refractory");
    assert!(small(Model { max_spikes: 2, ..Model::IF }, 3, 1).is_none(), "several spikes a step");
    let large = small(Model::IF, 8000, 1).unwrap();
    assert!(!large.holds(0, &[0, 0]), "potentials beyond 32 bits");
    assert!(Spikes::pack(1, Shape::new(1, 1, 2), 1, &[1, 2]).is_none());
    assert!(Spikes::pack(1, Shape::new(1, 1, 2), 1, &[1, -1]).is_none());
}
