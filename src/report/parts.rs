//! What the layers' response errors are made of, as stacked bars.

use std::fmt::Write;

use super::html::{escape, short};
use crate::convert::{LayerRecord, Parts};

/// One a part, in `Parts::named`'s order.
const COLORS: [&str; 5] = ["#e6ab02", "#999999", "#7570b3", "#1b9e77", "#d95f02"];
const MEANING: [&str; 5] = [
    "values beyond the highest rate, and what a population leaves of a curved activation",
    "errors of the layers before that no synapses can make up for",
    "what the chip's weights add to that",
    "rounding to whole spikes",
    "the same input in other spike trains",
];

/// Nothing for a report of an earlier version.
pub fn section(out: &mut String, layers: &[LayerRecord]) {
    let known: Vec<(&str, Parts)> = layers.iter().filter_map(|l| Some((l.name.as_str(), l.parts?))).collect();
    let sum = |parts: &Parts| parts.named().iter().map(|(_, v)| v).sum::<f64>();
    let most = known.iter().map(|(_, parts)| sum(parts)).fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    out.push_str("<h2>What response errors are made of</h2><p class=note>How far each step from trained activations to decoded \
                  spikes moves the values, relative to their variance; what is correlated does not add up to the whole.");
    for ((name, _), (color, meaning)) in known[0].1.named().iter().zip(COLORS.iter().zip(MEANING)) {
        let _ = write!(out, " <b style=color:{color}>{name}</b>: {meaning}.");
    }
    let (left, width, row) = (220.0, 560.0, 18.0);
    let height = row * known.len() as f64 + 4.0;
    let _ =
        write!(out, "</p><svg viewBox='0 0 900 {height}' role=img aria-label='parts of the response error by layer'>");
    for (i, (name, parts)) in known.iter().enumerate() {
        let y = row * i as f64;
        let _ = write!(out, "<text x={} y={} text-anchor=end>{}</text>", left - 8.0, y + 13.0, escape(&short(name)));
        let mut x = left;
        for ((what, value), color) in parts.named().iter().zip(COLORS) {
            let w = width * value / most;
            let _ = write!(
                out,
                "<rect x={x:.1} y={} width={w:.1} height=12 fill='{color}'><title>{what} {value:.2e}</title></rect>",
                y + 3.0
            );
            x += w;
        }
        let _ = write!(out, "<text x={:.1} y={}>{:.1e}</text>", x + 6.0, y + 13.0, sum(parts));
    }
    out.push_str("</svg>");
}
