// x, opaque to the compiler, so that sums keep their order: compilers with fast math (Metal, DX12) undo compensated
// formulas. Needs `p.zero`, a 0 that the compiler must not know.
fn keep(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ p.zero);
}
