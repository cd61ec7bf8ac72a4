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

#[cfg(test)]
mod tests {
    use super::snapped;

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
