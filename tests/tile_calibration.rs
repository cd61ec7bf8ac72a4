//! Variants of kernels are timed once and remembered; what is no memory of this adapter is ignored.

mod common;

use std::path::Path;

use common::devices;
use synfit::compute::{Tiles, Wide, calibrated};

/// Images and channels of the problem: little for a software GPU to do.
const SMALL: (usize, usize) = (1, 12);

fn only_file(folder: &Path) -> std::path::PathBuf {
    let all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn timed_once_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("made/on/the/way");
    let dev = &devices()[0];
    let timed = calibrated(dev, Some(&inner), SMALL).unwrap();
    let file = only_file(&inner);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&dev.info().name) && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    assert_eq!(calibrated(dev, Some(&inner), SMALL).unwrap(), timed);

    // What the file says counts, whatever was timed.
    for (percent, dots) in [(4321, true), (1, false)] {
        let mut other: serde_json::Value = serde_json::from_str(&text).unwrap();
        other["tiles"] = serde_json::json!({ "gram": percent, "counts": percent, "conv": percent, "dots": dots });
        std::fs::write(&file, other.to_string()).unwrap();
        let wide = Wide(percent);
        assert_eq!(calibrated(dev, Some(&inner), SMALL).unwrap(), Tiles { gram: wide, counts: wide, conv: wide, dots });
    }

    // Another version's, another driver's, or no record at all: timed and written again.
    let version = text.replace(env!("CARGO_PKG_VERSION"), "0.0.0");
    let driver = text.replace("\"driver\": \"", "\"driver\": \"old ");
    for bad in [version.as_str(), driver.as_str(), "{", "", "[1, 2]", &text.replace("tiles", "shapes")] {
        assert_ne!(bad, text);
        std::fs::write(&file, bad).unwrap();
        calibrated(dev, Some(&inner), SMALL).unwrap();
        let new = std::fs::read_to_string(only_file(&inner)).unwrap();
        assert!(new.contains(env!("CARGO_PKG_VERSION")) && !new.contains("\"old "), "{new}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    calibrated(&devices()[0], Some(&file.path().join("below")), SMALL).unwrap();
    calibrated(&devices()[0], None, SMALL).unwrap();
    assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 0);
}
