//! The images that a job names: opened, selected, and with the map to the network's input.

use std::path::Path;

use super::job::{JobArgs, given, unknown};
use crate::convert::Images;
use crate::error::{Error, Result};
use crate::network::{ChannelOrder, Dataset, Layout, Network, Preprocess};

impl JobArgs {
    /// The calibration images, checked from end to end.
    pub fn calibration_images(&self, network: &Network) -> Result<Images> {
        let (_, source) = self.need()?;
        self.open(network, source, self.images, 1, *given("seed", &self.seed)?)
    }

    /// The test images, checked from end to end: the calibration images if no others are given.
    pub fn test_images(&self, network: &Network) -> Result<Images> {
        let (_, calibration) = self.need()?;
        let source = self.test.as_deref().unwrap_or(calibration);
        let seed = given("seed", &self.seed)?.wrapping_add(0x7e57);
        self.open(network, source, self.test_images, *given("test-every", &self.test_every)?, seed)
    }

    /// The test labels: the ones given, or those that came with the images.
    pub fn test_labels(&self, images: &Images) -> Result<Option<Vec<i64>>> {
        images.data.labels(self.labels.as_deref().map(Path::new))
    }

    fn open(&self, network: &Network, source: &str, images: Option<usize>, every: usize, seed: u64) -> Result<Images> {
        for (what, number) in [("images", images.unwrap_or(1)), ("test-every", every)] {
            if number == 0 {
                return Err(Error::input(what, "must be at least 1"));
            }
        }
        let want = network.input_shape();
        let mut data = match source.strip_prefix("uniform:") {
            Some(ranges) => {
                let (lo, hi) = ranges_of(ranges)?;
                Dataset::uniform(want, images.unwrap_or(1000), &lo, &hi, seed).map_err(|e| e.within(source))?
            }
            None => self.open_file(network, Path::new(source))?,
        };
        data = data.every(every)?;
        if let Some(images) = images {
            data = data.first(images)?;
        }
        data.validate()?;
        let preprocess = Preprocess {
            scale: *given("scale", &self.scale)?,
            mean: given("mean", &self.mean)?.clone(),
            std: given("std", &self.std)?.clone(),
        };
        let (scale, shift) = preprocess.affine(network)?;
        Ok(Images { data, scale, shift })
    }

    fn open_file(&self, network: &Network, path: &Path) -> Result<Dataset> {
        let order = match self.channels.as_deref() {
            None | Some("rgb") => ChannelOrder::Rgb,
            Some("bgr") => ChannelOrder::Bgr,
            Some(other) => return Err(unknown("channels", other, "rgb, bgr")),
        };
        let open = |layout| Dataset::open(path, network.input_shape(), layout, order);
        match self.layout.as_deref() {
            // Without a word: as the model wants it, unless only the other layout fits.
            None => open(network.layout).or_else(|e| match network.layout {
                Layout::Nchw => open(Layout::Nhwc).map_err(|_| e),
                Layout::Nhwc => open(Layout::Nchw).map_err(|_| e),
            }),
            Some("nchw") => open(Layout::Nchw),
            Some("nhwc") => open(Layout::Nhwc),
            Some(other) => Err(unknown("layout", other, "nchw, nhwc")),
        }
    }
}

/// `LO..HI[,LO..HI ...]`
fn ranges_of(text: &str) -> Result<(Vec<f32>, Vec<f32>)> {
    let wrong =
        || Error::input(format!("uniform:{text}"), "write uniform:LO..HI, or one such range a feature with commas");
    let mut bounds = (vec![], vec![]);
    for range in text.split(',') {
        let (lo, hi) = range.split_once("..").ok_or_else(wrong)?;
        let (lo, hi): (f32, f32) = (lo.trim().parse().map_err(|_| wrong())?, hi.trim().parse().map_err(|_| wrong())?);
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
            return Err(wrong());
        }
        bounds.0.push(lo);
        bounds.1.push(hi);
    }
    Ok(bounds)
}
