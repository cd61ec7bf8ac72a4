//! Continuous results that integers or searches are derived from, cut to a few significant bits: devices that round
//! sums differently then come to the same integers, and no chaotic simulation tells them apart.

/// The nearest number of `bits` significant bits.
pub fn snapped(v: f64, bits: i32) -> f64 {
    if v == 0.0 || !v.is_finite() || bits >= 53 {
        return v;
    }
    let unit = 2f64.powi(v.abs().log2().floor() as i32 + 1 - bits);
    (v / unit).round() * unit
}

/// The power of two nearest to `v`: of a parabola whose least is at `v`, where it is least among powers of two. What is
/// not positive stays as it is.
pub(super) fn power_of_two(v: f64) -> f64 {
    if !(v > 0.0 && v.is_finite()) {
        return v;
    }
    let below = 2f64.powi(v.log2().floor() as i32);
    if v <= 1.5 * below { below } else { 2.0 * below }
}

/// The least power of two that is not below `v` > 0.
pub(super) fn next_power_of_two(v: f64) -> f64 {
    2f64.powi(v.log2().ceil() as i32)
}

pub(super) fn is_power_of_two(v: f64) -> bool {
    v > 0.0 && v.is_finite() && power_of_two(v) == v
}

#[cfg(test)]
mod tests {
    use super::{is_power_of_two, next_power_of_two, power_of_two, snapped};

    #[test]
    fn powers_of_two() {
        for (v, nearest, next) in [
            (1.0, 1.0, 1.0),
            (1.49, 1.0, 2.0),
            (1.51, 2.0, 2.0),
            (0.3, 0.25, 0.5),
            (0.4, 0.5, 0.5),
            (1e-9, 9.31e-10, 1.86e-9),
        ] {
            assert!((power_of_two(v) / nearest - 1.0).abs() < 1e-3, "{v}");
            assert!((next_power_of_two(v) / next - 1.0).abs() < 2e-3, "{v}");
            assert!(is_power_of_two(power_of_two(v)) && is_power_of_two(next_power_of_two(v)));
        }
        for v in [0.0, -2.0, 3.0, 0.75, f64::INFINITY, f64::NAN] {
            assert!(!is_power_of_two(v), "{v}");
        }
        for v in [0.0, -2.0, f64::INFINITY] {
            assert_eq!(power_of_two(v), v);
        }
    }

    #[test]
    fn a_few_bits_are_kept() {
        assert_eq!(snapped(1.0 + 1.0 / 1024.0, 10), 1.0 + 2.0 / 1024.0);
        assert_eq!(snapped(1.0 + 0.9 / 1024.0, 10), 1.0);
        assert_eq!(snapped(-0.3, 3), -0.3125);
        assert_eq!(snapped(255.9, 8), 256.0);
        for v in [0.0, f64::INFINITY, 3.0, -1e-300] {
            assert_eq!(snapped(v, 53), v);
        }
    }
}
