//! Where a row's palette starts: K levels for n weights, from their values alone.

/// Most rounds of k-means on a line.
const ROUNDS: usize = 100;

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// K-means, all inputs alike.
    Plain,
    /// K-means, each input weighted by its H_ii.
    Weighted,
    /// Quantiles of the weighted inputs.
    Quantiles,
    /// Evenly from the least to the largest.
    Even,
}

impl Start {
    /// `count` rising levels for `w`, whose inputs weigh `weights` each.
    pub fn levels(self, w: &[f64], weights: &[f64], count: usize) -> Vec<f64> {
        let one = |i: usize| if self == Start::Plain { 1.0 } else { weights[i] };
        let mut points: Vec<(f64, f64)> = w.iter().enumerate().map(|(i, w)| (*w, one(i))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return vec![0.0; count] };
        let even = |k: usize| match count {
            1 => 0.5 * (first.0 + last.0),
            _ => first.0 + (last.0 - first.0) * k as f64 / (count - 1) as f64,
        };
        match self {
            Start::Even => (0..count).map(even).collect(),
            Start::Quantiles => quantiles(&points, count),
            _ => {
                let starts = [quantiles(&points, count), (0..count).map(even).collect()];
                let ends = starts.map(|levels| k_means(&points, levels));
                let [a, b] = ends;
                if a.0 <= b.0 { a.1 } else { b.1 }
            }
        }
    }
}

/// The middles of `count` shares of the weight.
fn quantiles(points: &[(f64, f64)], count: usize) -> Vec<f64> {
    let total: f64 = points.iter().map(|p| p.1).sum();
    let (mut at, mut sum) = (0, points[0].1);
    (0..count)
        .map(|k| {
            let share = total * (k as f64 + 0.5) / count as f64;
            while sum < share && at + 1 < points.len() {
                at += 1;
                sum += points[at].1;
            }
            points[at].0
        })
        .collect()
}

/// Lloyd's algorithm on sorted points (value, weight): the weighted squared error reached, and the levels.
fn k_means(points: &[(f64, f64)], mut levels: Vec<f64>) -> (f64, Vec<f64>) {
    let mut error = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut sums = vec![(0.0, 0.0); levels.len()];
        let (mut k, mut now) = (0, 0.0);
        for (v, weight) in points {
            while k + 1 < levels.len() && levels[k + 1] - v <= v - levels[k] {
                k += 1;
            }
            now += weight * (v - levels[k]).powi(2);
            sums[k].0 += weight * v;
            sums[k].1 += weight;
        }
        if now >= error * (1.0 - 1e-12) {
            break;
        }
        error = now;
        levels.iter_mut().zip(sums).filter(|(_, sum)| sum.1 > 0.0).for_each(|(v, sum)| *v = sum.0 / sum.1);
        levels.sort_by(f64::total_cmp);
    }
    (error, levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_found() {
        let w = [0.9, -1.0, 1.1, 0.0, -1.2, 1.0, 0.1, -0.1];
        for start in [Start::Plain, Start::Weighted] {
            let levels = start.levels(&w, &[2.0; 8], 3);
            assert!(levels.iter().zip([-1.1, 0.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{levels:?}");
        }
        assert_eq!(Start::Even.levels(&w, &[1.0; 8], 3).first(), Some(&-1.2));
        assert_eq!(Start::Quantiles.levels(&w, &[1.0; 8], 1), [0.0]);
    }

    #[test]
    fn weights_pull_and_more_levels_than_points_do_no_harm() {
        let levels = Start::Weighted.levels(&[0.0, 1.0], &[3.0, 1.0], 1);
        assert!((levels[0] - 0.25).abs() < 1e-12);
        for start in [Start::Plain, Start::Weighted, Start::Quantiles, Start::Even] {
            let levels = start.levels(&[0.5, -0.5], &[1.0, 1.0], 5);
            assert!(levels.len() == 5 && levels.windows(2).all(|p| p[0] <= p[1]), "{start:?} {levels:?}");
            assert!([0.5, -0.5].iter().all(|w| levels.contains(w)), "{start:?} {levels:?}");
            assert_eq!(start.levels(&[], &[], 2), [0.0, 0.0]);
        }
    }
}
