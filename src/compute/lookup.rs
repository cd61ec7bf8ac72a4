//! Integrate-and-fire layers on spike bits, on the CPU: currents by table lookup, all steps of a neuron in one go.
//!
//! The synapses of four input channels at one tap make 16 sums, one for each pattern of spikes: a table row per pattern,
//! a lane per output channel. A current is a sum of rows, a quarter as many as there are synapses, in 16-bit integers,
//! with no branch that depends on spikes. It goes straight into the potentials; neither currents nor counts are stored.
//! The result is `conv::integer` and `step::integer`, bit for bit: all of it is integer arithmetic that is proven, when
//! the layer is made, not to overflow.

mod block;
mod sink;

use pulp::{Scalar, Simd};
use rayon::prelude::*;

use super::conv::Conv;
use super::simd::up_to_32_bytes;
use super::spikes::Spikes;
use crate::network::Shape;
use crate::neuron::{Model, Reset, step};
use block::{Block, PAIRS, Patterns};
use sink::{Bits, Counts, Sink, Vector};

/// Output channels of one vector.
const WIDTH: usize = 16;
/// Bytes of one block's tables beyond which they no longer stay in cache, and matrix products are faster.
const MOST_TABLE: usize = 8 << 20;
/// Output positions of one task.
const PIECE: usize = 128;

type Lanes<T> = [T; WIDTH];

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
    vectors: Vectors,
    /// chunks x wide.
    bias: Vec<Lanes<i32>>,
    threshold: Vec<Lanes<i32>>,
    floor: i32,
    ceil: i32,
    /// Largest |bias + current of the blocks| of a step.
    drive: u64,
}

/// Which of the machine's vectors are used.
#[derive(Clone, Copy)]
enum Vectors {
    Widest,
    /// At most 32 bytes.
    UpTo32,
    /// What machines without vectors do.
    #[cfg(test)]
    None,
}

impl Vectors {
    fn run(self, work: impl pulp::WithSimd<Output = ()>) {
        match self {
            Vectors::Widest => pulp::Arch::new().dispatch(work),
            Vectors::UpTo32 => up_to_32_bytes(work),
            #[cfg(test)]
            Vectors::None => Scalar::new().vectorize(work),
        }
    }
}

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
            // one vector of channels has eight words
            vectors: if wide == 1 { Vectors::UpTo32 } else { Vectors::Widest },
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
            1 => self.vectors.run(Wide::<1, 1, 2, 8, _> { task, into }),
            2 => self.vectors.run(Wide::<2, 1, 4, 16, _> { task, into }),
            _ => self.vectors.run(Wide::<4, 2, 8, 32, _> { task, into }),
        }
    }
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
        let mut drives = vec![[[0i32; WIDTH]; K]; layer.steps];
        for chunk in 0..layer.chunks {
            let channel = chunk * K * WIDTH;
            let [bias, threshold] = [&layer.bias, &layer.threshold].map(|p| p.as_chunks::<K>().0[chunk]);
            let tables: Vec<&[Patterns<V, N>]> =
                layer.blocks.iter().map(|block| block.patterns::<V, N>(chunk, layer.chunks)).collect();
            for position in 0..self.positions {
                let at = self.first + position;
                let mut base = bias;
                if let Some(constant) = self.constant {
                    let plane = constant[channel * layer.shape.area() + at..].iter().step_by(layer.shape.area());
                    base.as_flattened_mut().iter_mut().zip(plane).for_each(|(b, c)| *b += c);
                }
                drives.fill(base);
                for ((block, table), source) in layer.blocks.iter().zip(&tables).zip(self.sources) {
                    block.gather::<V, K, N>(simd, at, table, source, &mut drives);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Window;

    /// Layers of one, two and four vectors of channels, by each kind of vectors.
    #[test]
    fn all_vectors_give_the_same_spikes() {
        let mut rng = fastrand::Rng::with_seed(11);
        let (images, steps, settle) = (2, 19, 2);
        for channels in [5, 16, 29, 60] {
            let [input, shape] = [13, channels].map(|c| Shape::new(c, 4, 5));
            let window = Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT };
            let conv = Conv { input, output: shape, window, groups: 1 };
            let codes: Vec<i32> = (0..channels * conv.depth()).map(|_| rng.i32(-8..8)).collect();
            let x: Vec<i32> = (0..steps * images * input.len()).map(|_| rng.i32(0..2)).collect();
            let x = Spikes::pack(images, input, steps, &x).unwrap();
            let (bias, threshold) = (vec![3; channels], vec![40; channels]);
            let initials: Vec<Vec<i32>> = [0, 20].map(|v| vec![v; channels]).into();
            let (floor, ceil) = (i32::MIN, i32::MAX);
            let neurons =
                Neurons { model: Model::IF, steps, settle, shape, bias: &bias, threshold: &threshold, floor, ceil };
            let mut layer = Layer::new(&[Synapses { conv, codes: &codes, shift: 1 }], &neurons).unwrap();
            let mut results = vec![];
            for vectors in [Vectors::None, Vectors::UpTo32, Vectors::Widest] {
                layer.vectors = vectors;
                let mut counts = vec![vec![f32::NAN; images * shape.len()]; initials.len()];
                let mut into: Vec<&mut [f32]> = counts.iter_mut().map(Vec::as_mut_slice).collect();
                layer.counts(images, &[&x], None, &initials, &mut into);
                results.push((layer.run(images, &[&x], None, &initials[1]), counts));
            }
            assert!(results[0].1[1].iter().sum::<f32>() > 0.0);
            assert!(results.iter().all(|r| *r == results[0]), "{channels} channels");
        }
    }
}
