//! Whether a layer's problem fits the host's memory, and which way it takes: told before the pass over the images, not
//! found out after it.

use super::layer::Task;
use super::walk::Walk;
use crate::compute::free_host_bytes;
use crate::error::{Error, Result};
use crate::fit;

/// What a layer asks for.
#[derive(Debug, Clone, Copy)]
struct Ask {
    /// Inputs, groups, images.
    inputs: usize,
    groups: usize,
    images: usize,
    /// An image is a sample: it is dense.
    dense: bool,
    /// The chip's rules allow a fit from samples.
    allowed: bool,
}

/// n x n matrices in f64 beside one a group: the problem's H, the system's, its scaled form, factor and inverse.
const COPIES: u64 = 5;

impl Ask {
    /// Bytes of the Gram matrix and its factor.
    fn gram(&self) -> u64 {
        let square = (self.inputs as u64).saturating_mul(self.inputs as u64);
        square.saturating_mul(size_of::<f64>() as u64).saturating_mul(self.groups as u64 + COPIES)
    }

    /// The error of a layer whose Gram matrix exceeds `free` bytes.
    fn refusal(&self, free: u64) -> Option<String> {
        let need = self.gram();
        if need <= free {
            return None;
        }
        let (n, images) = (self.inputs, self.images);
        let way = match (self.dense, self.allowed) {
            (true, true) => {
                format!("with fewer images than inputs (there are {images}) it is fitted from them instead")
            }
            (true, false) => {
                "from its samples it could be fitted without, but not under these bounds, signs, palettes or \
                              method"
                    .into()
            }
            (false, _) => "only dense layers can be fitted without".into(),
        };
        Some(format!(
            "the Gram matrix of its {n} inputs and what it is solved with take {} where {} are free; {way}",
            size(need),
            size(free)
        ))
    }
}

pub(super) fn size(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

impl Walk<'_> {
    /// Says which way a large layer takes.
    ///
    /// # Errors
    /// `Work`: the host has no room for its Gram matrix, and it cannot do without.
    pub(super) fn room(&self, task: &Task, by_samples: bool) -> Result<()> {
        let ask = Ask {
            inputs: task.inputs(),
            groups: task.groups,
            images: self.images.len(),
            dense: self.dense(task),
            allowed: fit::dual_applies(&self.spec()),
        };
        if by_samples {
            let (n, images) = (ask.inputs, ask.images);
            let own = size((n * images * size_of::<f64>() * 3) as u64);
            let gram = size(ask.gram());
            tracing::info!(
                "{}: fitted from its {images} samples in {own}, as the Gram matrix of {n} inputs takes {gram}",
                task.name
            );
            return Ok(());
        }
        match free_host_bytes().and_then(|free| ask.refusal(free)) {
            Some(message) => Err(Error::work(task.name, message)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_told_with_its_size_and_the_other_way() {
        let ask = Ask { inputs: 25_088, groups: 1, images: 30_000, dense: true, allowed: true };
        let need = 25_088u64 * 25_088 * 8 * 6;
        assert_eq!(ask.gram(), need);
        assert_eq!(ask.refusal(need), None);
        let message = ask.refusal(8 << 30).unwrap();
        for part in ["25088 inputs", "28.1 GiB", "8.0 GiB", "there are 30000"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(Ask { allowed: false, ..ask }.refusal(8 << 30).unwrap().contains("not under these bounds"));
        assert!(Ask { dense: false, ..ask }.refusal(8 << 30).unwrap().contains("only dense"));
        // sizes beyond 64 bits are refused, not wrapped
        assert!(Ask { inputs: usize::MAX / 2, ..ask }.refusal(u64::MAX - 1).is_some());
    }
}
