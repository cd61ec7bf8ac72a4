//! A pass over the calibration images for one layer: what its sources really give and what it is to give, batch by batch.
//! On the way it keeps the layer's trained activations for who reads them, and pre-activations to choose thresholds by.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::contrast;
use super::layer::Task;
use super::tape::Tape;
use super::walk::Walk;
use super::worker::At;
use crate::compute::{Buffer, gather};
use crate::error::Result;

/// Pre-activations kept per channel to choose thresholds by.
const SAMPLES: usize = 4096;

/// A pass under way.
pub(super) struct Pass<'a> {
    task: &'a Task<'a>,
    /// Per channel, image after image.
    samples: Mutex<Vec<Vec<f32>>>,
    /// One a device.
    picks: Vec<Picks>,
    tapes: Vec<Option<Tape>>,
}

impl<'a> Pass<'a> {
    /// `keep`: somebody reads the layer's trained activations.
    pub fn new(walk: &Walk, task: &'a Task<'a>, keep: bool) -> Result<Self> {
        let (all, area) = (walk.images.len(), task.shape.area());
        let per_image = SAMPLES.div_ceil(all).min(area);
        let picks = Picks {
            rng: fastrand::Rng::with_seed(walk.options.seed ^ task.index as u64),
            next: 0,
            planes: task.shape.c,
            each: per_image,
            area,
        };
        walk.begin(&format!("fit {}", task.name));
        Ok(Self {
            task,
            samples: Mutex::new(vec![vec![0.0; all * per_image]; task.shape.c]),
            picks: vec![picks; walk.team.size()],
            tapes: walk.states(|walk, _, _| keep.then(|| walk.tapes.tape()).transpose())?,
        })
    }

    /// Goes over `images`, which lie after those that it went over before: `take` gets the rates and trained pre-activations
    /// of every batch, and its device's state.
    pub fn over<S: Send>(
        &mut self,
        walk: &mut Walk,
        images: Range<usize>,
        states: &mut [S],
        take: impl Fn(&At<'_>, &[&Buffer<f32>], &Buffer<f32>, &mut S) -> Result<()> + Sync,
    ) -> Result<()> {
        let Self { task, samples, picks, tapes } = self;
        let (task, samples) = (*task, &*samples);
        let mut all: Vec<_> = states.iter_mut().zip(picks).zip(tapes).collect();
        walk.work(images, &mut all, |at, ((state, picks), tape)| {
            let mut whole = at.pre_activations(task.index)?;
            let part = at.compared(task, &whole)?;
            let z = part.as_ref().unwrap_or(&whole);
            let xs = at.rates(task)?;
            take(at, &xs.iter().collect::<Vec<_>>(), z, state)?;
            let (first, index) = (at.first(), picks.batch(at.first(), at.images()));
            let mut picked = at.dev.scratch(index.len())?;
            gather::into(at.dev, &at.dev.upload(&index)?, 1, z.len(), z, 0, index.len(), &mut picked)?;
            let picked = at.dev.view(&picked)?;
            picks.place(first, &picked, &mut samples.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(tape) = tape {
                at.activate(task.index, &mut whole)?;
                tape.push_values(&at.dev.view(&whole)?)?;
            }
            at.walk.watch.tick();
            Ok(())
        })
    }

    /// Leaves the trained activations to the devices; gives the pre-activations per channel.
    pub fn finish(self, walk: &mut Walk) -> Vec<Vec<f32>> {
        for (worker, tape) in walk.workers.iter_mut().zip(self.tapes) {
            worker.ann[self.task.index] = tape;
        }
        self.samples.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl At<'_> {
    /// What the rows are to give, if not all pre-activations as they are: deviations from their mean for a layer that
    /// decides, the channels that stay for one that is pruned, or what these are refined to.
    fn compared(&mut self, task: &Task, z: &Buffer<f32>) -> Result<Option<Buffer<f32>>> {
        if let Some(refined) = self.refined(task.index)? {
            return Ok(Some(refined));
        }
        match (task.contrast, task.picked) {
            (Some(outputs), _) => self.dev.upload(&contrast::targets(&self.dev.view(z)?, outputs)).map(Some),
            (None, Some(picked)) => picked.pick((self.worker.number, self.dev), self.images(), z).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The pre-activations that the rows are to give.
    pub fn wanted(&mut self, task: &Task) -> Result<Buffer<f32>> {
        let z = self.pre_activations(task.index)?;
        Ok(self.compared(task, &z)?.unwrap_or(z))
    }
}

/// Random positions of every image: the same ones, whichever device sees it.
#[derive(Clone)]
struct Picks {
    rng: fastrand::Rng,
    /// The image that comes next.
    next: usize,
    /// Planes of an image, positions of a plane that are kept, and that there are.
    planes: usize,
    each: usize,
    area: usize,
}

impl Picks {
    /// Where they lie in the values of a batch, from image `first` on, none of which came before: image after image, plane
    /// after plane.
    fn batch(&mut self, first: usize, images: usize) -> Vec<u32> {
        for _ in 0..first.saturating_sub(self.next) * self.planes * self.each {
            self.rng.usize(..self.area);
        }
        self.next = first + images;
        let planes = (0..images * self.planes).flat_map(|plane| std::iter::repeat_n(plane, self.each));
        planes.map(|plane| (plane * self.area + self.rng.usize(..self.area)) as u32).collect()
    }

    /// Puts the values there, `picked`, at their images' place among each plane's.
    fn place(&self, first: usize, picked: &[f32], samples: &mut [Vec<f32>]) {
        for (plane, picked) in picked.chunks_exact(self.each).enumerate() {
            let at = (first + plane / self.planes) * self.each;
            samples[plane % self.planes][at..at + self.each].copy_from_slice(picked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Picks;

    #[test]
    fn images_keep_the_same_samples_whoever_sees_them() {
        let (planes, each, area, images) = (3, 2, 5, 8);
        let value = |image: usize| -> Vec<f32> { (0..planes * area).map(|i| (image * 100 + i) as f32).collect() };
        let picks = Picks { rng: fastrand::Rng::with_seed(3), next: 0, planes, each, area };
        let seen = |parts: &[&[usize]]| {
            let mut samples = vec![vec![-1.0; images * each]; planes];
            for part in parts {
                let mut own = picks.clone();
                for &image in *part {
                    let (values, index) = (value(image), own.batch(image, 1));
                    let picked: Vec<f32> = index.iter().map(|&i| values[i as usize]).collect();
                    own.place(image, &picked, &mut samples);
                }
            }
            samples
        };
        let whole = seen(&[&[0, 1, 2, 3, 4, 5, 6, 7]]);
        assert!(whole.iter().flatten().all(|v| *v >= 0.0));
        assert!(whole[1][4..6].iter().all(|v| (205.0..210.0).contains(v)), "{whole:?}");
        assert_eq!(whole, seen(&[&[2, 3, 6], &[0, 1, 4, 5, 7]]));
        assert_ne!(whole[0][..2], seen(&[&[1, 2, 3]])[0][..2]);
    }
}
