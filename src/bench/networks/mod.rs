//! Well-known architectures, built in code with seeded weights: the shapes that conversions are measured on. Batch
//! normalization is folded into the convolutions before it, as the ONNX reader does.

mod builder;
mod shapes;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::network::Network;

/// An architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// LeNet-5 with ReLU and average pools, 28 x 28 grey.
    Lenet,
    /// He and others 2016, for CIFAR: 32 x 32 colour, shortcuts without weights.
    Resnet20,
    /// VGG-16 for CIFAR: 32 x 32 colour, one dense layer.
    Vgg16Cifar,
    /// Simonyan and Zisserman 2015, configuration D: 224 x 224 colour.
    Vgg16Imagenet,
    /// He and others 2016, as torchvision has it (stride in the 3 x 3): 224 x 224 colour.
    Resnet50,
}

impl Shape {
    /// Smallest first.
    pub const ALL: [Shape; 5] =
        [Shape::Lenet, Shape::Resnet20, Shape::Vgg16Cifar, Shape::Resnet50, Shape::Vgg16Imagenet];

    pub fn name(self) -> &'static str {
        match self {
            Shape::Lenet => "lenet",
            Shape::Resnet20 => "resnet20",
            Shape::Vgg16Cifar => "vgg16-cifar",
            Shape::Vgg16Imagenet => "vgg16-imagenet",
            Shape::Resnet50 => "resnet50",
        }
    }

    /// The network with weights of this seed.
    pub fn build(self, seed: u64) -> Built {
        match self {
            Shape::Lenet => shapes::lenet(seed),
            Shape::Resnet20 => shapes::resnet20(seed),
            Shape::Vgg16Cifar => shapes::vgg16_cifar(seed),
            Shape::Vgg16Imagenet => shapes::vgg16_imagenet(seed),
            Shape::Resnet50 => shapes::resnet50(seed),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let names = Shape::ALL.map(Shape::name).join(", ");
        Shape::ALL
            .into_iter()
            .find(|shape| shape.name() == s)
            .ok_or_else(|| Error::input("networks", format!("`{s}` is none of {names}, all, none")))
    }
}

/// A network, and how many of its parameters are trained: all but the ones of identity shortcuts.
#[derive(Debug, Clone)]
pub struct Built {
    pub network: Network,
    pub trained: usize,
}
