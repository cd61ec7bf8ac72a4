// Removing groups of inputs from a least-squares fit whose inverse is at hand (METHOD section 6). The fit is one matrix,
// a row an input: a[i] = [ row i of H^-1 (n) | weights of input i in all m rows ], n x (n + m). A group P is up to 25
// inputs, inputs[starts[g]..starts[g + 1]]; with A = a[P][P] = L L^T and Y = L^-1 a[P] (p x (n + m)):
//   cost:   what the removal of the group costs, the sum of squares of Y's last m columns: tr( W_P A^-1 W_P^T ). A
//           workgroup of 64 threads a candidate; a thread takes every 64th row of the fit. -1 where A is not positive
//           definite in f32. out: a value a candidate.
//   panel:  Y of group p.group, one thread a column; every workgroup of 64 factors A for itself. out: p x (n + m).
//   update: block elimination, a -= Y^T Y (the first n columns of Y stand for the rows of a); a workgroup of 256 threads
//           a tile of 64 x 64, 4 x 4 each. Rows and columns of inputs that are gone are left with rounding errors, and no
//           later group reads them. out: Y.
#import shared/index
struct Params { n: u32, m: u32, group: u32, candidates: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read> inputs: array<u32>;
@group(0) @binding(3) var<storage, read> starts: array<u32>;
@group(0) @binding(4) var<storage, read> candidates: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

const MOST = 25u;
// L, rows of MOST
var<workgroup> block: array<f32, 625>;
var<workgroup> sums: array<f32, 64>;
var<workgroup> pivot: f32;
var<workgroup> broken: u32;

// Factors A of the group at inputs[first..first + size]: thread t has row t.
fn factor(first: u32, size: u32, t: u32) {
    let width = p.n + p.m;
    if t == 0u {
        broken = 0u;
    }
    if t < size {
        let row = inputs[first + t] * width;
        for (var c = 0u; c <= t; c++) {
            block[t * MOST + c] = a[row + inputs[first + c]];
        }
    }
    workgroupBarrier();
    for (var c = 0u; c < size; c++) {
        if t == c {
            let d = block[c * MOST + c];
            if !(d > 0.0) {
                broken = 1u;
            }
            pivot = select(1.0, sqrt(max(d, 1e-38)), d > 0.0);
        }
        workgroupBarrier();
        if t == c {
            block[t * MOST + c] = pivot;
        } else if t > c && t < size {
            block[t * MOST + c] /= pivot;
        }
        workgroupBarrier();
        if t > c && t < size {
            for (var j = c + 1u; j <= t; j++) {
                block[t * MOST + j] -= block[t * MOST + c] * block[j * MOST + c];
            }
        }
        workgroupBarrier();
    }
}

// A column of Y.
fn solved(first: u32, size: u32, column: u32) -> array<f32, 25> {
    let width = p.n + p.m;
    var y: array<f32, 25>;
    for (var k = 0u; k < size; k++) {
        var v = a[inputs[first + k] * width + column];
        for (var d = 0u; d < k; d++) {
            v -= block[k * MOST + d] * y[d];
        }
        y[k] = v / block[k * MOST + k];
    }
    return y;
}

@compute @workgroup_size(64)
fn cost(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let number = workgroup_number(wid, count);
    // The same for the whole workgroup, so that the barriers below stand in uniform control flow.
    if number >= p.candidates {
        return;
    }
    let group = candidates[number];
    let first = starts[group];
    let size = starts[group + 1u] - first;
    factor(first, size, t);
    var sum = 0.0;
    for (var o = t; o < p.m; o += 64u) {
        var y = solved(first, size, p.n + o);
        for (var k = 0u; k < size; k++) {
            sum += y[k] * y[k];
        }
    }
    sums[t] = sum;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if t < half {
            sums[t] += sums[t + half];
        }
        workgroupBarrier();
    }
    if t == 0u {
        out[number] = select(sums[0], -1.0, broken != 0u);
    }
}

@compute @workgroup_size(64)
fn panel(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) t: u32) {
    let first = starts[p.group];
    let size = starts[p.group + 1u] - first;
    factor(first, size, t);
    let width = p.n + p.m;
    let column = workgroup_number(wid, count) * 64u + t;
    if column >= width {
        return;
    }
    var y = solved(first, size, column);
    for (var k = 0u; k < size; k++) {
        out[k * width + column] = y[k];
    }
}

@compute @workgroup_size(256)
fn update(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) t: u32) {
    let width = p.n + p.m;
    let size = starts[p.group + 1u] - starts[p.group];
    let tiles = (width + 63u) / 64u;
    let number = workgroup_number(wid, count);
    let row0 = number / tiles * 64u + t / 16u;
    let column0 = number % tiles * 64u + t % 16u;
    var sum: array<vec4<f32>, 4>;
    for (var k = 0u; k < size; k++) {
        var columns: vec4<f32>;
        for (var j = 0u; j < 4u; j++) {
            columns[j] = out[k * width + min(column0 + j * 16u, width - 1u)];
        }
        for (var i = 0u; i < 4u; i++) {
            sum[i] += out[k * width + min(row0 + i * 16u, p.n - 1u)] * columns;
        }
    }
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let row = row0 + i * 16u;
            let column = column0 + j * 16u;
            if row < p.n && column < width {
                a[row * width + column] -= sum[i][j];
            }
        }
    }
}
