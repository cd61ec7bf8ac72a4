//! Which layer goes wrong first, what its error is made of, and which option to try.

use crate::convert::{LayerRecord, Parts};
use crate::neuron::{Model, Reset};
use crate::spiking::Schedule;

/// A layer is wrong whose response error is above this.
const WRONG: f64 = 0.05;
/// As good as all neurons of a layer.
const ALL: f64 = 0.999;
/// A part above this is only told to be larger: beyond it a layer's rates say nothing, however far they are off.
const TOLD: f64 = 10.0;
/// Neurons that fire at every chance: more than this share says that thresholds are too low.
const SATURATED: f64 = 0.5;

/// The first layer that goes wrong, and why, if one does. Layers that stand in for others' remainders are left out: theirs is
/// the error of an error.
pub fn first_wrong(layers: &[LayerRecord], model: &Model, schedule: Schedule) -> Option<String> {
    let known: Vec<(&LayerRecord, f64, Parts)> =
        layers.iter().filter(|l| !l.is_remainder()).filter_map(|l| Some((l, l.response_error?, l.parts?))).collect();
    let at = known.iter().position(|(l, error, _)| *error > WRONG || l.dead.is_some_and(|d| d >= ALL))?;
    let (layer, error, parts) = &known[at];
    let percent = |v: f64| match v > TOLD {
        true => format!("over {:.0} %", 100.0 * TOLD),
        false => format!("{:.1} %", 100.0 * v),
    };
    let first = format!("{} is the first layer that goes wrong", layer.name);
    if layer.dead.is_some_and(|dead| dead >= ALL) {
        return Some(format!("{first}: none of its neurons ever fires on the calibration images"));
    }
    let told: Vec<String> =
        parts.named().iter().filter(|(_, v)| *v >= 0.001).map(|(name, v)| format!("{name} {}", percent(*v))).collect();
    let first = format!("{first}: its rates are off by {} of their variance ({})", percent(*error), told.join(", "));
    let (mut cause, _) = parts.largest();
    let mut where_from = String::new();
    let mut curved = layer.curved;
    if cause == "inputs" && at > 0 {
        // what the layers up to here lost themselves
        let sum = |pick: fn(&Parts) -> f64| known[..=at].iter().map(|(.., p)| pick(p)).sum::<f64>();
        let lost = Parts {
            clipping: sum(|p| p.clipping),
            inputs: 0.0,
            weights: sum(|p| p.weights),
            quantization: sum(|p| p.quantization),
            unevenness: sum(|p| p.unevenness),
        };
        cause = lost.largest().0;
        curved = known[..=at].iter().any(|(l, ..)| l.curved);
        where_from = format!("; the layers up to it lose most to {cause}");
    }
    let saturated = layer.saturated.is_some_and(|s| s > SATURATED);
    let saturated = if saturated { "; most of its neurons fire at every chance" } else { "" };
    Some(format!("{first}{where_from}{saturated}: {}", advice(cause, curved, model, schedule)))
}

/// What to try against a part of the error. `curved`: some of what went wrong follows a curve by pieces.
fn advice(cause: &str, curved: bool, model: &Model, schedule: Schedule) -> &'static str {
    match (cause, schedule) {
        ("weights", _) => {
            "try more --bits, --per-unit 2 (with 4 bits or fewer its neurons make up for each other's weights), or a scale for \
             each output channel (--bits-scale channel)"
        }
        ("unevenness", _) if model.reset == Reset::Zero => {
            "a reset to zero drops what a potential holds beyond the threshold, most where spikes come unevenly: more --steps \
             help a little, finer weights do not, neurons that subtract the threshold would"
        }
        ("unevenness", _) if *model == Model::IF => "try --schedule layered, or a longer --settle",
        ("unevenness", _) => "try a longer --settle, or more --steps",
        ("clipping", _) if curved => "try a larger --population, whose pieces follow a curved activation more closely",
        ("clipping", _) => "try more --steps or --per-unit 2 (thresholds are weighed between clipping and rounding)",
        ("quantization", Schedule::Layered) => "try more --steps, --per-unit 2, or a larger --remainder",
        ("quantization", Schedule::Streaming) => "try more --steps, or --per-unit 2",
        _ => "try more --images, or more --steps",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, error: f64, parts: [f64; 5]) -> LayerRecord {
        let [clipping, inputs, weights, quantization, unevenness] = parts;
        LayerRecord {
            name: name.into(),
            response_error: Some(error),
            parts: Some(Parts { clipping, inputs, weights, quantization, unevenness }),
            dead: Some(0.0),
            ..LayerRecord::default()
        }
    }

    fn told(layers: &[LayerRecord], model: Model, schedule: Schedule) -> String {
        first_wrong(layers, &model, schedule).unwrap_or_default()
    }

    #[test]
    fn the_first_layer_beyond_the_limit_is_named_with_its_largest_part() {
        let good = layer("conv1", 0.01, [0.0, 0.0, 0.0, 0.01, 0.0]);
        let spread = layer("conv2", 0.08, [0.001, 0.01, 0.0, 0.01, 0.06]);
        let worse = layer("conv3", 20.5, [20.5, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(told(std::slice::from_ref(&good), Model::IF, Schedule::Streaming), "");
        let text = told(&[good.clone(), spread.clone(), worse.clone()], Model::IF, Schedule::Streaming);
        assert!(text.starts_with("conv2 ") && text.contains("8.0 %") && text.contains("unevenness 6.0 %"), "{text}");
        assert!(text.contains("--schedule layered"), "{text}");
        let zero = Model { reset: Reset::Zero, ..Model::IF };
        assert!(told(&[spread], zero, Schedule::Streaming).contains("reset to zero drops"));
        let text = told(std::slice::from_ref(&worse), Model::IF, Schedule::Streaming);
        assert!(text.contains("off by over 1000 % of") && text.contains("clipping over 1000 %"), "{text}");
        assert!(text.contains("--per-unit") && !text.contains("--population"), "{text}");
        let curved = LayerRecord { curved: true, ..worse };
        assert!(told(&[curved], Model::IF, Schedule::Streaming).contains("--population"));
    }

    #[test]
    fn what_comes_in_wrong_is_laid_to_the_layers_before() {
        let weights = |name: &str| layer(name, 0.04, [0.0, 0.0, 0.03, 0.01, 0.0]);
        let victim = layer("conv3", 0.09, [0.0, 0.08, 0.005, 0.01, 0.0]);
        let text = told(&[weights("conv1"), weights("conv2"), victim], Model::IF, Schedule::Layered);
        assert!(
            text.starts_with("conv3 ") && text.contains("lose most to weights") && text.contains("--bits"),
            "{text}"
        );
    }

    #[test]
    fn silent_layers_are_told_whatever_their_error() {
        let silent = LayerRecord { dead: Some(1.0), ..layer("conv1", 0.0, [0.0; 5]) };
        assert!(told(&[silent], Model::IF, Schedule::Streaming).contains("none of its neurons ever fires"));
    }
}
