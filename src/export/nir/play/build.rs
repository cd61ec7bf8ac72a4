//! A graph that can be run, from a NIR file: an order of the nodes, their dimensions, their parameters.

use super::super::back::{positions, window};
use super::super::file::{Fields, NirFile};
use super::{Conv, Graph, Kind, Neurons, Node, Rules};
use crate::error::Result;
use crate::network::Window;

pub(super) fn graph(file: &NirFile, rules: Rules) -> Result<Graph> {
    let order = order(file)?;
    let place = |node: usize| order.iter().position(|&o| o == node).unwrap_or(0);
    let mut nodes: Vec<Node> = Vec::with_capacity(order.len());
    for (at, &index) in order.iter().enumerate() {
        let (name, kind, fields) = (&file.nodes[index].name, &file.nodes[index].kind, &file.nodes[index].fields);
        let sources: Vec<usize> = file.sources(index).map(place).collect();
        // what comes before says what comes in
        let known = sources.iter().find(|s| **s < at).map(|&s| nodes[s].dims.clone());
        let (kind, wants, dims) = match kind.as_str() {
            "Input" if sources.is_empty() => (Kind::Input, None, fields.sizes("shape")?),
            "Input" => return Err(fields.wrong("an input that something leads to")),
            kind => {
                let known = known.ok_or_else(|| fields.wrong("nothing leads to it from an input"))?;
                node(kind, fields, &known, rules)?
            }
        };
        let wrong = sources.iter().find(|&&s| s < at && wants.as_ref().is_some_and(|wants| *wants != nodes[s].dims));
        if let (Some(&s), Some(wants)) = (wrong, wants) {
            return Err(fields.wrong(format!("takes {wants:?}, and {} gives {:?}", nodes[s].name, nodes[s].dims)));
        }
        nodes.push(Node { name: name.clone(), dims, kind, sources });
    }
    // sources that are a step late
    for (at, node) in nodes.iter().enumerate() {
        let first = node.sources.iter().find(|s| **s < at);
        for &late in node.sources.iter().filter(|s| **s >= at) {
            if first.is_some_and(|&first| nodes[first].dims != nodes[late].dims) {
                let why = format!("takes what {} gives, {:?}, beside other sizes", nodes[late].name, nodes[late].dims);
                return Err(file.nodes[order[at]].fields.wrong(why));
            }
        }
    }
    let only = |kind: &str| {
        let found: Vec<usize> = (0..order.len()).filter(|&at| file.nodes[order[at]].kind == kind).collect();
        match found[..] {
            [one] => Ok(one),
            _ => Err(file.wrong(format!("has {} nodes of type {kind}; synfit simulates graphs with one", found.len()))),
        }
    };
    Ok(Graph { input: only("Input")?, output: only("Output")?, nodes })
}

/// Each node after its sources; where a cycle leaves none, neurons that something has reached go first.
fn order(file: &NirFile) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = Vec::new();
    while order.len() < file.nodes.len() {
        let open = || (0..file.nodes.len()).filter(|i| !order.contains(i));
        let ready = open().find(|&i| file.sources(i).all(|s| order.contains(&s)));
        let neurons = |i: &usize| ["IF", "LIF", "CubaLIF", "LI", "CubaLI", "I"].contains(&file.nodes[*i].kind.as_str());
        let reached = |i: &usize| file.sources(*i).any(|s| order.contains(&s));
        let Some(next) = ready.or_else(|| open().find(|i| neurons(i) && reached(i))) else {
            let stuck = open().next().map_or("", |i| &file.nodes[i].name);
            return Err(file.wrong(format!("node {stuck} is on a cycle without neurons, or nothing leads to it")));
        };
        order.push(next);
    }
    Ok(order)
}

/// Kind, dimensions that come in if it has its own, dimensions that go out.
type Made = (Kind, Option<Vec<usize>>, Vec<usize>);

fn node(kind: &str, fields: &Fields, known: &[usize], rules: Rules) -> Result<Made> {
    Ok(match kind {
        "Output" => {
            let dims = fields.sizes("shape")?;
            (Kind::Same, Some(dims.clone()), dims)
        }
        "Linear" | "Affine" => linear(fields, kind == "Affine")?,
        "Conv2d" => conv(fields, known)?,
        "SumPool2d" | "AvgPool2d" => {
            let kernel = fields.pair("kernel_size", 1)?.map(|k| k as usize);
            let window = window(fields, kernel)?;
            let [c, h, w] = known[..] else { return Err(fields.wrong(format!("pools {known:?}"))) };
            let factor = if kind == "AvgPool2d" { 1.0 / window.taps() as f64 } else { 1.0 };
            (Kind::Pool { from: [c, h, w], window, factor }, None, slid(fields, &window, c, [h, w])?)
        }
        "Flatten" => (Kind::Same, None, flattened(fields, known)?),
        "Scale" => {
            let scale = fields.reals("scale")?;
            (Kind::Scale(scale.values), Some(scale.dims.clone()), scale.dims)
        }
        "Threshold" => {
            let threshold = fields.reals("threshold")?;
            (Kind::Threshold(threshold.values), Some(threshold.dims.clone()), threshold.dims)
        }
        "IF" | "I" | "LIF" | "LI" | "CubaLIF" | "CubaLI" => neurons(kind, fields, rules)?,
        kind => return Err(fields.wrong(format!("is of type {kind}, which synfit does not simulate"))),
    })
}

fn linear(fields: &Fields, biased: bool) -> Result<Made> {
    let weight = fields.reals("weight")?;
    let [m, n] = weight.dims[..] else {
        return Err(fields.wrong_field("weight", format!("has dimensions {:?}, must be a matrix", weight.dims)));
    };
    let bias = if biased { fields.reals("bias")?.values } else { vec![0.0; m] };
    if bias.len() != m || m == 0 {
        return Err(fields.wrong_field("bias", format!("holds {} numbers for {m} rows", bias.len())));
    }
    let columns = (0..n).flat_map(|j| (0..m).map(move |i| (i, j))).map(|(i, j)| weight.values[i * n + j]).collect();
    Ok((Kind::Linear { weight: columns, bias }, Some(vec![n]), vec![m]))
}

fn conv(fields: &Fields, known: &[usize]) -> Result<Made> {
    let weight = fields.reals("weight")?;
    let ([c, h, w], [cout, cin, kh, kw]) = (known, &weight.dims[..]) else {
        return Err(fields.wrong(format!("has weights of {:?} for inputs of {known:?}", weight.dims)));
    };
    let groups = usize::try_from(fields.one_whole("groups")?).ok().filter(|g| *g > 0);
    let groups = groups.ok_or_else(|| fields.wrong_field("groups", "must be at least 1"))?;
    if cin * groups != *c || !cout.is_multiple_of(groups) || *kh * *kw == 0 {
        return Err(fields.wrong(format!("has weights of {:?} in {groups} groups for {c} channels", weight.dims)));
    }
    let bias = fields.reals("bias")?.values;
    if bias.len() != *cout {
        return Err(fields.wrong_field("bias", format!("holds {} numbers for {cout} channels", bias.len())));
    }
    let window = window(fields, [*kh, *kw])?;
    let dims = slid(fields, &window, *cout, [*h, *w])?;
    let from = [*c, *h, *w];
    Ok((Kind::Conv(Conv { from, window, groups, weight: weight.values, bias }), None, dims))
}

fn slid(fields: &Fields, window: &Window, channels: usize, size: [usize; 2]) -> Result<Vec<usize>> {
    match (positions(window, 0, size[0]), positions(window, 1, size[1])) {
        (Some(h), Some(w)) => Ok(vec![channels, h, w]),
        _ => Err(fields.wrong(format!("its window of {:?} does not fit {size:?}", window.kernel))),
    }
}

fn flattened(fields: &Fields, known: &[usize]) -> Result<Vec<usize>> {
    let ends = [fields.one_whole("start_dim")?, fields.one_whole("end_dim")?];
    let count = known.len() as i64;
    let [first, last] = ends.map(|d| if d < 0 { d + count } else { d });
    if !(0 <= first && first <= last && last < count) {
        return Err(fields.wrong(format!("flattens dimensions {} to {} of {known:?}", ends[0], ends[1])));
    }
    let (first, last) = (first as usize, last as usize);
    let middle = known[first..=last].iter().product();
    Ok([&known[..first], &[middle], &known[last + 1..]].concat())
}

fn neurons(kind: &str, fields: &Fields, rules: Rules) -> Result<Made> {
    let r = fields.reals("r")?;
    let dims = r.dims.clone();
    let like = |field: &str| {
        let found = fields.reals(field)?;
        match found.dims == dims {
            true => Ok(found.values),
            false => Err(fields.wrong_field(field, format!("has dimensions {:?}, r has {dims:?}", found.dims))),
        }
    };
    // dt / tau, by neuron
    let share = |field: &str| -> Result<Vec<f64>> {
        let tau = like(field)?;
        let least = tau.iter().copied().fold(f64::INFINITY, f64::min);
        // as most files have it
        let short = least as f32;
        let dt = rules.dt.ok_or_else(|| {
            fields.wrong_field(field, format!("is down to {short}: give the time step with --dt, well below that"))
        })?;
        if least < dt {
            return Err(fields.wrong_field(field, format!("is down to {short}, below the time step (--dt {dt})")));
        }
        Ok(tau.iter().map(|tau| dt / tau).collect())
    };
    let cuba = kind.starts_with("Cuba");
    let synapse = match cuba {
        true => {
            let w = if fields.has("w_in") { fields.reals("w_in")?.values } else { vec![1.0] };
            let w = if w.len() == 1 { vec![w[0]; r.values.len()] } else { w };
            if w.len() != r.values.len() {
                return Err(fields.wrong_field("w_in", format!("holds {} numbers, r {}", w.len(), r.values.len())));
            }
            Some((share("tau_syn")?, w))
        }
        false => None,
    };
    let leak = match kind {
        "IF" | "I" => None,
        _ => Some((share(if cuba { "tau_mem" } else { "tau" })?, like("v_leak")?)),
    };
    let fires = match kind.ends_with("IF") {
        true => {
            let threshold = like("v_threshold")?;
            // the field is younger than the format: left out it is 0
            let reset = if fields.has("v_reset") { like("v_reset")? } else { vec![0.0; threshold.len()] };
            Some((threshold, reset))
        }
        false => None,
    };
    let step = if leak.is_none() { rules.dt.unwrap_or(1.0) } else { 1.0 };
    let r = r.values.iter().map(|r| r * step).collect();
    Ok((Kind::Neurons(Neurons { synapse, leak, r, fires, subtract: rules.subtract }), Some(dims.clone()), dims))
}
