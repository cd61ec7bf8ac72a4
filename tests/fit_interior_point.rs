//! Box solutions against an independent interior-point code (Clarabel): the same optimum, row by row.

#[path = "common/fit.rs"]
mod problems;

use clarabel::algebra::CscMatrix;
use clarabel::solver::{DefaultSettingsBuilder, DefaultSolver, IPSolver, SolverStatus, SupportedConeT};
use synfit::compute::Device;
use synfit::fit::{Bounds, Problem, Solution, Spec, Status, solve};

/// min w H w - 2 b w + tt, lower <= w <= upper, for one row.
fn interior_point(p: &Problem, o: usize, lower: f64, upper: f64) -> f64 {
    let n = p.n;
    // the upper triangle by columns, and [I; -I] w <= [upper; -lower]
    let (mut columns, mut rows, mut values) = (vec![0], Vec::new(), Vec::new());
    let (mut a_columns, mut a_rows, mut a_values) = (vec![0], Vec::new(), Vec::new());
    for j in 0..n {
        rows.extend(0..=j);
        values.extend((0..=j).map(|i| 2.0 * p.h[i * n + j]));
        columns.push(rows.len());
        a_rows.extend([j, n + j]);
        a_values.extend([1.0, -1.0]);
        a_columns.push(a_rows.len());
    }
    let h = CscMatrix::new(n, n, columns, rows, values);
    let a = CscMatrix::new(2 * n, n, a_columns, a_rows, a_values);
    let q: Vec<f64> = p.b[o * n..(o + 1) * n].iter().map(|b| -2.0 * b).collect();
    let limits: Vec<f64> = (0..2 * n).map(|i| if i < n { upper } else { -lower }).collect();
    let settings = DefaultSettingsBuilder::default()
        .verbose(false)
        .tol_gap_rel(1e-10)
        .tol_gap_abs(1e-10)
        .tol_feas(1e-10)
        .build()
        .unwrap();
    let mut solver =
        DefaultSolver::new(&h, &q, &a, &limits, &[SupportedConeT::NonnegativeConeT(2 * n)], settings).unwrap();
    solver.solve();
    assert!(matches!(solver.solution.status, SolverStatus::Solved | SolverStatus::AlmostSolved));
    p.tt.as_ref().unwrap()[o] + solver.solution.obj_val
}

fn compare(p: &Problem, s: &Solution, rows: &[usize], sides: impl Fn(usize) -> (f64, f64)) {
    assert_eq!(s.status, Status::Optimal);
    for &o in rows {
        let (lower, upper) = sides(o);
        let theirs = interior_point(p, o, lower, upper);
        let ours = s.objective.grid[o];
        println!("row {o}: {ours:.9} here, {theirs:.9} by interior point");
        assert!((ours / theirs - 1.0).abs() < 1e-6);
        assert!(s.objective.bound[o] <= theirs * (1.0 + 1e-7));
    }
}

#[test]
fn random_boxes() {
    for (seed, samples, n) in [(1, 200, 30), (2, 40, 25), (3, 500, 60)] {
        let p = Problem::from_sums(problems::random(seed, samples, n, 4).sums()).unwrap();
        let spec = Spec { lower: Bounds::Scalar(-0.25), upper: Bounds::Scalar(0.5), ..Spec::default() };
        let s = solve(&Device::cpu(), &p, &spec).unwrap();
        compare(&p, &s, &[0, 1, 2, 3], |_| (-0.25, 0.5));
    }
}

#[test]
fn lenet_fc1_rows() {
    let Some(path) = problems::data("lenet_fc1_box.npz") else { return };
    let (x, t) = (problems::matrix(&path, "x"), problems::matrix(&path, "t"));
    let raw = problems::Raw::new(x.iter().copied().collect(), t.iter().copied().collect(), x.ncols(), t.ncols());
    let p = Problem::from_sums_without_bias(raw.sums()).unwrap();
    let (lower, upper) = (problems::array(&path, "lower"), problems::array(&path, "upper"));
    let spec = Spec { lower: Bounds::Row(lower.clone()), upper: Bounds::Row(upper.clone()), ..Spec::default() };
    let s = solve(&Device::cpu(), &p, &spec).unwrap();
    compare(&p, &s, &[0, 63, 127], |o| (lower[o], upper[o]));
}
