//! What smaller layers cost, as a picture: error over size, a line a layer, with the agreement where it was measured.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::html::escape;
use crate::convert::Curve;

/// One layer's account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerSweep {
    #[serde(flatten)]
    pub curve: Curve,
    pub measured: Vec<Measured>,
}

/// A whole network with one layer smaller.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Measured {
    pub kept: usize,
    pub agreement: Option<f64>,
    /// ||snn - ann|| / ||ann - mean ann|| over the outputs.
    pub relative_error: f64,
}

impl LayerSweep {
    /// What the layer's readers lose with `kept` nodes left; `None` for what the curve does not hold.
    pub fn cost(&self, kept: usize) -> Option<f64> {
        match self.curve.nodes.checked_sub(kept)? {
            0 => Some(0.0),
            gone => self.curve.removals.get(gone - 1).map(|r| r.cost),
        }
    }
}

const COLOURS: [&str; 8] = ["#2a6fbb", "#d95f02", "#1a9850", "#7b3294", "#b8860b", "#008b8b", "#c51b7d", "#555"];
/// Left, top, width and height of the plot.
const PLOT: [f64; 4] = [70.0, 20.0, 560.0, 360.0];

/// The picture; costs below 1e-6 lie on the lower edge.
pub fn svg(network: &str, layers: &[LayerSweep]) -> String {
    let [left, top, width, height] = PLOT;
    let (low, high) = (1e-6f64, 1.0f64);
    let x = |share: f64| left + width * share;
    let y = |cost: f64| top + height * (high / cost.clamp(low, high)).log10() / (high / low).log10();
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 900 {}' font-family='system-ui,sans-serif' font-size='12'>\
         <rect width='900' height='100%' fill='#fff'/>",
        (height + 90.0).max(60.0 + 18.0 * layers.len() as f64)
    );
    for decade in -6..=0 {
        let at = y(10f64.powi(decade));
        let _ = write!(
            out,
            "<line x1='{left}' x2='{r}' y1='{at:.1}' y2='{at:.1}' stroke='#eee'/><text x='{t}' y='{b:.1}' \
             text-anchor='end'>1e{decade}</text>",
            r = left + width,
            t = left - 8.0,
            b = at + 4.0
        );
    }
    for quarter in 0..=4 {
        let at = x(f64::from(quarter) / 4.0);
        let _ = write!(
            out,
            "<line x1='{at}' x2='{at}' y1='{top}' y2='{b}' stroke='#eee'/><text x='{at}' y='{t}' text-anchor='middle'>{} \
             %</text>",
            25 * quarter,
            b = top + height,
            t = top + height + 18.0
        );
    }
    let _ = write!(
        out,
        "<text x='{}' y='{}' text-anchor='middle'>nodes left of a layer of {}; share of its readers' signal that is lost, \
         refitted; dots: agreement</text>",
        left + width / 2.0,
        top + height + 42.0,
        escape(network)
    );
    for (i, layer) in layers.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let all = layer.curve.nodes as f64;
        let points = (1..=layer.curve.removals.len()).filter_map(|gone| {
            let kept = layer.curve.nodes - gone;
            Some(format!("{:.1},{:.1}", x(kept as f64 / all), y(layer.cost(kept)?)))
        });
        let points: Vec<String> = points.collect();
        let _ =
            write!(out, "<polyline fill='none' stroke='{colour}' stroke-width='1.5' points='{}'/>", points.join(" "));
        for measured in &layer.measured {
            let (Some(cost), Some(agreement)) = (layer.cost(measured.kept), measured.agreement) else { continue };
            let at = (x(measured.kept as f64 / all), y(cost));
            let _ = write!(
                out,
                "<circle cx='{:.1}' cy='{:.1}' r='3.5' fill='{colour}'/><text x='{:.1}' y='{:.1}' font-size='10' \
                 fill='{colour}'>{:.1} %</text>",
                at.0,
                at.1,
                at.0 + 6.0,
                at.1 - 4.0,
                100.0 * agreement
            );
        }
        let row = top + 10.0 + 18.0 * i as f64;
        let _ = write!(
            out,
            "<rect x='{x}' y='{}' width='12' height='3' fill='{colour}'/><text x='{}' y='{}'>{} ({})</text>",
            row - 4.0,
            left + width + 36.0,
            row + 1.0,
            escape(&layer.curve.layer),
            layer.curve.nodes,
            x = left + width + 18.0
        );
    }
    out.push_str("</svg>\n");
    out
}
