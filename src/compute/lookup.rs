//! Integrate-and-fire layers on spike bits, on the CPU: currents by table lookup, all steps of a neuron in one go.
//!
//! The synapses of four input channels at one tap make 16 sums, one for each pattern of spikes: a table row per pattern,
//! a lane per output channel. A current is a sum of rows, a quarter as many as there are synapses, in 16-bit integers,
//! with no branch that depends on spikes. It goes straight into the potentials; neither currents nor counts are stored.
//! The result is `conv::integer` and `step::integer`, bit for bit: all of it is integer arithmetic that is proven, when
//! the layer is made, not to overflow.

mod sink;

use pulp::{Scalar, Simd};
use rayon::prelude::*;

use super::conv::Conv;
use super::patch::View;
use super::spikes::Spikes;
use crate::network::Shape;
use crate::neuron::{Model, Reset, step};
use sink::{Bits, Counts, Sink, Vector};

/// Output channels of one vector.
const WIDTH: usize = 16;
/// Bytes of one block's tables beyond which they no longer stay in cache, and matrix products are faster.
const MOST_TABLE: usize = 8 << 20;
/// Output positions of one task.
const PIECE: usize = 128;

type Lanes<T> = [T; WIDTH];

/// Two channels' 16-bit sums in one word, upper * 65536 + lower: added as one number, and taken apart at the end.
/// Written so for explicit vectors of words, because plain loops over 16-bit lanes are not kept in vector registers.
const PAIRS: usize = WIDTH / 2;

/// The rows of one byte of spikes: 16 patterns of its lower four channels, 16 of its upper four. N vectors make K x 16
/// channels.
type Patterns<V, const N: usize> = [[<V as Simd>::u32s; N]; 32];

/// What one source brings to a layer.
pub struct Synapses<'a> {
    pub conv: Conv,
    /// cout x depth, before the shift.
    pub codes: &'a [i32],
    pub shift: u32,
}

/// The layer's neurons; parameters are per channel.
pub struct Neurons<'a> {
    pub model: Model,
    pub steps: usize,
    /// As in `StepSpec`.
    pub settle: usize,
    pub shape: Shape,
    pub bias: &'a [i32],
    pub threshold: &'a [i32],
    /// Bounds of the potential.
    pub floor: i32,
    pub ceil: i32,
}

/// A layer made ready.
pub struct Layer {
    blocks: Vec<Block>,
    model: Model,
    steps: usize,
    settle: usize,
    shape: Shape,
    /// Vectors of one chunk of output channels, 1, 2 or 4; chunks.
    wide: usize,
    chunks: usize,
    /// chunks x wide.
    bias: Vec<Lanes<i32>>,
    threshold: Vec<Lanes<i32>>,
    floor: i32,
    ceil: i32,
    /// Largest |bias + current of the blocks| of a step.
    drive: u64,
}

struct Block {
    /// For each output position the range of its `reads`.
    first: Vec<u32>,
    /// Input position and tap.
    reads: Vec<(u32, u32)>,
    /// Bytes of the source's channels.
    bytes: usize,
    shift: u32,
    /// chunks x taps x bytes x 2 halves x 16 patterns x wide x PAIRS; lower channels first, then upper ones.
    table: Vec<Line>,
}

/// Words of a cache line: rows of a table begin where no load spans two lines.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 2 * PAIRS]);

impl Layer {
    /// Tables of a layer's spiking sources. None where this way does not fit: several groups, several spikes a step or
    /// refractory neurons, sums beyond 16 bits, tables beyond the cache.
    pub fn new(synapses: &[Synapses<'_>], neurons: &Neurons<'_>) -> Option<Layer> {
        let model = neurons.model;
        if model.is_leaky() || model.refractory > 0 || step::most_spikes(&model) != 1 {
            return None;
        }
        let channels = neurons.shape.c;
        let wide = if channels <= WIDTH { 1 } else { (channels.div_ceil(WIDTH)).min(4).next_power_of_two() };
        let chunks = channels.div_ceil(wide * WIDTH);
        let mut drive = neurons.bias.iter().map(|b| u64::from(b.unsigned_abs())).max().unwrap_or(0);
        let mut blocks = Vec::with_capacity(synapses.len());
        for s in synapses {
            let largest =
                s.codes.chunks(s.conv.depth()).map(|row| row.iter().map(|c| c.unsigned_abs()).sum::<u32>()).max();
            let largest = u64::from(largest.unwrap_or(0));
            let rows = s.conv.window.taps() * s.conv.input.c.div_ceil(8) * 2 * 16;
            let fits = rows * chunks * wide * PAIRS * size_of::<u32>() <= MOST_TABLE;
            if s.conv.groups != 1 || largest > i16::MAX as u64 || s.shift > 15 || !fits {
                return None;
            }
            drive += largest << s.shift;
            blocks.push(Block::new(s, wide, chunks));
        }
        Some(Layer {
            blocks,
            model,
            steps: neurons.steps,
            settle: neurons.settle.min(neurons.steps),
            shape: neurons.shape,
            wide,
            chunks,
            bias: lanes(neurons.bias, chunks * wide, 0),
            // No potential is above it: lanes beyond the last channel stay silent.
            threshold: lanes(neurons.threshold, chunks * wide, i32::MAX)
                .into_iter()
                .map(|t| t.map(|t| t.max(1)))
                .collect(),
            floor: neurons.floor,
            ceil: neurons.ceil,
            drive,
        })
    }

    /// False where a potential might leave 32 bits. `constant`: largest |constant current|.
    pub fn holds(&self, constant: u64, initial: &[i32]) -> bool {
        let start = initial.iter().map(|v| u64::from(v.unsigned_abs())).max().unwrap_or(0);
        let reach = (self.drive + constant).saturating_mul(self.steps as u64).saturating_add(start);
        reach < i32::MAX as u64 / 2
    }

    /// The layer's spikes. `inputs`: one per block; `constant`: a current of every step, `[image][shape]`; `initial`:
    /// potentials to start from, one a channel.
    pub fn run(&self, images: usize, inputs: &[&Spikes], constant: Option<&[i32]>, initial: &[i32]) -> Spikes {
        let mut out = Spikes::silent(images, self.shape, self.steps);
        let each = out.position_bytes();
        let image_bytes = Spikes::image_bytes(self.shape, self.steps);
        let initial = lanes(initial, self.chunks * self.wide, 0);
        out.bytes_mut().par_chunks_mut(image_bytes.max(1)).enumerate().for_each(|(image, out)| {
            out.par_chunks_mut(PIECE * each).enumerate().for_each(|(piece, out)| {
                let mut spikes = Bits::new(out, each);
                self.piece(
                    image,
                    piece * PIECE,
                    out_positions(self.shape, piece),
                    inputs,
                    constant,
                    &[&initial],
                    &mut spikes,
                );
            });
        });
        out
    }

    /// Counts over all steps, from each of several initial potentials: `[image][shape]` each.
    pub fn counts(
        &self,
        images: usize,
        inputs: &[&Spikes],
        constant: Option<&[i32]>,
        initials: &[Vec<i32>],
        counts: &mut [&mut [f32]],
    ) {
        let initials: Vec<_> = initials.iter().map(|i| lanes(i, self.chunks * self.wide, 0)).collect();
        let initials: Vec<&[Lanes<i32>]> = initials.iter().map(Vec::as_slice).collect();
        // An image of each result for every task.
        let mut jobs: Vec<Vec<&mut [f32]>> = (0..images).map(|_| Vec::with_capacity(initials.len())).collect();
        for counts in counts.iter_mut() {
            for (job, image) in jobs.iter_mut().zip(counts.chunks_mut(self.shape.len().max(1))) {
                job.push(image);
            }
        }
        jobs.par_iter_mut().enumerate().for_each(|(image, out)| {
            let mut counts = Counts::new(out, self.shape, self.wide);
            self.piece(image, 0, self.shape.area(), inputs, constant, &initials, &mut counts);
        });
    }

    #[expect(clippy::too_many_arguments, reason = "a kernel's inputs and outputs")]
    fn piece(
        &self,
        image: usize,
        first: usize,
        positions: usize,
        inputs: &[&Spikes],
        constant: Option<&[i32]>,
        initials: &[&[Lanes<i32>]],
        into: &mut impl Sink,
    ) {
        let sources: Vec<&[u8]> = inputs
            .iter()
            .map(|s| {
                let len = Spikes::image_bytes(s.shape(), s.steps());
                &s.bytes()[image * len..][..len]
            })
            .collect();
        let constant = constant.map(|c| &c[image * self.shape.len()..][..self.shape.len()]);
        let task = Task { layer: self, sources: &sources, constant, initials, first, positions };
        match self.wide {
            1 => narrow(Wide::<1, 1, 2, 8, _> { task, into }),
            2 => pulp::Arch::new().dispatch(Wide::<2, 1, 4, 16, _> { task, into }),
            _ => pulp::Arch::new().dispatch(Wide::<4, 2, 8, 32, _> { task, into }),
        }
    }
}

/// Runs on vectors of at most eight words: all that one vector of channels has.
fn narrow(wide: impl pulp::WithSimd<Output = ()>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return Simd::vectorize(simd, wide);
    }
    pulp::Arch::new().dispatch(wide);
}

/// A task on chunks of K x 16 channels, of `HALF` = K / 2 vectors of sixteen words, K of eight, `TWICE` = 2 K of four or
/// `EIGHT` = 8 K words.
struct Wide<'a, 'b, const K: usize, const HALF: usize, const TWICE: usize, const EIGHT: usize, S> {
    task: Task<'a>,
    into: &'b mut S,
}

impl<const K: usize, const HALF: usize, const TWICE: usize, const EIGHT: usize, S: Sink> pulp::WithSimd
    for Wide<'_, '_, K, HALF, TWICE, EIGHT, S>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, simd: V) {
        match V::U32_LANES {
            16 if K > 1 => self.task.run::<V, K, HALF>(simd, self.into),
            8 => self.task.run::<V, K, K>(simd, self.into),
            4 => self.task.run::<V, K, TWICE>(simd, self.into),
            _ => self.task.run::<Scalar, K, EIGHT>(Scalar::new(), self.into),
        }
    }
}

/// Output positions of one piece of an image.
fn out_positions(shape: Shape, piece: usize) -> usize {
    PIECE.min(shape.area() - piece * PIECE)
}

/// Per-channel values in vectors, `rest` beyond the last channel.
fn lanes(values: &[i32], vectors: usize, rest: i32) -> Vec<Lanes<i32>> {
    (0..vectors).map(|v| std::array::from_fn(|l| values.get(v * WIDTH + l).copied().unwrap_or(rest))).collect()
}

impl Block {
    fn new(s: &Synapses<'_>, wide: usize, chunks: usize) -> Block {
        let conv = &s.conv;
        let view = View::new(conv.input, conv.output, conv.window);
        let [kh, kw] = conv.window.kernel;
        let columns: Vec<_> = (0..kw).map(|j| view.columns_of(j)).collect();
        let (mut first, mut reads) = (vec![0], vec![]);
        for y in 0..conv.output.h {
            for x in 0..conv.output.w {
                for i in 0..kh {
                    let Some(row) = view.row_of(y, i) else { continue };
                    for (j, &(lo, hi, from)) in columns.iter().enumerate() {
                        if (lo..hi).contains(&x) {
                            let column = from + (x - lo) * conv.window.stride[1];
                            reads.push(((row * conv.input.w + column) as u32, (i * kw + j) as u32));
                        }
                    }
                }
                first.push(reads.len() as u32);
            }
        }
        let (taps, bytes) = (conv.window.taps(), conv.input.c.div_ceil(8));
        let code = |o: usize, four: usize, tap: usize, pattern: usize| -> i32 {
            let spiking = (0..4).filter(|i| pattern >> i & 1 == 1).map(|i| 4 * four + i).filter(|&c| c < conv.input.c);
            if o < conv.output.c { spiking.map(|c| s.codes[o * conv.depth() + c * taps + tap]).sum() } else { 0 }
        };
        let mut table = vec![Line([0; 2 * PAIRS]); chunks * taps * bytes * 16 * wide];
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut table);
        for (n, row) in words.chunks_exact_mut(wide * PAIRS).enumerate() {
            let (pattern, four) = (n % 16, n / 16 % (2 * bytes));
            let (tap, chunk) = (n / 32 / bytes % taps, n / 32 / bytes / taps);
            for (i, pair) in row.iter_mut().enumerate() {
                let o = chunk * wide * WIDTH + i / PAIRS * WIDTH + i % PAIRS;
                let [lower, upper] = [o, o + PAIRS].map(|o| code(o, four, tap, pattern) as u32);
                *pair = (upper << 16).wrapping_add(lower);
            }
        }
        Block { first, reads, bytes, shift: s.shift, table }
    }

    /// Adds the currents of one output position to `drive`, one entry a step.
    #[inline(always)]
    fn gather<V: Simd, const K: usize, const N: usize>(
        &self,
        simd: V,
        reads: &[(u32, u32)],
        table: &[Patterns<V, N>],
        source: &[u8],
        drive: &mut [[Lanes<i32>; K]],
    ) {
        let steps = drive.len();
        let mut step = 0;
        // As many steps at a time as there are registers for their sums.
        while step < steps {
            let (left, drive) = (steps - step, &mut drive[step..]);
            step += if N == 1 && left >= 8 {
                self.gather_steps::<V, K, N, 8>(simd, reads, table, source, step, steps, drive)
            } else if N <= 2 && left >= 4 {
                self.gather_steps::<V, K, N, 4>(simd, reads, table, source, step, steps, drive)
            } else if N <= 4 && left >= 2 {
                self.gather_steps::<V, K, N, 2>(simd, reads, table, source, step, steps, drive)
            } else {
                self.gather_steps::<V, K, N, 1>(simd, reads, table, source, step, steps, drive)
            };
        }
    }

    /// `S` steps from `first` on; returns S.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "the inner loop of a kernel")]
    fn gather_steps<V: Simd, const K: usize, const N: usize, const S: usize>(
        &self,
        simd: V,
        reads: &[(u32, u32)],
        table: &[Patterns<V, N>],
        source: &[u8],
        first: usize,
        steps: usize,
        drive: &mut [[Lanes<i32>; K]],
    ) -> usize {
        let mut sums = [[simd.splat_u32s(0); N]; S];
        for &(position, tap) in reads {
            let from = position as usize * self.bytes * steps + first;
            let patterns = &table[tap as usize * self.bytes..][..self.bytes];
            for (byte, patterns) in patterns.iter().enumerate() {
                let spikes = &source[from + byte * steps..][..S];
                for (sums, spikes) in sums.iter_mut().zip(spikes) {
                    let (low, high) = (&patterns[usize::from(spikes & 15)], &patterns[16 + usize::from(spikes >> 4)]);
                    for n in 0..N {
                        sums[n] = simd.add_u32s(sums[n], low[n]);
                    }
                    for n in 0..N {
                        sums[n] = simd.add_u32s(sums[n], high[n]);
                    }
                }
            }
        }
        for (drive, sums) in drive.iter_mut().zip(&sums) {
            let sums: &[u32] = bytemuck::cast_slice(sums);
            for (drive, sums) in drive.iter_mut().zip(sums.as_chunks::<PAIRS>().0) {
                for l in 0..PAIRS {
                    let both = sums[l] as i32;
                    let lower = both << 16 >> 16;
                    drive[l] += lower << self.shift;
                    drive[l + PAIRS] += (both.wrapping_sub(lower) >> 16) << self.shift;
                }
            }
        }
        S
    }
}

/// Some positions of one image.
struct Task<'a> {
    layer: &'a Layer,
    sources: &'a [&'a [u8]],
    constant: Option<&'a [i32]>,
    /// Per trial: chunks x wide.
    initials: &'a [&'a [Lanes<i32>]],
    first: usize,
    positions: usize,
}

impl Task<'_> {
    #[inline(always)]
    fn run<V: Simd, const K: usize, const N: usize>(&self, simd: V, into: &mut impl Sink) {
        let layer = self.layer;
        let tables = layer
            .blocks
            .iter()
            .map(|b| V::as_simd_u32s(bytemuck::cast_slice(&b.table)).0.as_chunks::<N>().0.as_chunks::<32>().0);
        let tables: Vec<&[Patterns<V, N>]> = tables.collect();
        let mut drives = vec![[[0i32; WIDTH]; K]; layer.steps];
        for chunk in 0..layer.chunks {
            let channel = chunk * K * WIDTH;
            let [bias, threshold] = [&layer.bias, &layer.threshold].map(|p| p.as_chunks::<K>().0[chunk]);
            let part = |table: &&'_ [Patterns<V, N>]| {
                chunk * table.len() / layer.chunks..(chunk + 1) * table.len() / layer.chunks
            };
            let tables: Vec<&[Patterns<V, N>]> = tables.iter().map(|t| &t[part(t)]).collect();
            for position in 0..self.positions {
                let at = self.first + position;
                let mut base = bias;
                if let Some(constant) = self.constant {
                    let plane = constant[channel * layer.shape.area() + at..].iter().step_by(layer.shape.area());
                    base.as_flattened_mut().iter_mut().zip(plane).for_each(|(b, c)| *b += c);
                }
                drives.fill(base);
                for ((block, table), source) in layer.blocks.iter().zip(&tables).zip(self.sources) {
                    let reads = &block.reads[block.first[at] as usize..block.first[at + 1] as usize];
                    block.gather::<V, K, N>(simd, reads, table, source, &mut drives);
                }
                // `settle` steps of input come in before the first chance to fire; in as many at the end none does.
                let (early, driven) = drives.split_at(layer.settle);
                for (trial, initial) in self.initials.iter().enumerate() {
                    for (k, &initial) in initial.as_chunks::<K>().0[chunk].iter().enumerate() {
                        let mut v = initial;
                        early.iter().for_each(|drive| self.integrate(&mut v, &drive[k]));
                        let at = Vector { trial, k, position, channel: channel + k * WIDTH };
                        into.spikes(at, layer.steps, |step| {
                            let drive = driven.get(step).map_or(&[0; WIDTH], |drive| &drive[k]);
                            self.fire(&mut v, drive, &threshold[k])
                        });
                    }
                }
                into.finish(position, channel);
            }
        }
    }

    /// `neuron::step::integrate` where nothing overflows.
    #[inline(always)]
    fn integrate(&self, v: &mut Lanes<i32>, drive: &Lanes<i32>) {
        let (floor, ceil) = (self.layer.floor, self.layer.ceil);
        v.iter_mut().zip(drive).for_each(|(v, drive)| *v = v.wrapping_add(*drive).min(ceil).max(floor));
    }

    /// `neuron::step::integer_once` where nothing overflows.
    #[inline(always)]
    fn fire(&self, v: &mut Lanes<i32>, drive: &Lanes<i32>, threshold: &Lanes<i32>) -> Lanes<i32> {
        let (floor, ceil) = (self.layer.floor, self.layer.ceil);
        let slack = i32::from(!self.layer.model.strict);
        // A reset to zero leaves nothing of the potential.
        let left = if self.layer.model.reset == Reset::Zero { 0 } else { -1 };
        let mut fires = [0; WIDTH];
        for l in 0..WIDTH {
            let potential = v[l].wrapping_add(drive[l]).min(ceil).max(floor);
            let fire = potential > threshold[l] - slack;
            v[l] = if fire { potential.wrapping_sub(threshold[l]) & left } else { potential };
            fires[l] = i32::from(fire);
        }
        fires
    }
}
