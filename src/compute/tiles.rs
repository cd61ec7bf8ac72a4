//! Which tile shapes the matrix kernels use on an adapter: timed once on a small problem, then remembered in a file of
//! the user's cache folder.
//!
//! `SYNFIT_CACHE` names another folder, or is `off`: nothing is read or written then, and real adapters are timed every
//! time. A file that cannot be read, does not parse or belongs to another adapter, driver or version is as good as none;
//! a folder that cannot be written is no error. Software rasterizers take the plain shapes unasked.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::conv::{self, Conv, Start};
use super::device::Device;
use super::gram::{Moments, PatchSpec};
use crate::error::Result;
use crate::network::{Shape, Window};

/// The shape of a workgroup's tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tile {
    /// 64 x 64, 4 x 4 a thread: many workgroups at a time, few registers.
    #[default]
    Plain,
    /// 128 x 128, 8 x 8 a thread: half the loads a product.
    Wide,
}

/// One choice for every kernel that has variants. Sums of integers are the same with any; others differ in rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tiles {
    /// Moments of reals, of counts; convolutions.
    pub gram: Tile,
    pub counts: Tile,
    pub conv: Tile,
}

impl Tiles {
    fn all(tile: Tile) -> Self {
        Self { gram: tile, counts: tile, conv: tile }
    }
}

/// What was measured where.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    adapter: String,
    backend: String,
    driver: String,
    version: String,
    tiles: Tiles,
}

/// Images and channels of the problem that real adapters are timed on: some 10^10 multiplications a kernel.
const PROBLEM: (usize, usize) = (64, 128);
/// A wide tile must be so much faster: less is noise.
const CLEARLY: f64 = 0.97;
const RUNS: usize = 3;

/// The shapes for an adapter that was just opened.
pub(super) fn of_adapter(dev: &Device) -> Tiles {
    if matches!(dev.info().kind.as_str(), "software" | "host") {
        return Tiles::default();
    }
    calibrated(dev, cache().as_deref(), PROBLEM).unwrap_or_else(|e| {
        tracing::debug!("tile shapes were not timed: {e}");
        Tiles::default()
    })
}

/// The shapes that suit an adapter best: from `folder` if it knows them, else timed on a problem of so many images and
/// channels (of 16 x 16) and left there.
///
/// # Errors
/// The device failed.
pub fn calibrated(dev: &Device, folder: Option<&Path>, problem: (usize, usize)) -> Result<Tiles> {
    let info = dev.info();
    let mut record = Record {
        adapter: info.name.clone(),
        backend: info.backend.clone(),
        driver: info.driver.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        tiles: Tiles::default(),
    };
    let file = folder.map(|f| f.join(file_name(&record)));
    if let Some(found) = file.as_deref().and_then(|f| read(f, &record)) {
        return Ok(found);
    }
    record.tiles = timed(dev, problem)?;
    tracing::debug!("{}: {:?}", info.name, record.tiles);
    if let Some(Err(e)) = file.map(|f| write(&f, &record)) {
        tracing::debug!("tile shapes are not remembered: {e}");
    }
    Ok(record.tiles)
}

/// The user's cache folder for synfit; none if it is off or unknown.
fn cache() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    match var("SYNFIT_CACHE") {
        Some(off) if off == Path::new("off") => return None,
        Some(folder) => return Some(folder),
        None => {}
    }
    let home = if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        var("HOME").map(|home| home.join("Library/Caches"))
    } else {
        var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")))
    };
    home.map(|home| home.join("synfit"))
}

/// One file an adapter: its name, as far as file systems agree on it, and its backend.
fn file_name(record: &Record) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    format!("tiles-{}-{}.json", record.backend, record.adapter.chars().take(80).map(plain).collect::<String>())
}

fn read(file: &Path, wanted: &Record) -> Option<Tiles> {
    let found: Record = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let own = |r: &Record| [&r.adapter, &r.backend, &r.driver, &r.version].map(String::clone);
    (own(&found) == own(wanted)).then_some(found.tiles)
}

/// Whole or not at all: another process may do the same.
fn write(file: &Path, record: &Record) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(&serde_json::to_vec_pretty(record)?)?;
    new.persist(file)?;
    Ok(())
}

/// Runs every kernel with either shape.
fn timed(dev: &Device, (images, channels): (usize, usize)) -> Result<Tiles> {
    let shape = Shape::new(channels, 16, 16);
    let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
    let spec = PatchSpec { input: shape, window, groups: 1 };
    let conv = Conv { input: shape, output: shape, window, groups: 1 };
    let both = [Tile::Plain, Tile::Wide].map(|tile| dev.with_tiles(Tiles::all(tile)));
    let x = vec![1.0f32; images * shape.len()];
    let target = Shape::new(1, shape.h, shape.w);
    let moments = |dev: &Device, counts: bool| -> Result<f64> {
        let (x, z) = (dev.upload(&x)?, dev.zeros(images * target.len())?);
        seconds(dev, || {
            let mut moments = Moments::new(dev, &[spec], target, 1)?;
            if counts {
                moments = moments.counts(1);
            }
            moments.add(images, &[&x], &z)
        })
    };
    let convolution = |dev: &Device| -> Result<f64> {
        let (x, w) = (dev.upload(&x)?, dev.upload(&vec![1.0f32; shape.c * conv.depth()])?);
        let mut y = dev.zeros(images * shape.len())?;
        seconds(dev, || conv::real(dev, &conv, images, &x, &w, Start::Zero, &mut y))
    };
    let better = |run: &dyn Fn(&Device) -> Result<f64>| -> Result<Tile> {
        let [plain, wide] = [run(&both[0])?, run(&both[1])?];
        Ok(if wide < CLEARLY * plain { Tile::Wide } else { Tile::Plain })
    };
    Ok(Tiles {
        gram: better(&|dev| moments(dev, false))?,
        counts: better(&|dev| moments(dev, true))?,
        conv: better(&convolution)?,
    })
}

/// The best of some runs after one that compiles; by the GPU's own clock if it has one.
fn seconds(dev: &Device, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let elapsed = dev.timed(&mut run)?;
        best = best.min(elapsed.gpu.unwrap_or(elapsed.wall));
    }
    Ok(best)
}
