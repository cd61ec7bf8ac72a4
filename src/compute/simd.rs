//! Plain loops compiled for the vector instructions that this machine has, beside those that every machine has.

/// Runs `loops` with the widest vectors there are; what it calls takes part only where it is inlined. Results are the
/// same at every width: nothing here fuses or reorders arithmetic.
#[inline(always)]
pub(crate) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}
