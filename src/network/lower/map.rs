//! Rearrangements of a tensor (transpose, slice, pad, gather, expand, ...) as index maps: element i of the result is
//! element `map[i]` of the source, or zero where the map says `u32::MAX`. Constants and the network's own tensors go
//! through the same functions.

use crate::network::onnx::tensor::{MAX_ELEMENTS, checked_len, show};

/// Zero instead of an element.
pub const ZERO: u32 = u32::MAX;

/// Dimensions of the result and its map.
pub type Mapped = Result<(Vec<usize>, Vec<u32>), String>;

/// Row-major strides.
pub fn strides(dims: &[usize]) -> Vec<usize> {
    let mut out = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        out[i - 1] = out[i] * dims[i];
    }
    out
}

/// Element (i0, i1, ...) of the result is the source element sum over axes of `at[axis][i_axis]`, or zero where one
/// of them is `ZERO`.
fn separable(at: &[Vec<u32>]) -> Mapped {
    let dims: Vec<usize> = at.iter().map(Vec::len).collect();
    checked_len(&dims, MAX_ELEMENTS)?;
    let mut map = vec![0u32];
    for axis in at {
        let join = |base: u32, offset: u32| if base == ZERO || offset == ZERO { ZERO } else { base + offset };
        map = map.iter().flat_map(|&base| axis.iter().map(move |&offset| join(base, offset))).collect();
    }
    Ok((dims, map))
}

/// The identity along every axis, to be changed along some.
fn axes(dims: &[usize]) -> Result<Vec<Vec<u32>>, String> {
    checked_len(dims, MAX_ELEMENTS)?;
    Ok(strides(dims).iter().zip(dims).map(|(&s, &d)| (0..d).map(|i| (i * s) as u32).collect()).collect())
}

pub fn transpose(dims: &[usize], perm: &[usize]) -> Mapped {
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if sorted != (0..dims.len()).collect::<Vec<_>>() {
        return Err(format!("perm {} is no permutation of the axes of {}", show(perm), show(dims)));
    }
    let all = axes(dims)?;
    separable(&perm.iter().map(|&p| all[p].clone()).collect::<Vec<_>>())
}

/// One axis cut to `start, start + step, ...` (numpy's rules for negative and out-of-range values).
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub axis: usize,
    pub start: i64,
    pub end: i64,
    pub step: i64,
}

pub fn slice(dims: &[usize], cuts: &[Cut]) -> Mapped {
    let mut all = axes(dims)?;
    for cut in cuts {
        let n = dims[cut.axis] as i64;
        let (low, high) = if cut.step > 0 { (0, n) } else { (-1, n - 1) };
        let bound = |v: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(low, high);
        let (start, end) = (bound(cut.start), bound(cut.end));
        let mut kept = Vec::new();
        let mut i = start;
        while (cut.step > 0 && i < end) || (cut.step < 0 && i > end) {
            kept.push(all[cut.axis][i as usize]);
            i = i.saturating_add(cut.step);
        }
        if cut.step == 0 || kept.is_empty() {
            return Err(format!("leaves nothing of axis {} of {}", cut.axis, show(dims)));
        }
        all[cut.axis] = kept;
    }
    separable(&all)
}

/// `begin` and `end` zeros around each axis; negative ones cut.
pub fn pad(dims: &[usize], begin: &[i64], end: &[i64]) -> Mapped {
    let own = axes(dims)?;
    let mut spans = Vec::with_capacity(dims.len());
    for (axis, &n) in dims.iter().enumerate() {
        let after = (n as i64).checked_add(end[axis]).filter(|&a| a <= MAX_ELEMENTS as i64);
        let before = begin[axis].checked_neg().filter(|&b| b >= -(MAX_ELEMENTS as i64));
        let (Some(before), Some(after)) = (before, after) else {
            return Err(format!("pads {} by {} and {}", show(dims), begin[axis], end[axis]));
        };
        if after <= before {
            return Err(format!("leaves nothing of axis {axis} of {}", show(dims)));
        }
        spans.push(before..after);
    }
    checked_len(&spans.iter().map(|s| (s.end - s.start) as usize).collect::<Vec<_>>(), MAX_ELEMENTS)?;
    let place = |(span, at): (std::ops::Range<i64>, &Vec<u32>)| -> Vec<u32> {
        span.map(|i| usize::try_from(i).ok().and_then(|i| at.get(i).copied()).unwrap_or(ZERO)).collect()
    };
    separable(&spans.into_iter().zip(&own).map(place).collect::<Vec<_>>())
}

/// Axis `axis` replaced by the entries that `indices` (of any shape) name.
pub fn gather(dims: &[usize], axis: usize, indices: &[i64], index_dims: &[usize]) -> Mapped {
    let mut all = axes(dims)?;
    let n = dims[axis] as i64;
    let mut kept = Vec::with_capacity(indices.len());
    for &i in indices {
        let at = if i < 0 { i.saturating_add(n) } else { i };
        if !(0..n).contains(&at) {
            return Err(format!("index {i} is outside axis {axis} of {}", show(dims)));
        }
        kept.push(all[axis][at as usize]);
    }
    all[axis] = kept;
    let (_, map) = separable(&all)?;
    let out = [&dims[..axis], index_dims, &dims[axis + 1..]].concat();
    Ok((out, map))
}

/// The dimensions that numpy's broadcasting gives two tensors.
pub fn broadcast_dims(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |d: &[usize], i: usize| if i + d.len() < rank { 1 } else { d[i + d.len() - rank] };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(format!("shapes {} and {} do not go together", show(a), show(b))),
        })
        .collect()
}

/// Repeats the elements of `dims` to fill `to` (which broadcasting must allow).
pub fn expand(dims: &[usize], to: &[usize]) -> Mapped {
    if broadcast_dims(dims, to)? != to {
        return Err(format!("{} cannot be expanded to {}", show(dims), show(to)));
    }
    checked_len(to, MAX_ELEMENTS)?;
    let own = axes(dims)?;
    let missing = to.len() - dims.len();
    let all: Vec<Vec<u32>> = to
        .iter()
        .enumerate()
        .map(|(i, &n)| match i.checked_sub(missing) {
            Some(k) if dims[k] == n => own[k].clone(),
            _ => vec![0; n],
        })
        .collect();
    separable(&all)
}

/// The dimensions that Reshape's `shape` means for a tensor of `dims`. `batch` is the batch size that the file
/// declares: the graph is read for one image, so that number as first dimension means 1.
pub fn reshape(dims: &[usize], shape: &[i64], allow_zero: bool, batch: Option<usize>) -> Result<Vec<usize>, String> {
    let len: usize = dims.iter().product();
    let resolve = |shape: &[i64]| -> Option<Vec<usize>> {
        let mut out = Vec::with_capacity(shape.len());
        let mut open = None;
        for (i, &s) in shape.iter().enumerate() {
            out.push(match s {
                -1 if open.is_none() => {
                    open = Some(i);
                    1
                }
                0 if !allow_zero => *dims.get(i)?,
                s => usize::try_from(s).ok()?,
            });
        }
        let known = checked_len(&out, MAX_ELEMENTS).ok()?;
        if let Some(i) = open {
            if known == 0 || !len.is_multiple_of(known) {
                return None;
            }
            out[i] = len / known;
        }
        (out.iter().product::<usize>() == len).then_some(out)
    };
    let mut found = resolve(shape);
    if let (None, Some(b), Some(&first)) = (&found, batch, shape.first())
        && b > 1
        && first == b as i64
    {
        found = resolve(&[&[1], &shape[1..]].concat());
    }
    found.ok_or_else(|| {
        let to = shape.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        format!("cannot reshape {} to [{to}]", show(dims))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_follow_numpy() {
        let cut = |start, end, step| slice(&[5], &[Cut { axis: 0, start, end, step }]).map(|m| m.1);
        assert_eq!(cut(1, i64::MAX, 2), Ok(vec![1, 3]));
        assert_eq!(cut(-2, 99, 1), Ok(vec![3, 4]));
        assert_eq!(cut(-1, i64::MIN, -2), Ok(vec![4, 2, 0]));
        assert!(cut(3, 3, 1).is_err());
        assert!(cut(0, 5, 0).is_err());
    }

    #[test]
    fn reshape_resolves_minus_one_zero_and_the_batch() {
        assert_eq!(reshape(&[1, 4, 6], &[0, -1], false, None), Ok(vec![1, 24]));
        assert_eq!(reshape(&[1, 4, 6], &[64, 24], false, Some(64)), Ok(vec![1, 24]));
        assert!(reshape(&[1, 4, 6], &[5, -1], false, None).is_err());
        assert!(reshape(&[1, 4, 6], &[-1, -1], false, None).is_err());
        assert!(reshape(&[1, 4, 6], &[i64::MAX, i64::MAX], false, None).is_err());
    }
}
