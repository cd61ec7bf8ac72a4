//! Plain loops compiled for the vector instructions that this machine has, beside those that every machine has.

/// Runs `loops` with the widest vectors there are; what it calls takes part only where it is inlined. Results are the
/// same at every width: nothing here fuses or reorders arithmetic.
#[inline(always)]
pub(crate) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}

/// Sum of `term` over pairs, in eight partial sums that vector lanes can hold.
#[inline(always)]
pub(crate) fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut parts = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a8.remainder().iter().zip(b8.remainder());
    let tail: f64 = rest.map(|(&a, &b)| term(f64::from(a), f64::from(b))).sum();
    for (a, b) in a8.zip(b8) {
        for (part, (&a, &b)) in parts.iter_mut().zip(a.iter().zip(b)) {
            *part += term(f64::from(a), f64::from(b));
        }
    }
    parts.iter().sum::<f64>() + tail
}
