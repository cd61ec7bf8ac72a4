//! Data sets: images as raw numbers, read in batches. Nothing is held as f32: an uncompressed .npy is read in place,
//! packed arrays stay in their own element type, pictures are decoded when they are asked for.

mod array;
mod element;
mod folder;
mod labels;
mod preprocess;
mod zip;

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::layers::{Layout, Shape};
use crate::error::{Error, Result};
use array::{Array, bad};
use element::{Element, Kind};
use folder::Folder;
pub use labels::read_labels;
pub use preprocess::Preprocess;

/// Order of the colours that the network wants. Files are RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelOrder {
    #[default]
    Rgb,
    /// The first and the last channel of the file change places.
    Bgr,
}

/// Images of one shape, and which of them are selected.
#[derive(Debug, Clone)]
pub struct Dataset {
    name: String,
    shape: Shape,
    /// Channels last in the file.
    channels_last: bool,
    order: ChannelOrder,
    store: Store,
    /// Images in the file.
    total: usize,
    selected: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Store {
    Array { path: PathBuf, array: Array },
    Folder(Folder),
    Uniform { lo: Vec<f32>, hi: Vec<f32>, seed: u64 },
}

impl Dataset {
    /// Opens images of shape `want` (the network's input). `layout` is the file's: channels before or after the
    /// position. Shapes that differ by dimensions of one entry, or by flattening, will do.
    ///
    /// Errors name the file and say both shapes. Values are not looked at yet: see [`Dataset::validate`].
    ///
    /// ```
    /// use synfit::network::{ChannelOrder, Dataset, Layout, Shape};
    /// let path = "configs/digits/test_images.npy".as_ref();
    /// let digits = Dataset::open(path, Shape::new(1, 8, 8), Layout::Nchw, ChannelOrder::Rgb)?.every(5)?;
    /// assert_eq!((digits.len(), digits.is_u8()), (100, true));
    /// assert_eq!(digits.batch(0..10)?.len(), 640);
    /// # Ok::<(), synfit::Error>(())
    /// ```
    pub fn open(path: &Path, want: Shape, layout: Layout, order: ChannelOrder) -> Result<Dataset> {
        let (store, total, channels_last) = if path.is_dir() {
            let folder = Folder::open(path, want)?;
            let total = folder.files.len();
            (Store::Folder(folder), total, true)
        } else {
            let array = Array::open(path, &["images", "x", "data"])?;
            fits(path, &array.dims, want, layout)?;
            let total = array.rows();
            (Store::Array { path: path.to_path_buf(), array }, total, layout == Layout::Nhwc)
        };
        if total == 0 {
            return Err(bad(path, "holds no images"));
        }
        if order == ChannelOrder::Bgr && want.c != 3 {
            return Err(bad(path, format!("BGR order needs three channels; the network wants {want}")));
        }
        let name = path.display().to_string();
        Ok(Dataset { name, shape: want, channels_last, order, store, total, selected: (0..total).collect() })
    }

    /// `n` images drawn uniformly from [lo, hi), one bound or one per feature (CHW order), the same for a given seed.
    pub fn uniform(shape: Shape, n: usize, lo: &[f32], hi: &[f32], seed: u64) -> Result<Dataset> {
        let subject = "random inputs";
        for bound in [lo, hi] {
            if bound.len() != 1 && bound.len() != shape.len() {
                let message =
                    format!("{} bounds for {} features; one, or one each, are needed", bound.len(), shape.len());
                return Err(Error::input(subject, message));
            }
        }
        let at = |b: &[f32], i: usize| b[if b.len() == 1 { 0 } else { i }];
        // Not `>`: a bound that is not a number must fail too.
        if (0..shape.len()).any(|i| !(at(lo, i) <= at(hi, i) && (at(hi, i) - at(lo, i)).is_finite())) {
            return Err(Error::input(subject, "a lower bound is above its upper bound, or not finite"));
        }
        if n == 0 || shape.is_empty() {
            return Err(Error::input(subject, "at least one image is needed"));
        }
        let store = Store::Uniform { lo: lo.to_vec(), hi: hi.to_vec(), seed };
        let order = ChannelOrder::Rgb;
        let selected = (0..n).collect();
        Ok(Dataset { name: subject.into(), shape, channels_last: false, order, store, total: n, selected })
    }

    /// Images selected.
    pub fn len(&self) -> usize {
        self.selected.len()
    }

    pub fn is_empty(&self) -> bool {
        self.selected.is_empty()
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The file, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the values are bytes, 0..255.
    pub fn is_u8(&self) -> bool {
        match &self.store {
            Store::Array { array: a, .. } => a.element.kind == Kind::Unsigned && a.element.bytes == 1,
            Store::Folder(_) => true,
            Store::Uniform { .. } => false,
        }
    }

    /// The first `n` of the selected images (all, if there are fewer).
    pub fn first(mut self, n: usize) -> Result<Dataset> {
        self.selected.truncate(n);
        self.some_left()
    }

    /// Every `step`-th of the selected images (`[::step]`).
    pub fn every(mut self, step: usize) -> Result<Dataset> {
        if step == 0 {
            return Err(Error::input(&self.name, "every 0th image: the step must be 1 or more"));
        }
        self.selected = self.selected.into_iter().step_by(step).collect();
        self.some_left()
    }

    /// The named ones of the selected images, in that order.
    pub fn select(mut self, indices: &[usize]) -> Result<Dataset> {
        let n = self.len();
        let pick = |&i: &usize| {
            let found = self.selected.get(i).copied();
            found.ok_or_else(|| Error::input(&self.name, format!("image {i} is asked for, {n} are there")))
        };
        let selected = indices.iter().map(pick).collect::<Result<_>>()?;
        self.selected = selected;
        self.some_left()
    }

    fn some_left(self) -> Result<Dataset> {
        if self.is_empty() { Err(Error::input(&self.name, "no images are selected")) } else { Ok(self) }
    }

    /// Inputs are drawn at random, not stored.
    pub fn is_random(&self) -> bool {
        matches!(self.store, Store::Uniform { .. })
    }

    /// As many random inputs again, other ones for each `time`; `None` where images are stored.
    pub fn anew(&self, time: usize) -> Option<Dataset> {
        let past = self.total * (time + 1);
        let selected = || self.selected.iter().map(|image| image + past).collect();
        self.is_random().then(|| Dataset { selected: selected(), ..self.clone() })
    }

    /// Raw values of some of the selected images, one image after the other in CHW order; bytes as 0..255.
    pub fn batch(&self, range: Range<usize>) -> Result<Vec<f32>> {
        let rows = self.selected.get(range.clone()).ok_or_else(|| {
            Error::work(&self.name, format!("images {range:?} are asked for, {} are there", self.len()))
        })?;
        let len = self.shape.len();
        let mut out = Vec::with_capacity(rows.len() * len);
        match &self.store {
            Store::Array { array, .. } => {
                let bytes = array.read(rows)?;
                self.convert(&bytes, array.element, &mut out);
            }
            Store::Folder(folder) => {
                for &row in rows {
                    self.convert(&folder.read(row, self.shape)?, Element::U8, &mut out);
                }
            }
            Store::Uniform { lo, hi, seed } => {
                for &row in rows {
                    // Each image has a generator of its own, so that batches may be cut at will.
                    let mut rng =
                        fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(row as u64));
                    out.extend((0..len).map(|i| {
                        let (a, b) = (lo[i.min(lo.len() - 1)], hi[i.min(hi.len() - 1)]);
                        a + (b - a) * rng.f32()
                    }));
                }
            }
        }
        Ok(out)
    }

    /// Appends the images in `bytes`, in the file's order and type, to `out` in CHW order.
    fn convert(&self, bytes: &[u8], element: Element, out: &mut Vec<f32>) {
        let (channels, area) = (self.shape.c, self.shape.area());
        let width = element.bytes;
        for image in bytes.chunks_exact(self.shape.len() * width) {
            for c in 0..channels {
                let from = if self.order == ChannelOrder::Bgr { channels - 1 - c } else { c };
                let (start, step) = if self.channels_last { (from, channels) } else { (from * area, 1) };
                if width == 1 && element.kind == Kind::Unsigned {
                    out.extend((0..area).map(|p| image[start + p * step] as f32));
                } else {
                    out.extend((0..area).map(|p| {
                        let at = (start + p * step) * width;
                        element.value(&image[at..at + width]) as f32
                    }));
                }
            }
        }
    }

    /// Reads every selected image once, in batches, and refuses values that are not finite.
    pub fn validate(&self) -> Result<()> {
        let scan = match &self.store {
            Store::Array { array: a, .. } => a.element.kind == Kind::Float,
            // Pictures cannot hold such values, but they can be damaged.
            Store::Folder(_) => true,
            Store::Uniform { .. } => false,
        };
        if !scan {
            return Ok(());
        }
        let len = self.shape.len();
        let step = ((1 << 22) / len).max(1);
        for first in (0..self.len()).step_by(step) {
            let values = self.batch(first..(first + step).min(self.len()))?;
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let image = self.selected[first + at / len];
                return Err(Error::input(
                    &self.name,
                    format!("image {image} holds {}; all values must be finite", values[at]),
                ));
            }
        }
        Ok(())
    }

    /// Labels of the selected images: from `path`, else those that came with the data (an .npz with `labels`, class
    /// folders), else none.
    pub fn labels(&self, path: Option<&Path>) -> Result<Option<Vec<i64>>> {
        let (source, all) = match (path, &self.store) {
            (Some(path), Store::Folder(folder)) => (path, labels::read_named(path, &folder.files)?),
            (Some(path), _) => (path, read_labels(path)?),
            (None, Store::Folder(Folder { classes: Some(classes), root, .. })) => (root.as_path(), classes.clone()),
            (None, Store::Array { path, .. }) if Array::has_member(path, "labels") => {
                (path.as_path(), read_labels(path)?)
            }
            (None, _) => return Ok(None),
        };
        if all.len() != self.total {
            return Err(bad(
                source,
                format!("holds {} labels for the {} images of {}", all.len(), self.total, self.name),
            ));
        }
        Ok(Some(self.selected.iter().map(|&i| all[i]).collect()))
    }
}

/// Checks that rows of an array with these dimensions are images of shape `want`.
fn fits(path: &Path, dims: &[usize], want: Shape, layout: Layout) -> Result<()> {
    let strip = |d: &[usize]| d.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
    let (chw, hwc) = ([want.c, want.h, want.w], [want.h, want.w, want.c]);
    let rest = strip(dims.get(1..).unwrap_or_default());
    let (expected, other) = if layout == Layout::Nchw { (chw, hwc) } else { (hwc, chw) };
    let size = rest.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let flat = size == Some(want.len()) && (rest.len() <= 1 || strip(&expected).len() <= 1);
    if !dims.is_empty() && (rest == strip(&expected) || flat) {
        return Ok(());
    }
    let show = |d: &[usize]| d.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
    let hint = if rest == strip(&other) {
        let name = if layout == Layout::Nchw { "nhwc" } else { "nchw" };
        format!("; that is layout {name}")
    } else {
        String::new()
    };
    Err(bad(
        path,
        format!(
            "holds images of shape {}, but the network wants {}{hint}",
            show(dims.get(1..).unwrap_or_default()),
            show(&expected)
        ),
    ))
}
