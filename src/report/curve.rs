//! report.html's picture of agreement over the number of steps, and its table.

use std::fmt::Write;

use super::Report;
use crate::compare::Point;

/// Left, right, top and bottom of the plot in the picture of 900 x 260.
const PLOT: [f64; 4] = [60.0, 860.0, 12.0, 226.0];

/// The section on steps: the result run for fewer, and the conversions of a search.
pub fn section(out: &mut String, report: &Report) {
    if report.curve.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Steps</h2><p class=note>The same network run for fewer steps than it was converted for; a \
                  conversion for so few of its own may agree better.</p>",
    );
    if report.curve.iter().all(|p| p.agreement.is_some()) {
        picture(out, report);
    }
    table(out, &report.curve);
    if let Some(search) = &report.search {
        let _ = write!(
            out,
            "<p class=note>Conversions of their own, in search of the fewest steps that reach an agreement of {:.2} %:</p>",
            100.0 * search.agreement
        );
        table(out, &search.tried);
    }
}

/// Agreement over steps (logarithmic): the curve as a line, a search's conversions as circles.
fn picture(out: &mut String, report: &Report) {
    let [left, right, top, bottom] = PLOT;
    let tried = report.search.iter().flat_map(|s| &s.tried);
    let most = report.curve.iter().chain(tried.clone()).map(|p| p.steps).max().unwrap_or(1).max(2);
    let x = |steps: u32| left + (right - left) * f64::from(steps).log2() / f64::from(most).log2();
    let y = |agreement: f64| bottom - (bottom - top) * agreement;
    out.push_str("<svg viewBox='0 0 900 260' role=img aria-label='agreement by steps'>");
    for tenth in (0..=10).step_by(2) {
        let at = y(f64::from(tenth) / 10.0);
        let _ = write!(
            out,
            "<line x1={left} x2={right} y1={at:.1} y2={at:.1} stroke='#eee'/>\
             <text x={} y={:.1} text-anchor=end>{} %</text>",
            left - 8.0,
            at + 4.0,
            10 * tenth
        );
    }
    let mut points = String::new();
    for p in &report.curve {
        let (at, height) = (x(p.steps), y(p.agreement.unwrap_or(0.0)));
        let _ = write!(points, "{at:.1},{height:.1} ");
        let _ = write!(out, "<text x={at:.1} y={} text-anchor=middle>{}</text>", bottom + 18.0, p.steps);
        let _ = write!(out, "<circle cx={at:.1} cy={height:.1} r=3 fill='#2a6fbb'>{}</circle>", title(p));
    }
    let _ = write!(out, "<polyline points='{}' fill=none stroke='#2a6fbb'/>", points.trim_end());
    for p in tried {
        let (at, height) = (x(p.steps), y(p.agreement.unwrap_or(0.0)));
        let _ = write!(out, "<circle cx={at:.1} cy={height:.1} r=5 fill=none stroke='#d95f02'>{}</circle>", title(p));
    }
    out.push_str("</svg>");
}

fn title(p: &Point) -> String {
    format!("<title>T = {}: {:.2} %</title>", p.steps, 100.0 * p.agreement.unwrap_or(0.0))
}

fn table(out: &mut String, points: &[Point]) {
    let percent = |v: Option<f64>| v.map_or_else(|| "–".into(), |v| format!("{:.2} %", 100.0 * v));
    out.push_str("<table><tr><th>T<th>latency<th>agreement<th>SNN accuracy<th>relative error<th>spikes<th>synops</tr>");
    for p in points {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.3}<td>{:.0}<td>{:.0}</tr>",
            p.steps,
            p.latency,
            percent(p.agreement),
            percent(p.snn_accuracy),
            p.relative_error,
            p.spikes_per_image,
            p.synops_per_image
        );
    }
    out.push_str("</table>");
}
