//! Chip files: every built-in one says where its figures come from; a wrong one is refused by file, line and field.

mod common;

use std::collections::BTreeSet;
use std::process::{Command, Output};

use synfit::chip::{Chip, Grid, ScaleOwner, fit_rules};

const ASKED: [&str; 17] = [
    "loihi1",
    "loihi2",
    "truenorth",
    "spinnaker1",
    "spinnaker2",
    "brainscales2",
    "dynapse2",
    "speck",
    "xylo-audio2",
    "xylo-audio3",
    "xylo-imu",
    "akida1000",
    "odin",
    "reckon",
    "rram",
    "digital",
    "analog",
];

#[test]
fn every_file_is_built_in_and_every_table_has_a_source() {
    let files = std::fs::read_dir(common::local("configs/chips")).unwrap();
    let files: BTreeSet<String> =
        files.map(|f| f.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let built_in: BTreeSet<String> = Chip::built_in().map(String::from).collect();
    assert_eq!(files, built_in);
    assert!(ASKED.iter().all(|name| built_in.contains(*name)));
    let (mut unverified, mut unknown) = (0, 0);
    for name in Chip::built_in() {
        let chip = Chip::load(name).unwrap();
        assert_eq!(chip.name, name);
        assert!(chip.origins.len() > 1, "{name}: no tables");
        for origin in &chip.origins {
            let source = origin.source.as_deref().unwrap_or("");
            assert!(source.len() > 3, "{name}: [{}] has no source", origin.table);
            assert!(origin.sources.values().all(|s| s.len() > 3), "{name}: [{}]", origin.table);
            unverified += origin.unverified.len();
            unknown += origin.unknown.len();
        }
    }
    assert!(unverified > 5 && unknown > 5, "{unverified} unverified, {unknown} unknown");
}

#[test]
fn a_wrong_file_is_refused_by_line_and_field() {
    let base = "name = \"mine\"\n[weights]\ngrid = { uniform = { bits = 8 } }\n[neuron]\nreset = \"zero\"\n";
    assert!(Chip::parse("mine.toml", base).is_ok());
    let core = |line: &str| format!("{base}[core]\n{line}\n");
    for (text, line, words) in [
        (base.replace("bits = 8", "bits = 99"), 3, &["weights.grid", "99", "2..=16"][..]),
        (base.replace("uniform", "unifrom"), 3, &["weights.grid", "unifrom", "uniform"]),
        (base.replace("\"zero\"", "\"sometimes\""), 5, &["neuron.reset", "sometimes", "subtract"]),
        (base.replace("reset = \"zero\"", "decay = 2.0\nreset = \"zero\""), 4, &["neuron", "decay"]),
        (base.replace("reset = \"zero\"", ""), 4, &["neuron", "reset"]),
        (base.replace("name", "speed = 3\nname"), 1, &["speed"]),
        (core("neurons = \"many\""), 7, &["core.neurons", "many"]),
        (core("neurons = -4"), 7, &["core.neurons", "-4"]),
        (core("neurons = 0"), 7, &["core.neurons", "at least 1"]),
        (core("colour = 1"), 7, &["core.colour", "fan_in"]),
        (core("neurons = 1\nunverified = [\"axons\"]"), 8, &["core", "axons"]),
        (core("memory = { bits = 5 }"), 7, &["core.memory", "weight_bits"]),
        (base.replace("name = \"mine\"\n", "name = \n"), 1, &["mine.toml"]),
        (format!("{base}[weights]\n"), 6, &["weights"]),
        (base.replace("[neuron]", "sign = \"pair\"\n[neuron]"), 3, &["weights.grid", "signs of its own"]),
        (base.replace("[neuron]", "range = [0.0, 1.0]\n[neuron]"), 2, &["weights", "more than one"]),
    ] {
        let error = Chip::parse("mine.toml", &text).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with(&format!("mine.toml:{line}: ")), "{said}\n{text}");
        assert!(words.iter().all(|w| said.contains(w)), "{words:?} in {said}");
        assert_eq!((error.exit_code(), said.lines().count()), (2, 1), "{said}");
    }
}

#[test]
fn unknown_is_not_the_same_as_unlimited() {
    let text = "name = \"mine\"\n[neuron]\nreset = \"zero\"\n[core]\nfan_in = \"unknown\"\nneurons = 7\n";
    let chip = Chip::parse("mine.toml", text).unwrap();
    assert_eq!((chip.core.fan_in, chip.core.neurons), (None, Some(7)));
    assert!(chip.is_unknown("core.fan_in") && !chip.is_unknown("core.axons_in"));
}

/// What the kinds of a description mean to the fit.
#[test]
fn kinds_reach_the_fit() {
    let rules = |name: &str| fit_rules(&Chip::load(name).unwrap());
    assert_eq!(rules("loihi1").unwrap().grid, Some(Grid::Even { bits: 8 }));
    // neurons that own their thresholds own the scale, although the shift is the matrix's
    assert_eq!((rules("loihi1").unwrap().owner, rules("loihi1").unwrap().power_of_two), (ScaleOwner::Channel, false));
    assert_eq!((rules("speck").unwrap().owner, rules("speck").unwrap().shifts), (ScaleOwner::Layer, Some([0, 0])));
    // thresholds that pairs of neurons share are alike in a layer, and make up for the shift
    assert_eq!((rules("reckon").unwrap().owner, rules("reckon").unwrap().power_of_two), (ScaleOwner::Layer, false));
    // pairs of rows, and of conductances with 16 levels: -63..63 and -15..15
    let ends = |name: &str| rules(name).unwrap().grid.unwrap().regular();
    assert_eq!(ends("brainscales2"), Some((-63.0, 63.0, 1.0)));
    assert_eq!(ends("rram"), Some((-15.0, 15.0, 1.0)));
    assert_eq!(ends("odin"), Some((0.0, 7.0, 1.0)));
    assert!(rules("odin").unwrap().sign_of_source);
    assert_eq!(rules("analog").unwrap().range, Some([-0.5, 0.5]));
    // sums of currents of 1, 2, 4 and 8 units, of either sign; four whole values a neuron
    assert_eq!(ends("dynapse2"), Some((-15.0, 15.0, 1.0)));
    assert_eq!((ends("truenorth"), rules("truenorth").unwrap().types), (Some((-256.0, 255.0, 1.0)), Some(4)));
    assert!(rules("xylo-imu").is_ok());
    let said = rules("spinnaker2").unwrap_err().to_string();
    assert!(said.contains("spinnaker2") && said.contains("weights.grid") && said.lines().count() == 1, "{said}");
    let mut chip = Chip::load("spinnaker2").unwrap();
    chip.replace_grid(Some("8".parse().unwrap()));
    assert!(fit_rules(&chip).is_ok());
}

/// What `synfit chips NAME` prints is a chip file that works like the built-in one.
#[test]
fn a_printed_chip_is_a_file() {
    let synfit = |args: &[&str]| -> Output { Command::new(env!("CARGO_BIN_EXE_synfit")).args(args).output().unwrap() };
    let folder = tempfile::tempdir().unwrap();
    for name in Chip::built_in() {
        let printed = synfit(&["chips", name]);
        assert!(printed.status.success());
        let path = folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, &printed.stdout).unwrap();
        let own = Chip::load(path.to_str().unwrap()).unwrap();
        assert_eq!(own, Chip::load(name).unwrap());
    }
    let text = |name: &str| String::from_utf8(synfit(&["chips", name]).stdout).unwrap();
    let (truenorth, spinnaker) = (text("truenorth"), text("spinnaker2"));
    assert!(truenorth.contains("source = ") && truenorth.contains("# unverified: "), "{truenorth}");
    assert!(truenorth.contains("# converts: yes") && spinnaker.contains("# converts: no"), "{spinnaker}");
}
