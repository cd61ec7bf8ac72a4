//! report.html: one self-contained page, pictures as inline SVG.

use std::fmt::Write;

use super::Report;
use crate::convert::LayerRecord;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;font-size:13px;width:100%}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem}.tile{border:1px solid #ddd;border-radius:6px;padding:.6rem 1rem}
.tile b{display:block;font-size:1.3rem}svg text{font:11px system-ui,sans-serif;fill:#333}.note{color:#666;font-size:13px}";

/// The page.
pub fn html(report: &Report) -> String {
    let mut out = String::new();
    let title = format!("{} on {}, T = {}, latency {}", report.network, report.chip, report.steps, report.latency);
    let title = escape(&title);
    let _ = write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    );
    tiles(&mut out, report);
    for note in &report.notes {
        let _ = write!(out, "<p class=note>{}</p>", escape(note));
    }
    super::curve::section(&mut out, report);
    cost(&mut out, report);
    out.push_str("<h2>Where the error comes from</h2>");
    out.push_str(
        "<p class=note>Relative squared error of each layer, logarithmic. <b style=color:#bbb>round</b>: rounded to nearest \
         from the largest weight; <b style=color:#2a6fbb>stored</b>: what the fit stores; <b style=color:#1a9850>bound</b>: \
         no weights on this chip's grid can do better; <b style=color:#d95f02>response</b>: decoded rates against the \
         trained activations, all earlier layers' errors included.</p>",
    );
    errors(&mut out, &report.layers);
    super::parts::section(&mut out, &report.layers);
    out.push_str("<h2>Activity</h2>");
    activity(&mut out, report);
    out.push_str("<h2>Layers</h2>");
    layers(&mut out, &report.layers);
    let backends: Vec<&str> = match report.devices.as_slice() {
        [] => vec![&report.device.backend],
        several => several.iter().map(|d| d.backend.as_str()).collect(),
    };
    let _ = write!(
        out,
        "<p class=note>synfit {} on {} ({}); seed {}; read {:.2} s, convert {:.2} s, test {:.2} s.</p></html>",
        escape(&report.synfit),
        escape(&report.on()),
        escape(&backends.join(", ")),
        report.seed,
        report.seconds.read,
        report.seconds.convert,
        report.seconds.test
    );
    out
}

fn tiles(out: &mut String, report: &Report) {
    let test = &report.test;
    let percent = |v: Option<f64>| v.map_or_else(|| "–".into(), |v| format!("{:.2} %", 100.0 * v));
    let tiles = [
        ("agreement with the trained network", percent(test.agreement)),
        ("ANN accuracy", percent(test.ann_accuracy)),
        ("SNN accuracy", percent(test.snn_accuracy)),
        ("relative error of the outputs", format!("{:.3}", test.relative_error)),
        ("spikes an image", format!("{:.0}", test.spikes_per_image)),
        ("synaptic operations an image", format!("{:.0}", test.synops_per_image)),
        ("ANN multiply-accumulates an image", test.ann_macs_per_image.to_string()),
        ("neurons / synapses", format!("{} / {}", report.neurons, report.synapses)),
    ];
    out.push_str("<div class=tiles>");
    for (name, value) in tiles {
        let _ = write!(out, "<div class=tile><b>{value}</b>{name}</div>");
    }
    let _ = write!(out, "</div><p class=note>{} test images.</p>", test.images);
    if let Some(tuned) = report.tuned {
        let (agreement, accuracy) = (percent(tuned.agreement), percent(tuned.accuracy));
        let _ = write!(
            out,
            "<p class=note>The tuned network before conversion: agreement {agreement}, accuracy {accuracy}, relative error \
             {:.3}.</p>",
            tuned.relative_error
        );
    }
}

/// What the network takes of its chip.
fn cost(out: &mut String, report: &Report) {
    let Some(cost) = &report.cost else { return };
    let number = |v: Option<u64>| v.map_or_else(|| "unknown".into(), |v| v.to_string());
    let cores = match cost.cores_there {
        Some(there) => format!("{} of {there}", number(cost.cores)),
        None => number(cost.cores),
    };
    let energy = cost.energy.as_ref();
    let rows = [
        ("cores or arrays", cores),
        ("synapses as stored", cost.stored_synapses.to_string()),
        ("bits of synapse memory", number(cost.synapse_memory_bits)),
        ("spikes an image", format!("{:.0}", cost.spikes_per_image)),
        ("synaptic operations an image", format!("{:.0}", cost.synops_per_image)),
        (
            "energy an image",
            energy.map_or_else(
                || "unknown: no source gives the energy of an operation".into(),
                |e| format!("{:.3} µJ for these operations ({})", e.picojoules_per_image / 1e6, e.source),
            ),
        ),
        ("not simulated", cost.not_simulated.clone().unwrap_or_else(|| "nothing that the chip's file names".into())),
    ];
    let _ = write!(out, "<h2>On {}</h2><table>", escape(&report.chip));
    for (name, value) in rows {
        let _ = write!(out, "<tr><td>{name}<td>{}</tr>", escape(&value));
    }
    out.push_str("</table>");
}

/// Horizontal marks on a logarithmic axis from 1e-8 to 10.
fn errors(out: &mut String, layers: &[LayerRecord]) {
    let (left, width, row) = (220.0, 640.0, 20.0);
    let x = |v: f64| left + width * ((v.max(1e-8).log10() + 8.0) / 9.0).clamp(0.0, 1.0);
    let height = row * layers.len() as f64 + 24.0;
    let _ = write!(out, "<svg viewBox='0 0 900 {height}' role=img aria-label='errors by layer'>");
    for decade in -8..=1 {
        let at = x(10f64.powi(decade));
        let _ = write!(
            out,
            "<line x1={at} x2={at} y1=0 y2={y} stroke='#eee'/><text x={at} y={t} text-anchor=middle>1e{decade}</text>",
            y = height - 18.0,
            t = height - 5.0
        );
    }
    for (i, l) in layers.iter().enumerate() {
        let y = row * i as f64 + 10.0;
        let _ = write!(out, "<text x={} y={} text-anchor=end>{}</text>", left - 8.0, y + 4.0, escape(&short(&l.name)));
        let marks = [
            (Some(l.error.round), "#bbb"),
            (Some(l.error.bound), "#1a9850"),
            (Some(l.error.grid), "#2a6fbb"),
            (l.response_error, "#d95f02"),
        ];
        for (value, color) in marks {
            if let Some(v) = value.filter(|v| *v > 0.0) {
                let _ = write!(out, "<circle cx={:.1} cy={y} r=4 fill='{color}'><title>{v:.3e}</title></circle>", x(v));
            }
        }
    }
    out.push_str("</svg>");
}

fn activity(out: &mut String, report: &Report) {
    let layers = &report.test.layers;
    let (left, width, row) = (220.0, 560.0, 18.0);
    let most = layers.iter().map(|l| l.spikes_per_image).fold(1.0, f64::max);
    let _ = write!(
        out,
        "<svg viewBox='0 0 900 {}' role=img aria-label='spikes by layer'>",
        row * layers.len() as f64 + 4.0
    );
    for (i, l) in layers.iter().enumerate() {
        let y = row * i as f64;
        let w = width * l.spikes_per_image / most;
        let _ = write!(
            out,
            "<text x={} y={} text-anchor=end>{}</text><rect x={left} y={} width={w:.1} height=12 fill='#2a6fbb'/>\
             <text x={} y={}>{:.0} spikes, rate {:.3}, {:.0} synops</text>",
            left - 8.0,
            y + 13.0,
            escape(&short(&l.name)),
            y + 3.0,
            left + w + 6.0,
            y + 13.0,
            l.spikes_per_image,
            l.rate,
            l.synops_per_image
        );
    }
    out.push_str("</svg>");
}

fn layers(out: &mut String, layers: &[LayerRecord]) {
    out.push_str(
        "<table><tr><th>layer<th>kind<th>inputs<th>outputs<th>samples<th>round<th>fit<th>stored<th>bound<th>gap\
         <th>response<th>rate<th>dead<th>saturated<th>status<th>seconds</tr>",
    );
    let number = |v: Option<f64>| v.map_or_else(|| "–".into(), |v| format!("{v:.3}"));
    for l in layers {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.2e}<td>{:.2e}<td>{:.2e}<td>{:.2e}<td>{:.1e}<td>{}<td>{}<td>{}<td>{}\
             <td>{}<td>{:.2}</tr>",
            escape(&l.name),
            l.kind,
            l.inputs,
            l.outputs,
            l.samples,
            l.error.round,
            l.error.fit,
            l.error.grid,
            l.error.bound,
            l.gap,
            l.response_error.map_or_else(|| "–".into(), |v| format!("{v:.2e}")),
            number(l.rate),
            number(l.dead),
            number(l.saturated),
            escape(&l.status),
            l.seconds
        );
    }
    out.push_str("</table>");
}

/// The last 32 characters of a long name.
pub(super) fn short(name: &str) -> String {
    let count = name.chars().count();
    if count <= 34 { name.to_string() } else { format!("…{}", name.chars().skip(count - 32).collect::<String>()) }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
