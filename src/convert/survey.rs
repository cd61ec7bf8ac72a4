//! A pass over the calibration images for one layer: what its sources really give and what it is to give, batch by batch.
//! On the way it keeps the layer's trained activations for who reads them, and pre-activations to choose thresholds by.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::contrast;
use super::layer::Task;
use super::tape::Tape;
use super::walk::Walk;
use super::worker::At;
use crate::compute::Buffer;
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
            let host = at.dev.view(z)?;
            let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
            picks.skip_to(at.first());
            for image in host.chunks_exact(task.shape.len()) {
                picks.image(image, &mut samples);
            }
            drop((host, samples));
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
    /// Goes on to a later image.
    fn skip_to(&mut self, image: usize) {
        for _ in 0..image.saturating_sub(self.next) * self.planes * self.each {
            self.rng.usize(..self.area);
        }
        self.next = self.next.max(image);
    }

    /// Puts the next image's values at their place among each plane's.
    fn image(&mut self, values: &[f32], samples: &mut [Vec<f32>]) {
        let at = self.next * self.each;
        for (plane, into) in values.chunks_exact(self.area).zip(samples) {
            into[at..at + self.each].fill_with(|| plane[self.rng.usize(..self.area)]);
        }
        self.next += 1;
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
                    own.skip_to(image);
                    own.image(&value(image), &mut samples);
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
