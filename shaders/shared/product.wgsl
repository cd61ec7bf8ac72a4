// One 64 x 64 tile of a product left (m x n) right (n x n), by a workgroup of 16 x 16 invocations, each of which owns a
// 4 x 4 block of it. The importing shader defines left_at(row, k), right_at(k, column) (0 outside the matrices) and calls
// product_tile from uniform control flow.
const TILE: u32 = 64u;
const DEEP: u32 = 16u;

var<workgroup> left_tile: array<f32, 1024>;
var<workgroup> right_tile: array<vec4<f32>, 256>;

fn product_tile(row0: u32, column0: u32, depth: u32, local: vec2<u32>) -> array<vec4<f32>, 4> {
    var sum = array<vec4<f32>, 4>(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    let thread = local.y * 16u + local.x;
    for (var k0 = 0u; k0 < depth; k0 += DEEP) {
        // left_tile[k][row] and right_tile[k][column / 4]
        for (var i = 0u; i < 4u; i++) {
            let at = thread + 256u * i;
            left_tile[(at % DEEP) * TILE + at / DEEP] = left_at(row0 + at / DEEP, k0 + at % DEEP);
        }
        let k = k0 + thread / 16u;
        let column = column0 + 4u * (thread % 16u);
        right_tile[thread] = vec4(
            right_at(k, column), right_at(k, column + 1u), right_at(k, column + 2u), right_at(k, column + 3u),
        );
        workgroupBarrier();
        for (var d = 0u; d < DEEP; d++) {
            let right = right_tile[d * 16u + local.x];
            let at = d * TILE + 4u * local.y;
            sum[0] += left_tile[at] * right;
            sum[1] += left_tile[at + 1u] * right;
            sum[2] += left_tile[at + 2u] * right;
            sum[3] += left_tile[at + 3u] * right;
        }
        workgroupBarrier();
    }
    return sum;
}
