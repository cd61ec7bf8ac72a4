//! Spike trains of a node for a batch, in the form that its device works on.

use std::ops::Deref;

use crate::compute::spikes::Spikes;
use crate::compute::step::MOST_STEPS;
use crate::compute::words::{self, Packing};
use crate::compute::{Buffer, Device, time};
use crate::error::Result;
use crate::network::Shape;

/// Spike trains of one node for a batch: counts `[steps][images][shape]`. `steps` is 1 where the trains are constant (one
/// step stands for all), and in the layered schedule, where only the totals over T matter.
pub struct Trains {
    pub steps: usize,
    pub images: usize,
    data: Data,
}

enum Data {
    Counts(Buffer<i32>),
    /// On the CPU, where no count is above 1.
    Bits(Spikes),
    /// As a tape keeps them.
    Words(Packing, Buffer<u32>),
}

/// Counts, made for the occasion or lent.
pub enum Counts<'a> {
    Made(Buffer<i32>),
    Lent(&'a Buffer<i32>),
}

impl Deref for Counts<'_> {
    type Target = Buffer<i32>;

    fn deref(&self) -> &Buffer<i32> {
        match self {
            Counts::Made(buffer) => buffer,
            Counts::Lent(buffer) => buffer,
        }
    }
}

impl Trains {
    /// Of counts `[steps][images][shape]`.
    pub fn new(steps: usize, images: usize, counts: Buffer<i32>) -> Trains {
        Trains { steps, images, data: Data::Counts(counts) }
    }

    /// The largest count of a step of these trains, where one of the network's `steps` has `peak` at most: one step stands
    /// for all of them in constant and layered trains.
    pub(crate) fn most(&self, peak: u64, steps: u32) -> u64 {
        peak.saturating_mul(if self.steps == 1 { u64::from(steps) } else { 1 })
    }

    /// Of packed counts `[steps][images][shape]`.
    pub(crate) fn of_words(packing: Packing, images: usize, words: Buffer<u32>) -> Trains {
        Trains { steps: packing.steps(), images, data: Data::Words(packing, words) }
    }

    /// The counts `[steps][images][shape]`, none of which is above `peak`, packed.
    pub(crate) fn words(&self, dev: &Device, peak: u64) -> Result<(Packing, Buffer<u32>)> {
        let counts = self.counts(dev)?;
        let packing = Packing::new(self.steps, counts.len() / self.steps.max(1), peak);
        let mut packed = dev.scratch(packing.words())?;
        words::pack(dev, &packing, &counts, &mut packed)?;
        Ok((packing, packed))
    }

    /// The counts `[steps][images][shape]`.
    pub fn counts(&self, dev: &Device) -> Result<Counts<'_>> {
        Ok(match &self.data {
            Data::Counts(counts) => Counts::Lent(counts),
            Data::Bits(spikes) => {
                let len = self.images * self.steps * spikes.shape().len();
                Counts::Made(dev.upload_with(len, |counts| {
                    spikes.unpack(counts);
                    Ok(())
                })?)
            }
            Data::Words(packing, packed) => {
                let mut counts = dev.scratch(packing.counts())?;
                words::unpack(dev, packing, packed, &mut counts)?;
                Counts::Made(counts)
            }
        })
    }

    /// The bits, if that is what is kept.
    pub(crate) fn bits(&self) -> Option<&Spikes> {
        match &self.data {
            Data::Bits(spikes) => Some(spikes),
            Data::Counts(_) | Data::Words(..) => None,
        }
    }

    /// The bits, made of counts (of a node of `shape`, on the CPU) if need be; none if a count is above 1.
    pub(super) fn packed(&self, dev: &Device, shape: Shape) -> Result<Option<Packed<'_>>> {
        if let Data::Bits(spikes) = &self.data {
            return Ok(Some(Packed::Lent(spikes)));
        }
        let counts = self.counts(dev)?;
        Ok(Spikes::pack(self.images, shape, self.steps, &dev.view(&*counts)?).map(Packed::Made))
    }

    /// Counts summed over the steps, `[images][shape]`; exact, as f32, below 2^24.
    pub fn totals(&self, dev: &Device) -> Result<Buffer<f32>> {
        match &self.data {
            Data::Bits(spikes) => dev.upload_with(self.images * spikes.shape().len(), |totals| {
                spikes.totals(totals);
                Ok(())
            }),
            Data::Counts(counts) => {
                let len = counts.len() / self.steps;
                let mut y = dev.scratch(len)?;
                time::total(dev, self.steps, len, counts, &mut y)?;
                Ok(y)
            }
            Data::Words(packing, packed) => {
                let mut y = dev.scratch(packing.counts() / self.steps)?;
                words::total(dev, packing, packed, &mut y)?;
                Ok(y)
            }
        }
    }

    /// Sums of the counts of `elements` over steps and at least some of the images, `[..][element]`, where that saves a
    /// transfer: all that a sum over a batch needs. No count is above `peak`.
    pub(super) fn sums(&self, dev: &Device, elements: usize, peak: u64) -> Result<Buffer<f32>> {
        let frames = self.steps * self.images;
        match &self.data {
            Data::Counts(counts)
                if dev.is_gpu() && frames <= MOST_STEPS && peak.saturating_mul(frames as u64) <= EXACT =>
            {
                let mut y = dev.scratch(elements)?;
                time::total(dev, frames, elements, counts, &mut y)?;
                Ok(y)
            }
            _ => self.totals(dev),
        }
    }
}

/// Sums that f32 holds exactly.
const EXACT: u64 = 1 << 24;

impl From<Spikes> for Trains {
    fn from(spikes: Spikes) -> Trains {
        Trains { steps: spikes.steps(), images: spikes.images(), data: Data::Bits(spikes) }
    }
}

/// Bits, made for the occasion or lent.
pub(super) enum Packed<'a> {
    Made(Spikes),
    Lent(&'a Spikes),
}

impl Deref for Packed<'_> {
    type Target = Spikes;

    fn deref(&self) -> &Spikes {
        match self {
            Packed::Made(spikes) => spikes,
            Packed::Lent(spikes) => spikes,
        }
    }
}

/// Everybody's counts over `steps`; constant trains that run beside spiking ones are repeated, or multiplied by their
/// `times` where those are totals.
pub(super) fn align<'a>(dev: &Device, inputs: &[&'a Trains], steps: usize, times: &[i32]) -> Result<Vec<Counts<'a>>> {
    let one = |(t, &times): (&&'a Trains, &i32)| {
        let counts = t.counts(dev)?;
        if t.steps == steps && times == 1 {
            return Ok(counts);
        }
        let mut once = dev.view(&counts)?.into_owned();
        once.iter_mut().for_each(|n| *n = n.saturating_mul(times));
        Ok(Counts::Made(dev.upload(&if t.steps == steps { once } else { once.repeat(steps) })?))
    };
    inputs.iter().zip(times).map(one).collect()
}
