//! `synfit demo`: the main job on the built-in handwritten digits, with no other file.

use std::path::PathBuf;

use super::convert;
use super::job::JobArgs;
use super::timing::Steps;
use crate::error::Result;

#[derive(clap::Args)]
pub struct Args {
    /// Folder for the result
    #[arg(long, value_name = "DIR", default_value = "out/demo")]
    out: PathBuf,
    /// As for convert
    #[arg(long)]
    device: Option<String>,
    /// Time steps, or auto: as few as reach --agreement
    #[arg(long, value_name = "T|auto", default_value = "16")]
    steps: Steps,
    /// With --steps auto: the fraction of test images on which both networks must decide alike
    #[arg(long, value_name = "FRACTION")]
    agreement: Option<f64>,
    /// As for convert
    #[arg(long, value_name = "N[,N..]|auto")]
    settle: Option<String>,
    /// As for convert
    #[arg(long, value_name = "L")]
    latency: Option<u64>,
    /// Bits of a synapse
    #[arg(long, value_name = "B")]
    bits: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The built-in example, embedded so that an installed binary needs no file either.
const FILES: [(&str, &[u8]); 4] = [
    ("digits_cnn.onnx", include_bytes!("../../configs/digits/digits_cnn.onnx")),
    ("train_images.npy", include_bytes!("../../configs/digits/train_images.npy")),
    ("test_images.npy", include_bytes!("../../configs/digits/test_images.npy")),
    ("test_labels.npy", include_bytes!("../../configs/digits/test_labels.npy")),
];

pub fn run(args: &Args) -> Result<()> {
    let file = |i: usize| Some(FILES[i].0.to_string());
    let job = JobArgs {
        model: file(0),
        calibration: file(1),
        test: file(2),
        labels: file(3),
        scale: Some(0.0625),
        steps: Some(args.steps),
        agreement: args.agreement,
        settle: args.settle.clone(),
        latency: args.latency,
        bits: args.bits.clone(),
        device: args.device.clone(),
        ..JobArgs::default()
    };
    let report = convert::job_to_folder(&job, &args.out, &FILES, convert::Keep::Nothing)?;
    convert::print(&report, &args.out, args.json)
}
