// Counts of spike trains [steps][len] packed into words: src/compute/words.rs. Field f of word j, `bits` wide from the lowest
// bit up, holds count j + f * words of the flat trains, or zero beyond their end; with several steps `words` is a multiple of
// len, so that all counts of an element lie in the words j = i (mod len).
//   pack:   words from counts;  unpack: counts from words;  one thread a word
//   total:  y[i] = sum over steps of element i's counts, as f32;  one thread an element
// 256 threads a workgroup; neighbours read and write neighbouring words and counts.
#import shared/index
struct Params { steps: u32, len: u32, bits: u32, words: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<u32>;

fn field(word: u32, f: u32) -> u32 {
    // not extractBits, which the oldest Metal lacks
    return (word >> (f * p.bits)) & (0xffffffffu >> (32u - p.bits));
}

@compute @workgroup_size(256)
fn pack(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let j = workgroup_number(wid, count) * 256u + t;
    if j >= p.words {
        return;
    }
    let all = p.steps * p.len;
    var word = 0u;
    var at = j;
    for (var shift = 0u; shift < 32u && at < all; shift += p.bits) {
        word |= source[at] << shift;
        at += p.words;
    }
    result[j] = word;
}

@compute @workgroup_size(256)
fn unpack(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let j = workgroup_number(wid, count) * 256u + t;
    if j >= p.words {
        return;
    }
    let all = p.steps * p.len;
    let word = source[j];
    var at = j;
    for (var f = 0u; f * p.bits < 32u && at < all; f++) {
        result[at] = field(word, f);
        at += p.words;
    }
}

@compute @workgroup_size(256)
fn total(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) t: u32) {
    let i = workgroup_number(wid, count) * 256u + t;
    if i >= p.len {
        return;
    }
    var sum = 0u;
    if p.steps == 1u {
        sum = field(source[i % p.words], i / p.words);
    } else {
        for (var j = i; j < p.words; j += p.len) {
            let word = source[j];
            if p.bits == 1u {
                sum += countOneBits(word);
            } else {
                for (var f = 0u; f * p.bits < 32u; f++) {
                    sum += field(word, f);
                }
            }
        }
    }
    result[i] = bitcast<u32>(f32(bitcast<i32>(sum)));
}
