//! Neurons of chips in the chips' own integers, step by step: what a conversion's neurons (`Model`) are the settings of,
//! with all that those leave out. Where a response has no closed form, it is measured from the exact step.

pub mod loihi;
pub mod truenorth;
pub mod xylo;

/// A chip's neuron: its parameters. The state is apart, so that one set of parameters serves many.
pub trait Exact {
    type State: Clone;

    /// Where a neuron starts.
    fn start(&self) -> Self::State;

    /// One time step with the sum of the weights that spikes brought; the spikes that it fires.
    fn step(&self, state: &mut Self::State, drive: i32) -> u32;

    /// Spikes in `steps` steps of a constant drive: the response function, measured.
    ///
    /// ```
    /// use synfit::neuron::chips::{Exact, xylo::Xylo};
    /// let neuron = Xylo { dash_syn: 0, dash_mem: 15, threshold: 100, bias: 0, max_spikes: 31 };
    /// // 30 a step less a leak of 1: seven steps for two spikes
    /// assert_eq!(neuron.count(30, 7), 2);
    /// ```
    fn count(&self, drive: i32, steps: u32) -> u32 {
        let mut state = self.start();
        (0..steps).map(|_| self.step(&mut state, drive)).sum()
    }

    /// The least drive of `drives` (rising) that gives `spikes` or more in `steps` steps: the inverse response, measured.
    /// None where no drive does. Exact where the response rises with the drive, which that of a neuron whose state wraps
    /// around does only below that.
    fn least_drive(&self, drives: std::ops::RangeInclusive<i32>, spikes: u32, steps: u32) -> Option<i32> {
        let (mut low, mut high) = (i64::from(*drives.start()), i64::from(*drives.end()));
        if low > high || self.count(high as i32, steps) < spikes {
            return None;
        }
        while low < high {
            let middle = (low + high).div_euclid(2);
            if self.count(middle as i32, steps) >= spikes { high = middle } else { low = middle + 1 }
        }
        Some(low as i32)
    }
}
