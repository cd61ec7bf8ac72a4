//! Which tile shapes the matrix kernels use on a device.

/// The shape of a workgroup's tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tile {
    /// 64 x 64, 4 x 4 a thread: many workgroups at a time, few registers.
    #[default]
    Plain,
    /// 128 x 128, 8 x 8 a thread: half the loads a product.
    Wide,
}

/// One choice for every kernel that has variants. Sums of integers are the same with any; others differ in rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tiles {
    pub gram: Tile,
    pub counts: Tile,
    pub conv: Tile,
}
