//! Constant tensors: the values of a TensorProto, whatever their storage (typed fields, raw bytes, another file) and
//! type. Floats of every width become f32, integers and booleans i64; that is all that lowering needs.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::proto::TensorProto;

/// No tensor that synfit makes itself (a filled constant, an index map, one image's activations) may hold more
/// elements than this: a corrupt dimension must not ask for all memory.
pub const MAX_ELEMENTS: usize = 1 << 27;

/// Elements of a tensor of these dimensions, or what is wrong with them.
pub fn checked_len(dims: &[usize], limit: usize) -> Result<usize, String> {
    let mut len = 1usize;
    for &d in dims {
        len = len
            .checked_mul(d)
            .filter(|&n| n <= limit)
            .ok_or_else(|| format!("a tensor of {} is too large", show(dims)))?;
    }
    Ok(len)
}

/// `[1, 3, 32, 32]` as the messages print it.
pub fn show(dims: &[usize]) -> String {
    format!("[{}]", dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
}

#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dims: Vec<usize>,
    pub values: Values,
}

impl Tensor {
    pub fn ints(dims: Vec<usize>, values: Vec<i64>) -> Self {
        Self { dims, values: Values::Ints(values) }
    }

    pub fn floats(dims: Vec<usize>, values: Vec<f32>) -> Self {
        Self { dims, values: Values::Floats(values) }
    }

    pub fn len(&self) -> usize {
        match &self.values {
            Values::Floats(v) => v.len(),
            Values::Ints(v) => v.len(),
        }
    }

    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            Values::Floats(v) => v.clone(),
            Values::Ints(v) => v.iter().map(|&x| x as f32).collect(),
        }
    }

    pub fn to_i64(&self) -> Vec<i64> {
        match &self.values {
            Values::Floats(v) => v.iter().map(|&x| x as i64).collect(),
            Values::Ints(v) => v.clone(),
        }
    }

    /// The elements that `map` names, zero where it says `u32::MAX`.
    pub fn pick(&self, dims: Vec<usize>, map: &[u32]) -> Tensor {
        let values = match &self.values {
            Values::Floats(v) => {
                Values::Floats(map.iter().map(|&i| v.get(i as usize).copied().unwrap_or(0.0)).collect())
            }
            Values::Ints(v) => Values::Ints(map.iter().map(|&i| v.get(i as usize).copied().unwrap_or(0)).collect()),
        };
        Tensor { dims, values }
    }
}

/// Decodes a TensorProto; external files are looked for in `folder`. The error says what is wrong, without the
/// tensor's name. No more memory is taken than the file holds values for.
pub fn decode(proto: &TensorProto, folder: Option<&Path>) -> Result<Tensor, String> {
    let mut dims = Vec::with_capacity(proto.dims.len());
    for &d in &proto.dims {
        dims.push(usize::try_from(d).map_err(|_| format!("has a negative dimension ({d})"))?);
    }
    let len =
        checked_len(&dims, usize::MAX >> 8).map_err(|_| format!("has the impossible dimensions {}", show(&dims)))?;
    let external;
    let raw: Option<&[u8]> = if proto.data_location == 1 {
        external = read_external(proto, folder)?;
        Some(&external)
    } else {
        proto.raw_data.as_deref()
    };
    let values = match raw {
        Some(bytes) => from_raw(proto.data_type, bytes, len)?,
        None => from_fields(proto)?,
    };
    let tensor = Tensor { dims, values };
    if tensor.len() != len {
        return Err(format!("has dimensions {} but {} values", show(&tensor.dims), tensor.len()));
    }
    Ok(tensor)
}

fn from_raw(data_type: i32, bytes: &[u8], len: usize) -> Result<Values, String> {
    fn each<const N: usize, T>(bytes: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|&b| f(b)).collect()
    }
    let width = match data_type {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 => 8,
        _ => return Err(unsupported(data_type)),
    };
    if len.checked_mul(width) != Some(bytes.len()) {
        return Err(format!("has {} bytes of data where {len} values of {width} bytes are due", bytes.len()));
    }
    Ok(match data_type {
        1 => Values::Floats(each(bytes, f32::from_le_bytes)),
        2 | 9 => Values::Ints(bytes.iter().map(|&b| b as i64).collect()),
        3 => Values::Ints(bytes.iter().map(|&b| b as i8 as i64).collect()),
        4 => Values::Ints(each(bytes, |b| u16::from_le_bytes(b) as i64)),
        5 => Values::Ints(each(bytes, |b| i16::from_le_bytes(b) as i64)),
        6 => Values::Ints(each(bytes, |b| i32::from_le_bytes(b) as i64)),
        7 => Values::Ints(each(bytes, i64::from_le_bytes)),
        10 => Values::Floats(each(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
        11 => Values::Floats(each(bytes, |b| f64::from_le_bytes(b) as f32)),
        12 => Values::Ints(each(bytes, |b| u32::from_le_bytes(b) as i64)),
        13 => Values::Ints(each(bytes, |b| u64::from_le_bytes(b) as i64)),
        _ => Values::Floats(each(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
    })
}

fn from_fields(proto: &TensorProto) -> Result<Values, String> {
    Ok(match proto.data_type {
        1 => Values::Floats(proto.float_data.clone()),
        11 => Values::Floats(proto.double_data.iter().map(|&x| x as f32).collect()),
        10 => Values::Floats(proto.int32_data.iter().map(|&x| half::f16::from_bits(x as u16).to_f32()).collect()),
        16 => Values::Floats(proto.int32_data.iter().map(|&x| half::bf16::from_bits(x as u16).to_f32()).collect()),
        2..=6 | 9 => Values::Ints(proto.int32_data.iter().map(|&x| x as i64).collect()),
        7 => Values::Ints(proto.int64_data.clone()),
        12 | 13 => Values::Ints(proto.uint64_data.iter().map(|&x| x as i64).collect()),
        other => return Err(unsupported(other)),
    })
}

/// The ONNX name of a tensor's element type.
pub fn type_name(data_type: i32) -> String {
    let names = "undefined float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64 \
                 complex64 complex128 bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz uint4 int4";
    let index = usize::try_from(data_type).unwrap_or(usize::MAX);
    names.split_whitespace().nth(index).map_or_else(|| format!("number {data_type}"), str::to_string)
}

fn unsupported(data_type: i32) -> String {
    format!("has element type {}, which synfit does not read", type_name(data_type))
}

fn read_external(proto: &TensorProto, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    let field = |key: &str| proto.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| -> Result<Option<u64>, String> {
        field(key).map(|v| v.parse().map_err(|_| format!("external data has {key} \"{v}\""))).transpose()
    };
    let location = field("location").ok_or("external data without a location")?;
    let folder = folder.ok_or("has its data in another file, but the model was not read from a file")?;
    let relative = Path::new(location);
    // A model must not make us read files elsewhere on the machine.
    if location.is_empty() || relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("external data file \"{location}\" is not inside the model's folder"));
    }
    let path = folder.join(relative);
    let inside = match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        _ => return Err(format!("external data file \"{location}\" cannot be found")),
    };
    if !inside {
        return Err(format!("external data file \"{location}\" is not inside the model's folder"));
    }
    let mut file = std::fs::File::open(&path).map_err(|e| format!("external data file \"{location}\": {e}"))?;
    let size = file.metadata().map_err(|e| format!("external data file \"{location}\": {e}"))?.len();
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or(size.saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(format!("external data file \"{location}\" is too short: {size} bytes"));
    }
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| format!("external data file \"{location}\": {e}"))?;
    Ok(bytes)
}
