//! The architectures.

use super::Built;
use super::builder::{Builder, Input, square};
use crate::network::{Activation, Shape, Window};

/// Gain of a residual branch's last convolution: sums of many blocks do not explode.
const BRANCH: f32 = 0.5;

pub fn lenet(seed: u64) -> Built {
    let mut net = Builder::new("lenet", Shape::new(1, 28, 28), seed);
    net.conv("conv1", 6, square(5, 1, 2));
    net.average_pool("pool1", square(2, 2, 0));
    net.conv("conv2", 16, square(5, 1, 0));
    net.average_pool("pool2", square(2, 2, 0));
    net.dense("fc1", 120, Activation::Relu);
    net.dense("fc2", 84, Activation::Relu);
    net.dense("fc3", 10, Activation::Linear);
    net.build()
}

pub fn resnet20(seed: u64) -> Built {
    let mut net = Builder::new("resnet20", Shape::new(3, 32, 32), seed);
    let mut at = net.conv("conv1", 16, square(3, 1, 1));
    for (stage, channels) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("stage{}.{block}", stage + 1);
            let source = net.conv(&format!("{name}.conv1"), channels, square(3, stride, 1));
            let branch = Input::Conv { source, window: square(3, 1, 1), gain: BRANCH };
            let shortcut = Input::Identity { source: at, stride };
            at = net.neurons(&format!("{name}.conv2"), channels, &[branch, shortcut], Activation::Relu);
        }
    }
    finish(net, 10)
}

pub fn resnet50(seed: u64) -> Built {
    let mut net = Builder::new("resnet50", Shape::new(3, 224, 224), seed);
    net.conv("conv1", 64, square(7, 2, 3));
    let mut at = net.max_pool("pool1", square(3, 2, 1));
    for (stage, (width, blocks)) in [(64, 3), (128, 4), (256, 6), (512, 3)].into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("stage{}.{block}", stage + 1);
            let point = |source, stride, gain| Input::Conv { source, window: square(1, stride, 0), gain };
            net.neurons(&format!("{name}.conv1"), width, &[point(at, 1, 1.0)], Activation::Relu);
            let middle = net.conv(&format!("{name}.conv2"), width, square(3, stride, 1));
            let shortcut = match block {
                0 => point(at, stride, 1.0),
                _ => Input::Identity { source: at, stride },
            };
            let inputs = [point(middle, 1, BRANCH), shortcut];
            at = net.neurons(&format!("{name}.conv3"), 4 * width, &inputs, Activation::Relu);
        }
    }
    finish(net, 1000)
}

/// The mean over all positions, and the readout.
fn finish(mut net: Builder, classes: usize) -> Built {
    net.average_pool("pool", Window::whole(net.shape(net.last())));
    net.dense("fc", classes, Activation::Linear);
    net.build()
}

/// Convolutions of 3 x 3 in five stages with a maximum pool after each.
fn vgg16(name: &str, side: usize, seed: u64) -> Builder {
    let mut net = Builder::new(name, Shape::new(3, side, side), seed);
    for (stage, (channels, convs)) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)].into_iter().enumerate() {
        for conv in 0..convs {
            net.conv(&format!("conv{}_{}", stage + 1, conv + 1), channels, square(3, 1, 1));
        }
        net.max_pool(&format!("pool{}", stage + 1), square(2, 2, 0));
    }
    net
}

pub fn vgg16_cifar(seed: u64) -> Built {
    let mut net = vgg16("vgg16-cifar", 32, seed);
    net.dense("fc", 10, Activation::Linear);
    net.build()
}

pub fn vgg16_imagenet(seed: u64) -> Built {
    let mut net = vgg16("vgg16-imagenet", 224, seed);
    net.dense("fc6", 4096, Activation::Relu);
    net.dense("fc7", 4096, Activation::Relu);
    net.dense("fc8", 1000, Activation::Linear);
    net.build()
}
