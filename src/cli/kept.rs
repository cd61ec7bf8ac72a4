//! A conversion whose finished layers stay when it is interrupted: in DIR.partial, beside the result's place DIR.

use std::path::{Path, PathBuf};

use super::output::OutputFolder;
use super::progress::Progress;
use crate::compute::Team;
use crate::convert::{self, Conversion, Fingerprint, Images, LayerRecord, Options, Watch};
use crate::error::{Kind, Result};
use crate::export::checkpoint::Checkpoint;
use crate::fit::{Problem, Solution, Spec};
use crate::network::Network;
use crate::spiking::SpikingNetwork;

/// What is converted, how, and on what.
pub struct Work<'a> {
    pub team: &'a Team,
    pub network: &'a Network,
    pub images: &'a Images,
    pub options: &'a Options,
}

/// Converts `work` for the result folder `out`. The checkpoint comes back with it, to be removed when the result is in
/// its place.
///
/// # Errors
/// As `convert::resume`, and a checkpoint that cannot be used. An interrupt says how to go on.
pub fn convert(
    work: &Work<'_>,
    out: &Path,
    scratch: &Path,
    resume: bool,
    progress: &Progress,
) -> Result<(Conversion, Checkpoint)> {
    let Work { team, network, images, options } = *work;
    let place = place(out);
    let mut checkpoint = Checkpoint::open(&place, Fingerprint::of(team, network, images, options)?)?;
    OutputFolder::sweep(scratch);
    let done = match (resume, checkpoint.layers()) {
        (true, 0) => {
            eprintln!("nothing to resume in {}: starting at the first layer", place.display());
            vec![]
        }
        (true, layers) => {
            eprintln!("resuming after {layers} finished layers in {}", place.display());
            checkpoint.read(team)?
        }
        (false, 0) => vec![],
        (false, layers) => {
            eprintln!("starting afresh: {layers} finished layers in {} are dropped (no --resume)", place.display());
            checkpoint.clear()?;
            vec![]
        }
    };
    let resumed = done.len();
    let watch = Kept { progress, checkpoint: &checkpoint };
    match convert::resume(team, network, images, options, scratch, &watch, done) {
        Ok(conversion) => Ok((conversion, checkpoint)),
        Err(mut e) => {
            let layers = checkpoint.layers();
            match e.kind {
                Kind::Interrupted if layers > 0 => {
                    let place = place.display();
                    e.message = format!("interrupted; {layers} finished layers are in {place}: go on with --resume");
                }
                // The same input would fail again at the same layer. A checkpoint that was found is not ours to drop.
                Kind::Input if resumed == 0 => checkpoint.clear()?,
                _ => {}
            }
            Err(e)
        }
    }
}

/// DIR.partial.
fn place(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or("out".as_ref()).to_os_string();
    name.push(".partial");
    out.with_file_name(name)
}

struct Kept<'a> {
    progress: &'a Progress,
    checkpoint: &'a Checkpoint,
}

impl Watch for Kept<'_> {
    fn stage(&self, name: &str, ticks: u64) {
        self.progress.stage(name, ticks);
    }

    fn tick(&self) {
        self.progress.tick();
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }

    fn solved(&self, layer: &str, problem: &Problem, spec: &Spec, solution: &Solution) -> Result<()> {
        self.progress.solved(layer, problem, spec, solution)
    }

    fn finished(&self, net: &SpikingNetwork, record: &LayerRecord) -> Result<()> {
        self.checkpoint.add(net, record)
    }
}
