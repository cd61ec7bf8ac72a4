//! The built-in architectures that `synfit bench` converts: sizes as published, activations alive.

use synfit::bench::networks::Shape;
use synfit::compute::Device;
use synfit::forward::Forward;
use synfit::network::{self, Op};

/// Input, outputs, layers of neurons, parameters.
///
/// Published counts: LeNet-5 61,706; VGG-16 138,357,544; ResNet-50 25,557,032, of which 26,560 scales of batch
/// normalization are folded away and 3840 biases of projections are added to those of the branches; ResNet-20 269,722,
/// less 688 folded scales; VGG-16 for CIFAR by its convolutions' 14,710,464 weights and 4224 biases and 5130 of the
/// dense layer.
const WANTED: [(Shape, [usize; 3], usize, usize, usize); 5] = [
    (Shape::Lenet, [1, 28, 28], 10, 5, 61_706),
    (Shape::Resnet20, [3, 32, 32], 10, 20, 269_722 - 688),
    (Shape::Vgg16Cifar, [3, 32, 32], 10, 14, 14_710_464 + 4224 + 5130),
    (Shape::Resnet50, [3, 224, 224], 1000, 50, 25_557_032 - 26_560 - 3840),
    (Shape::Vgg16Imagenet, [3, 224, 224], 1000, 16, 138_357_544),
];

#[test]
fn sizes_are_the_published_ones() {
    for (shape, [c, h, w], outputs, layers, parameters) in WANTED {
        let built = shape.build(0);
        let net = &built.network;
        assert_eq!(net.input_shape(), network::Shape::new(c, h, w), "{shape}");
        assert_eq!(net.output_shape(), network::Shape::new(outputs, 1, 1), "{shape}");
        let neurons = net.nodes.iter().filter(|n| matches!(n.op, Op::Neurons { .. })).count();
        assert_eq!(neurons, layers, "{shape}");
        assert_eq!(built.trained, parameters, "{shape}");
        for node in &net.nodes {
            let Op::Neurons { blocks, bias, .. } = &node.op else { continue };
            assert_eq!(bias.len(), node.shape.c, "{shape}: {}", node.name);
            for b in blocks {
                let depth = net.nodes[b.source].shape.c * b.window.taps();
                assert_eq!(b.weight.len(), node.shape.c * depth, "{shape}: {}", node.name);
            }
        }
        let mut names: Vec<_> = net.nodes.iter().map(|n| &n.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), net.nodes.len(), "{shape}: names are unique");
    }
}

/// Multiply-accumulates as published: VGG-16 15.47 G, ResNet-50 4.09 G (torchvision), ResNet-20 40.55 M. Identity
/// shortcuts are counted as synapses on top.
#[test]
fn multiply_accumulates_are_the_published_ones() {
    for (shape, published) in [(Shape::Vgg16Imagenet, 15.47e9), (Shape::Resnet50, 4.09e9), (Shape::Resnet20, 40.55e6)] {
        let net = shape.build(0).network;
        let identity: u64 = net
            .nodes
            .iter()
            .filter_map(|n| match &n.op {
                Op::Neurons { blocks, .. } => Some((n.shape.area(), blocks)),
                _ => None,
            })
            .flat_map(|(area, blocks)| blocks.iter().map(move |b| (area, b)))
            .filter(|(_, b)| b.weight.iter().all(|w| *w == 0.0 || *w == 1.0))
            .map(|(area, b)| (area * b.weight.len()) as u64)
            .sum();
        let macs = (net.macs() - identity) as f64;
        assert!((macs / published - 1.0).abs() < 0.005, "{shape}: {macs}");
    }
}

#[test]
fn weights_follow_the_seed() {
    let weights = |seed| Shape::Lenet.build(seed).network;
    assert_eq!(weights(3), weights(3));
    assert_ne!(weights(3), weights(4));
}

/// The activations of every layer keep their size and tell the pictures apart.
#[test]
fn activations_stay_alive() {
    let dev = Device::cpu();
    for shape in [Shape::Lenet, Shape::Resnet20, Shape::Vgg16Cifar] {
        let net = shape.build(1).network;
        let folder = tempfile::tempdir().unwrap();
        let images = synfit::bench::conversions::pictures(&net, 8, 1, &folder.path().join("x.npy")).unwrap();
        let x = images.preprocess(&images.data.batch(0..8).unwrap());
        let y = Forward::new(&dev, &net).unwrap().run(&dev, 8, &x).unwrap();
        let mean = y.iter().sum::<f32>() / y.len() as f32;
        let variance = y.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / y.len() as f32;
        assert!((0.01..100.0).contains(&variance), "{shape}: variance {variance} of the outputs");
        let outputs = net.output_shape().len();
        let spread = (0..outputs).map(|o| {
            let of: Vec<f32> = y.iter().skip(o).step_by(outputs).copied().collect();
            let mean = of.iter().sum::<f32>() / 8.0;
            of.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 8.0
        });
        let within = spread.sum::<f32>() / outputs as f32;
        assert!(within > 0.002 * variance, "{shape}: {within} of {variance}");
    }
}
