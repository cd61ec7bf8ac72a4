//! A layer's line of the report.

use super::layer::{Solved, Task};
use super::{Errors, LayerRecord};
use crate::fit::{Objectives, Status};
use crate::spiking::SpikingNode;

pub(super) fn record(task: &Task, solved: &Solved, node: &SpikingNode) -> LayerRecord {
    let relative = |pick: fn(&Objectives) -> &Vec<f64>| -> f64 {
        let sum: f64 = solved.solutions.iter().flat_map(|s| pick(&s.objective).iter()).sum();
        if solved.tt > 0.0 { sum / solved.tt } else { 0.0 }
    };
    let error = Errors {
        round: relative(|o| &o.rtn),
        fit: relative(|o| &o.fit),
        grid: relative(|o| &o.grid),
        bound: relative(|o| &o.bound),
        noise: solved.noise.map(|noise| if solved.tt > 0.0 { noise / solved.tt } else { 0.0 }),
    };
    let status = |wanted| solved.solutions.iter().any(|s| s.status == wanted);
    LayerRecord {
        name: task.name.to_string(),
        kind: match (task.fires, task.groups, task.shape.area()) {
            (false, ..) => "readout",
            (_, g, _) if g > 1 && g == task.shape.c => "depthwise",
            (_, _, 1) => "dense",
            _ => "conv",
        }
        .to_string(),
        inputs: task.inputs(),
        outputs: node.shape.c,
        neurons: if task.fires { node.shape.len() } else { 0 },
        curved: false,
        samples: solved.samples,
        error,
        ridge: task.ridge,
        status: match () {
            () if status(Status::IterationLimit) => "iteration_limit",
            () if status(Status::Heuristic) => "heuristic",
            () => "optimal",
        }
        .to_string(),
        iterations: solved.solutions.iter().map(|s| s.iterations).max().unwrap_or(0),
        gap: if error.grid > 0.0 { ((error.grid - error.bound) / error.grid).max(0.0) } else { 0.0 },
        damping: solved.solutions.iter().map(|s| s.damping).fold(0.0, f64::max),
        pruned: task.picked.map(|p| p.told),
        sparse: task.thin.as_ref().map(|t| t.told),
        response_error: None,
        parts: None,
        rate: None,
        dead: None,
        saturated: None,
        seconds: 0.0,
    }
}
