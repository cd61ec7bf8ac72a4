//! Element types of arrays in files, and their values as f32 or i64.

/// What one number in a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Unsigned,
    Signed,
    Float,
}

/// An element type: kind, width in bytes, byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    pub kind: Kind,
    pub bytes: usize,
    pub big_endian: bool,
}

impl Element {
    pub const U8: Element = Element { kind: Kind::Unsigned, bytes: 1, big_endian: false };

    /// The number in `bytes` (exactly `self.bytes` of them), as f64; u64 and i64 beyond 2^53 lose digits.
    pub fn value(self, bytes: &[u8]) -> f64 {
        if self.kind != Kind::Float {
            return self.integer(bytes) as f64;
        }
        let bits = self.bits(bytes);
        match self.bytes {
            2 => half::f16::from_bits(bits as u16).to_f64(),
            4 => f32::from_bits(bits as u32) as f64,
            _ => f64::from_bits(bits),
        }
    }

    /// The integer in `bytes`; only for integer kinds.
    pub fn integer(self, bytes: &[u8]) -> i64 {
        let bits = self.bits(bytes);
        let unused = 64 - 8 * self.bytes as u32;
        if self.kind == Kind::Signed { ((bits << unused) as i64) >> unused } else { bits as i64 }
    }

    fn bits(self, bytes: &[u8]) -> u64 {
        let join = |bits: u64, &b: &u8| bits << 8 | b as u64;
        if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
    }
}
