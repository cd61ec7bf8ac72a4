// What the kernels of moments have in common: their parameters (binding 0) and what a workgroup makes of them.
// Needs shared/window, shared/patches.
struct Params {
    a: Window,
    b: Window,
    rows_a: u32, rows_b: u32,
    first_row: u32, rows: u32,
    splits: u32, chunks: u32, length: u32,
    first_sample: u32, samples: u32,
    symmetric: u32,
    // What a loop of pair and of pair_wide goes on by: samples as images, output rows and output columns.
    step_x: u32, step_y: u32, step_z: u32,
    wide_x: u32, wide_y: u32, wide_z: u32,
}
@group(0) @binding(0) var<uniform> p: Params;

struct Rows { r0: Row, r1: Row, r2: Row, r3: Row }

fn rows_of(w: Window, group: u32, r: u32, rows: u32) -> Rows {
    return Rows(
        row_of(w, group, r, rows),
        row_of(w, group, r + 1u, rows),
        row_of(w, group, r + 2u, rows),
        row_of(w, group, r + 3u, rows),
    );
}

// What a workgroup makes; for the whole workgroup the same, so that barriers stand in uniform control flow.
struct Job { slot: u32, group: u32, row: u32, column: u32, begin: u32, end: u32, idle: bool }

fn job_of(number: u32, side: u32) -> Job {
    let row_tiles = (p.rows + side - 1u) / side;
    let column_tiles = (p.rows_b + side - 1u) / side;
    let slot = number / (row_tiles * column_tiles);
    let split = slot / p.a.groups;
    let row = number / column_tiles % row_tiles * side;
    let column = number % column_tiles * side;
    let begin = p.first_sample + split * p.chunks * p.length;
    let end = min(begin + p.chunks * p.length, p.samples);
    let above = p.symmetric == 1u && column > p.first_row + row + side - 1u;
    return Job(slot, slot % p.a.groups, row, column, begin, end, split >= p.splits || above);
}
