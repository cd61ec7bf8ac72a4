//! Plain loops compiled for the vector instructions that this machine has, beside those that every machine has.

/// Runs `loops` with vectors of up to 32 bytes; what it calls takes part only where it is inlined. Results are the same at
/// every width: nothing here fuses or reorders arithmetic. Not wider ones: the compiler's own loops over 64 bytes were
/// slower where it was tried.
#[inline(always)]
pub(crate) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    up_to_32_bytes(Loops(loops))
}

/// Runs on vectors of at most 32 bytes.
#[inline(always)]
pub(crate) fn up_to_32_bytes<W: pulp::WithSimd>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(simd, work);
    }
    pulp::Arch::new().dispatch(work)
}

struct Loops<F>(F);

impl<R, F: FnOnce() -> R> pulp::WithSimd for Loops<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> R {
        (self.0)()
    }
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
