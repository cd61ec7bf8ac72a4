//! The formulas against counts by plain loops that do what the kernels do.

use super::*;

fn window(kernel: [usize; 2], stride: usize, pad: isize) -> Window {
    Window { kernel, stride: [stride; 2], dilation: [1, 1], pad: [pad; 2] }
}

/// (output position, tap) pairs, and those whose tap lies inside.
fn taps(input: Shape, output: Shape, w: &Window) -> (usize, usize) {
    let (mut all, mut inside) = (0, 0);
    for y in 0..output.h {
        for x in 0..output.w {
            for i in 0..w.kernel[0] {
                for j in 0..w.kernel[1] {
                    let row = (y * w.stride[0] + i * w.dilation[0]) as isize - w.pad[0];
                    let column = (x * w.stride[1] + j * w.dilation[1]) as isize - w.pad[1];
                    all += 1;
                    let here = (0..input.h as isize).contains(&row) && (0..input.w as isize).contains(&column);
                    inside += usize::from(here);
                }
            }
        }
    }
    (all, inside)
}

#[test]
fn convolutions() {
    for (groups, w) in [(1, window([3, 3], 1, 1)), (2, window([3, 2], 2, 1)), (4, window([1, 1], 1, 0))] {
        let c = Conv { input: Shape::new(4, 7, 6), output: Shape::new(8, 4, 3), window: w, groups };
        let (all, within) = taps(c.input, c.output, &w);
        let mut operations = 0;
        for _image in 0..3 {
            for _output in 0..c.output.c {
                for _input in 0..c.input.c / groups {
                    operations += 2 * all;
                }
            }
        }
        let moved = 3 * (c.input.len() + c.output.len()) + c.output.c * (c.input.c / groups) * w.taps();
        assert_eq!(conv(&c, 3), Work::of(operations, moved));
        assert_eq!(inside(c.input, c.output, &w), within);
    }
}

#[test]
fn tables() {
    let c = Conv { input: Shape::new(12, 5, 4), output: Shape::new(6, 5, 4), window: window([3, 3], 1, 1), groups: 1 };
    let (_, within) = taps(c.input, c.output, &c.window);
    // 12 channels lie in two bytes, so four halves.
    let (mut additions, steps, images) = (0, 3, 2);
    for _step in 0..steps * images {
        for _tap in 0..within {
            for _half in 0..4 {
                additions += c.output.c;
            }
        }
    }
    let all = additions + 6 * c.output.len() * steps * images;
    assert_eq!(lookup(&c, images, steps).operations, all as f64);
}

#[test]
fn moments_of_samples() {
    let (samples, n, m) = (9, 5, 3);
    let (mut h, mut b, mut sums) = (0, 0, 0);
    for _sample in 0..samples {
        for i in 0..n {
            for _j in 0..=i {
                h += 2;
            }
            for _target in 0..m {
                b += 2;
            }
            sums += 1;
        }
        // z once, z^2 twice
        sums += 3 * m;
    }
    assert_eq!(moments(samples, n, m, 100, true).operations, (h + b + sums) as f64);
    assert_eq!(moments(samples, n, m, 100, false).operations, (b + sums) as f64);
    assert_eq!(
        moments(samples, n, m, 100, true).bytes,
        (4 * (100 + samples * m) + 8 * (n * (n + 1) / 2 + m * n)) as f64
    );
}

#[test]
fn factors_and_solves() {
    for n in [1, 2, 3, 7, 20] {
        let (mut factor, mut solve) = (0, 0);
        for j in 0..n {
            factor += 1;
            for i in j + 1..n {
                factor += 1;
                for _k in j + 1..=i {
                    factor += 2;
                }
            }
        }
        for i in 0..n {
            for _j in 0..i {
                solve += 2;
            }
            solve += 1;
        }
        assert_eq!(cholesky(n).operations, f64::from(factor), "n = {n}");
        assert_eq!(triangular(n, 3).operations, f64::from(3 * solve), "n = {n}");
    }
}

#[test]
fn roundings_of_columns() {
    let (n, lanes, paths, branches) = (11, 3, 4, 5);
    let (mut feed, mut search) = (0, 0);
    for _lane in 0..lanes {
        for j in 0..n {
            feed += 10 + 2 * j;
            for _path in 0..paths {
                search += 5 * branches + 2 * j;
            }
        }
    }
    assert_eq!(feedback(n, lanes).operations, feed as f64);
    assert_eq!(kbest(n, lanes, paths, branches).operations, search as f64);
    let (m, moves) = (3, 6);
    let mut search = 0;
    for _row in 0..m {
        for i in 0..n {
            for _partner in 0..i {
                for _direction in 0..2 {
                    search += 7;
                }
            }
        }
    }
    // two columns, to H q and to the slopes, a multiply-add each
    assert_eq!(pairs(n, m, moves).operations, (search + moves * 2 * 2 * 2 * n) as f64);
}

#[test]
fn pools_and_neurons() {
    let pool = Pool { input: Shape::new(2, 6, 6), output: Shape::new(2, 3, 3), window: window([2, 2], 2, 0) };
    let (all, _) = taps(pool.input, pool.output, &pool.window);
    let outputs = 2 * pool.output.area();
    assert_eq!(average(&pool, 4).operations, (4 * (2 * all + outputs)) as f64);
    let (images, steps) = (4, 5);
    let mut operations = 0;
    for _ in 0..images * steps {
        operations += pool.input.len() + 2 * all + outputs;
    }
    assert_eq!(winner(&pool, images, steps).operations, operations as f64);
    assert_eq!(step(10, 4), Work::of(240, 90));
    assert_eq!(map(10, 3), Work::of(30, 20));
}
