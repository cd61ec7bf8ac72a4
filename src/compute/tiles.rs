//! Which variants of the matrix kernels suit an adapter: timed once on a small problem, then remembered in a file of the
//! user's cache folder.
//!
//! `SYNFIT_CACHE` names another folder, or is `off`: nothing is read or written then, and real adapters are timed every
//! time. A file that cannot be read, does not parse or belongs to another adapter, driver or version is as good as none;
//! a folder that cannot be written is no error. Software rasterizers take the plain shapes unasked.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::conv::{self, Conv, Start};
use super::device::Device;
use super::gram::{self, Moments, PatchSpec};
use crate::error::Result;
use crate::network::{Shape, Window};

/// Side of a plain tile, 4 x 4 a thread: many workgroups at a time, few registers.
pub(crate) const PLAIN: usize = 64;
/// Side of a wide tile, 8 x 8 a thread: half the loads a product.
pub(crate) const WIDE: usize = 128;

/// What a kernel's wide tiles take for as many elements as plain ones, in percent of their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wide(pub u32);

impl Wide {
    pub const NEVER: Self = Self(u32::MAX);
    /// Wherever a plain tile does not hold the smaller side.
    pub const ALWAYS: Self = Self(0);

    /// From the seconds of either shape on a problem that `tiles` cuts into so many tiles of a side.
    fn measured(plain: f64, wide: f64, tiles: impl Fn(usize) -> usize) -> Self {
        let percent = 100.0 * wide / plain * area(PLAIN, &tiles) as f64 / area(WIDE, &tiles) as f64;
        Self(percent.round().clamp(1.0, 10_000.0) as u32)
    }

    /// The side of the tiles that make a product sooner: its smaller side is `narrow`, and `tiles` says how many it is cut
    /// into. What a tile makes beyond the product's edge takes its time, too.
    pub(crate) fn side(self, narrow: usize, tiles: impl Fn(usize) -> usize) -> usize {
        let [plain, wide] = [PLAIN, WIDE].map(|side| area(side, &tiles));
        if narrow > PLAIN && wide * u128::from(self.0) < plain * CLEARLY { WIDE } else { PLAIN }
    }
}

fn area(side: usize, tiles: impl Fn(usize) -> usize) -> u128 {
    (tiles(side) * side * side) as u128
}

/// The choices of every kernel that has variants. Sums of integers are the same with any; others differ in rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiles {
    /// Moments of reals, of counts; convolutions.
    pub gram: Wide,
    pub counts: Wide,
    pub conv: Wide,
    /// Small counts are multiplied by packed dot products. Where an adapter emulates those the kernel of reals may be
    /// faster, and it is exact, too.
    pub dots: bool,
}

impl Default for Tiles {
    fn default() -> Self {
        Self::all(Wide::NEVER)
    }
}

impl Tiles {
    fn all(wide: Wide) -> Self {
        Self { gram: wide, counts: wide, conv: wide, dots: true }
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
/// Percent of a kernel's time that another may take to be clearly faster: more is noise.
const CLEARLY: u128 = 97;
const RUNS: usize = 3;

/// The choices for an adapter that was just opened.
pub(super) fn of_adapter(dev: &Device) -> Tiles {
    if dev.info().software() || !dev.is_gpu() {
        return Tiles::default();
    }
    calibrated(dev, cache().as_deref(), PROBLEM).unwrap_or_else(|e| {
        tracing::debug!("kernels were not timed: {e}");
        Tiles::default()
    })
}

/// The choices that suit an adapter best: from `folder` if it knows them, else timed on a problem of so many images and
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
        tracing::debug!("what was timed is not remembered: {e}");
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

/// Runs every kernel with either shape of tile.
fn timed(dev: &Device, (images, channels): (usize, usize)) -> Result<Tiles> {
    let shape = Shape::new(channels, 16, 16);
    let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
    let spec = PatchSpec { input: shape, window, groups: 1 };
    let convolved = Conv { input: shape, output: shape, window, groups: 1 };
    let both = [Wide::NEVER, Wide::ALWAYS].map(|wide| dev.with_tiles(Tiles::all(wide)));
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
        let (x, w) = (dev.upload(&x)?, dev.upload(&vec![1.0f32; shape.c * convolved.depth()])?);
        let mut y = dev.zeros(images * shape.len())?;
        seconds(dev, || conv::real(dev, &convolved, images, &x, &w, Start::Zero, &mut y))
    };
    let timed = |run: &dyn Fn(&Device) -> Result<f64>| -> Result<[f64; 2]> { Ok([run(&both[0])?, run(&both[1])?]) };
    let (gram, counts, conv) =
        (timed(&|dev| moments(dev, false))?, timed(&|dev| moments(dev, true))?, timed(&convolution)?);
    let compared = |[plain, wide]: [f64; 2], tiles: &dyn Fn(usize) -> usize| Wide::measured(plain, wide, tiles);
    let square = |side| gram::tiles(side, spec.entries(), spec.entries(), true);
    let best = |[plain, wide]: [f64; 2]| plain.min(wide);
    Ok(Tiles {
        gram: compared(gram, &square),
        counts: compared(counts, &square),
        conv: compared(conv, &|side| conv::tiles(&convolved, images, side)),
        dots: 100.0 * best(gram) >= CLEARLY as f64 * best(counts),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_tiles_are_taken_where_their_speed_pays_for_what_they_make_beyond_the_edge() {
        let square = |n: usize| move |side: usize| gram::tiles(side, n, n, true);
        let side = |percent: u32, n: usize| Wide(percent).side(n, square(n));
        // 576 rows are 9 plain tiles, and 640 in 5 wide ones: a third more elements.
        assert_eq!([side(70, 576), side(75, 576), side(70, 1152), side(90, 1152)], [WIDE, PLAIN, WIDE, WIDE]);
        assert_eq!([side(100, 1152), side(10, 64), side(10, 65)], [PLAIN, PLAIN, WIDE]);
        for n in [64, 65, 576, 2304] {
            assert_eq!(Wide::NEVER.side(n, square(n)), PLAIN);
            assert_eq!(Wide::ALWAYS.side(n, square(n)), if n > 64 { WIDE } else { PLAIN });
        }
        assert_eq!(Wide::measured(2.0, 1.0, |_| 1), Wide(13));
        assert_eq!(Wide::measured(2.0, 1.0, |side| 1024 / side * (1024 / side)), Wide(50));
    }
}
