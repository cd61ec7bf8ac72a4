//! What a few samples say of values that they do not hold. One new value in 256 passes the largest of 256 samples: a
//! threshold that suits the samples alone clips unseen ones, and where rates are fine nothing else costs as much. Beyond
//! a high value, excesses are close to exponential (peaks over threshold: Pickands, Ann. Statist. 3, 1975), and their mean
//! tells how far they reach.

/// Steps from which it pays. In fewer, rounding costs more than clipping, which the layers after make up for in part: on
/// images that were neither fitted nor tested on, outputs were nearer with thresholds by the samples alone in up to 32
/// steps, and farther in 64 and 128.
const FINE: u32 = 64;
/// Share of the samples that are its tail, and how few and many are enough to know it by.
const SHARE: usize = 16;
const TAIL: (usize, usize) = (8, 32);
/// Values that stand for the tail: its quantiles.
const QUANTILES: usize = 64;

/// Samples with their weights, for a threshold of so many steps: those below the tail as they are, and quantiles of the
/// exponential that has the tail's mean instead of the rest. Samples too few for a tail stay as they are.
pub(super) fn smoothed(z: &[f32], steps: u32) -> Vec<(f64, f64)> {
    let mut sorted: Vec<f64> = z.iter().map(|&v| f64::from(v)).collect();
    let tail = (sorted.len() / SHARE).min(TAIL.1);
    if steps < FINE || tail < TAIL.0 {
        return sorted.into_iter().map(|v| (v, 1.0)).collect();
    }
    sorted.sort_by(f64::total_cmp);
    let high = sorted.split_off(sorted.len() - tail);
    let from = high[0];
    // the lowest has no excess: it is where they are counted from
    let mean = high.iter().map(|v| v - from).sum::<f64>() / (tail - 1) as f64;
    let weight = tail as f64 / QUANTILES as f64;
    let quantile = |i: usize| from - mean * (1.0 - (i as f64 + 0.5) / QUANTILES as f64).ln();
    sorted.into_iter().map(|v| (v, 1.0)).chain((0..QUANTILES).map(|i| (quantile(i), weight))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a threshold at 6 would clip of an exponential, told by 256 samples to a factor of 4: mostly by their tail, seldom
    /// by the samples alone, of which in every second case none is above 6.
    #[test]
    fn a_tail_reaches_beyond_its_samples() {
        let mut rng = fastrand::Rng::with_seed(3);
        // E[(z - 6)^2 of z > 6] = 2 e^-6
        let expected = 2.0 * (-6.0f64).exp();
        let near = |all: &[(f64, f64)]| {
            let clipped: f64 = all.iter().map(|(v, w)| w * (v - 6.0).max(0.0).powi(2)).sum();
            let weight: f64 = all.iter().map(|(_, w)| w).sum();
            assert!((weight - 256.0).abs() < 1e-9);
            (0.25..4.0).contains(&(clipped / weight / expected))
        };
        let (mut smooth, mut rough) = (0, 0);
        for _ in 0..200 {
            let z: Vec<f32> = (0..256).map(|_| -(1.0 - rng.f32()).ln()).collect();
            smooth += u32::from(near(&smoothed(&z, FINE)));
            rough += u32::from(near(&smoothed(&z, FINE - 1)));
        }
        assert!(smooth >= 80 && smooth > rough * 3 / 2, "{smooth} of 200 instead of {rough}");
    }

    #[test]
    fn few_samples_stay() {
        let z = [3.0, -1.0, 2.0];
        assert_eq!(smoothed(&z, 1024), vec![(3.0, 1.0), (-1.0, 1.0), (2.0, 1.0)]);
    }
}
