//! Powers of two that the codes of a layer's blocks are shifted by, where blocks have weights of unlike size: a shortcut's
//! weights are often many times those of the convolution beside it, and would take most of a row's grid.

use super::layer::{Columns, Task};
use super::walk::Walk;

impl Walk<'_> {
    /// `task.columns` with shifts chosen by the trained weights, where the chip's grid is known to allow shifts.
    pub(super) fn shifted(&self, task: &Task) -> Vec<Columns> {
        let Some([least, most]) = self.rules.shifts.filter(|_| self.rules.grid.is_some()) else {
            return task.columns.clone();
        };
        if task.columns.len() < 2 {
            return task.columns.clone();
        }
        let unshifted: Vec<Columns> = task.columns.iter().map(|c| Columns { shift: 0, ..*c }).collect();
        let widths: Vec<usize> = unshifted.iter().map(|c| c.channels * c.taps).collect();
        let scales: Vec<f64> =
            unshifted.iter().zip(&widths).flat_map(|(c, &w)| std::iter::repeat_n(c.rate, w)).collect();
        let prior = self.prior(task, &super::layer::rows(task, None), &scales);
        let parts: Vec<Part> = task
            .blocks
            .iter()
            .zip(&widths)
            .scan(0, |first, (block, &width)| {
                let from = std::mem::replace(first, *first + width);
                let rows = prior.chunks_exact(scales.len()).map(|row| &row[from..from + width]);
                Some(Part::new(rows, self.spiking.nodes[block.source].peak))
            })
            .collect();
        unshifted.iter().zip(shifts(&parts, most - least)).map(|(c, shift)| Columns { shift, ..*c }).collect()
    }
}

/// A block's weights, row by row.
struct Part {
    /// Largest size.
    reach: Vec<f64>,
    /// Weights that are not zero times the squared size of their input.
    power: Vec<f64>,
}

impl Part {
    /// `peak`: largest input a step.
    fn new<'a>(rows: impl Iterator<Item = &'a [f64]>, peak: u64) -> Self {
        let each = (peak as f64).powi(2);
        let part = |row: &[f64]| {
            let there = row.iter().filter(|&&w| w != 0.0).count();
            (row.iter().fold(0.0, |m: f64, w| m.max(w.abs())), there as f64 * each)
        };
        let (reach, power) = rows.map(part).unzip();
        Part { reach, power }
    }
}

/// Shifts with the least expected error of rounding: a row's step must reach its largest shifted code, and every weight is
/// rounded to its block's multiple of that step.
fn shifts(parts: &[Part], most: u32) -> Vec<u32> {
    let error = |shifts: &[u32]| -> f64 {
        let by = |shift: u32| f64::from(shift).exp2();
        let row = |r: usize| {
            let blocks = || parts.iter().zip(shifts);
            let step = blocks().map(|(p, &s)| p.reach[r] / by(s)).fold(0.0, f64::max);
            step * step * blocks().map(|(p, &s)| p.power[r] * by(s).powi(2)).sum::<f64>()
        };
        (0..parts[0].reach.len()).map(row).sum()
    };
    let mut best = vec![0; parts.len()];
    let mut least = error(&best);
    loop {
        let raised = (0..parts.len()).filter(|&b| best[b] < most).map(|b| {
            let mut next = best.clone();
            next[b] += 1;
            (error(&next), next)
        });
        match raised.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((e, next)) if e < least => (least, best) = (e, next),
            _ => return best,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(w: &[f64], peak: u64) -> Part {
        Part::new(w.chunks(w.len()), peak)
    }

    #[test]
    fn a_shortcut_leaves_the_grid_to_the_convolution() {
        let conv = part(&[0.1; 144], 1);
        let mut identity = vec![0.0; 16];
        identity[3] = 0.9;
        let found = shifts(&[conv, part(&identity, 1)], 24);
        assert!(found == [0, 3] || found == [0, 4], "{found:?}");
    }

    #[test]
    fn small_counts_take_the_higher_bits() {
        // the same weights a rate: 64 times as large a count where there are fewer of these
        let found = shifts(&[part(&[1.0 / 64.0; 32], 64), part(&[1.0; 32], 1)], 24);
        assert_eq!(found, [0, 6]);
    }

    #[test]
    fn equal_blocks_and_the_chip_s_limit() {
        assert_eq!(shifts(&[part(&[1.0; 8], 1), part(&[0.9; 8], 1)], 24), [0, 0]);
        assert_eq!(shifts(&[part(&[0.01; 800], 1), part(&[1.0; 1], 1)], 2), [0, 2]);
        assert_eq!(shifts(&[part(&[0.0; 8], 1), part(&[1.0; 8], 1)], 24), [0, 0]);
    }
}
