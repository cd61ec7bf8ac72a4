//! Design rules and placement against numbers worked out by hand.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use synfit::chip::rules::{Verdict, verdict};
use synfit::chip::{Chip, Demand, SynapseMemory};
use synfit::convert::{Populations, neurons_per_unit};
use synfit::network;

fn on(model: &Path, chip: &Chip) -> Verdict {
    let network = network::read(model).unwrap();
    verdict(
        chip,
        &Demand::of(&network, |activation| neurons_per_unit(activation, Populations { rectified: 1, curved: 4 })),
    )
}

fn resnet() -> Option<PathBuf> {
    common::data("networks/cifar10_resnet20_conv1x1.onnx")
}

/// A chip file of our own with some lines in the place of others.
fn changed(name: &str, from: &str, to: &str) -> Chip {
    let text = Chip::text(name).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    Chip::parse("mine.toml", &text.replace(from, to)).unwrap()
}

/// resnet20: 20 layers (19 convolutions, 9 of them with a shortcut, and a dense one). On Speck a kernel of 3 x 3 takes
/// c 2^(ceil log2 9 + ceil log2 f) = c 2^(4 + ceil log2 f) words: 64 -> 64 channels 64 * 2^10 = 65536, all of the largest
/// core; with a 1 x 1 shortcut of 32 or 64 channels 32 * 2^6 = 2048 or 64 * 2^6 = 4096 more.
#[test]
fn resnet20_on_speck() {
    let Some(model) = resnet() else { return };
    let found = on(&model, &Chip::load("speck").unwrap());
    assert!(!found.fits);
    let finding = |rule: &str| found.findings.iter().find(|f| f.rule == rule).unwrap_or_else(|| panic!("no {rule}"));
    let kernels = finding("kernels");
    assert_eq!((kernels.need, kernels.have, kernels.layers), (2, 1, 9));
    assert_eq!(found.findings[0], *kernels, "branches come first: no smaller layer mends them");
    let pool = finding("pooling");
    assert_eq!((pool.layer.as_deref(), pool.need), (Some("GlobalAveragePool_69"), 8));
    let cores = finding("cores");
    assert_eq!((cores.need, cores.have), (20, 9));
    assert!(cores.message.contains("takes 20 cores, speck has 9"), "{}", cores.message);
    let core = finding("core");
    assert_eq!((core.layer.as_deref(), core.layers), (Some("Conv_50"), 3));
    assert!(core.message.contains("67584 words of weight memory, 4096 of neuron memory"), "{}", core.message);
    for (layer, words) in [("Conv_1", 3 << 8), ("Conv_4", 16 << 8), ("Conv_47", 32 << 10), ("Conv_55", 64 << 10)] {
        let placed = found.placement.layers.iter().find(|l| l.layer == layer).unwrap();
        assert_eq!(placed.memory_bits, Some(8 * words), "{layer}");
    }
    let gemm = found.placement.layers.last().unwrap();
    assert_eq!(gemm.memory_bits, Some(8 * (64 << 4)), "10 outputs are addressed as 16");
}

/// Small networks do fit: the digits network has 5 layers of 3 x 3 and dense kernels.
#[test]
fn digits_on_speck() {
    let found = on(&common::local("configs/digits/digits_cnn.onnx"), &Chip::load("speck").unwrap());
    assert!(found.fits, "{:?}", found.findings);
    assert_eq!((found.placement.cores, found.placement.layers.len()), (5, 5));
    assert_eq!(found.placement.layers[0].memory_bits, Some(8 * 256), "1 * 2^(4 + 4) words");
}

/// A crossbar of 256 inputs. Inputs of the layers: 27, 8 layers of 144 or 160, then 304, 288, 320, 288, 320, 288 (two
/// arrays each), 608, 576, 640, 576, 640 (three each), and 64: 9 + 6 * 2 + 5 * 3 = 36 arrays.
#[test]
fn resnet20_on_a_crossbar() {
    let Some(model) = resnet() else { return };
    let found = on(&model, &Chip::load("rram").unwrap());
    assert!(found.fits);
    assert_eq!(found.placement.cores, 36);
    let of = |layer: &str| found.placement.layers.iter().find(|l| l.layer == layer).unwrap();
    assert_eq!((of("Conv_25").cores, &of("Conv_25").split), (1, &None));
    assert_eq!((of("Conv_28").cores, of("Conv_28").split.as_deref()), (2, Some("2 blocks of inputs")));
    assert_eq!((of("Conv_65").cores, of("Conv_65").split.as_deref()), (3, Some("3 blocks of inputs")));
    // 144 of 256 rows
    assert_eq!((of("Conv_25").fullest, of("Conv_25").limit.as_str()), (0.5625, "rows"));
    // Without sums over arrays 11 layers have too many inputs.
    let alone = on(&model, &changed("rram", "partial_sums = true", "partial_sums = false"));
    assert!(!alone.fits && alone.placement.unplaced.len() == 11);
    let first = alone.first().unwrap();
    assert!(first.contains("Conv_28") && first.contains("304 inputs, an array has 256 rows"), "{first}");
    assert!(first.contains("so for 10 other layers"), "{first}");
    // Narrow arrays cut outputs too: 64 outputs are 128 columns.
    let narrow = on(&model, &changed("rram", "columns = 256", "columns = 100"));
    let conv = narrow.placement.layers.iter().find(|l| l.layer == "Conv_65").unwrap();
    assert_eq!((conv.cores, conv.split.as_deref()), (6, Some("3 blocks of inputs x 2 blocks of outputs")));
}

/// The same inputs on cores that hold whole neurons: nothing can be added up.
#[test]
fn resnet20_on_cores_of_256_axons() {
    let Some(model) = resnet() else { return };
    let found = on(&model, &Chip::load("truenorth").unwrap());
    let axons = found.findings.iter().find(|f| f.rule == "axons").unwrap();
    assert_eq!((axons.need, axons.have, axons.layers), (640, 256, 11));
    assert_eq!(axons.layer.as_deref(), Some("Conv_58"));
}

/// bits_per_axon of nengo_loihi: blocks of 64 weights, 10 bits beside them, rounded up to words of 64 bits.
#[test]
fn loihi_synapse_memory() {
    let memory = Chip::load("loihi1").unwrap().core.memory.unwrap();
    assert_eq!(memory.axon(64, 64), 576); // 64 * 8 + 10 = 522
    assert_eq!(memory.axon(65, 65), 576 + 64); // and 8 + 10 = 18
    assert_eq!(memory.axon(10, 128), 192); // 7 bits of address each: 10 * 15 + 10 = 160
    assert_eq!(memory.axon(0, 128), 0);
    let plain =
        SynapseMemory { bits: 1, weight_bits: 4, block_weights: 0, block_bits: 0, word_bits: 1, index_bits: vec![] };
    assert_eq!(plain.axon(10, 128), 40);
}

/// LeNet on Loihi. The first dense layer: 512 axons of 128 weights, two blocks of 576 bits each: 589,824 of 1,048,576.
/// conv2 reads 144 positions of 16 channels.
#[test]
fn lenet_on_loihi() {
    let Some(model) = common::data("networks/mnist_lenet_avgpool.onnx") else { return };
    let chip = Chip::load("loihi1").unwrap();
    let found = on(&model, &chip);
    assert!(found.fits, "{:?}", found.findings);
    let dense = found.placement.layers.iter().find(|l| l.layer.contains("f.7")).unwrap();
    assert_eq!((dense.cores, dense.memory_bits), (1, Some(589_824)));
    assert_eq!((dense.fullest, dense.limit.as_str()), (589_824.0 / 1_048_576.0, "synapse memory"));
    assert_eq!(dense.synapses, 65_536);
    let conv = &found.placement.layers[0];
    assert_eq!(conv.synapses, 25 * 9216, "every position of a convolution has synapses of its own");
    // Fewer cores than it takes.
    let small = on(&model, &changed("loihi1", "cores = 128", "cores = 20"));
    let cores = small.findings.iter().find(|f| f.rule == "cores").unwrap();
    assert_eq!((cores.need, cores.have), (found.placement.cores, 20));
    assert!(found.placement.cores > 20 && found.placement.cores <= 26);
}

/// A tile never takes more than its core has, and no neuron is lost: checked by counting.
#[test]
fn tiles_hold_what_they_are_given() {
    let Some(model) = common::data("networks/mnist_lenet_avgpool.onnx") else { return };
    for (axons, neurons) in [(400, 4096), (1000, 100), (600, 33)] {
        let from = "neurons = 1024\naxons_in = 1024";
        let chip = changed("digital", from, &format!("neurons = {neurons}\naxons_in = {axons}"));
        let found = on(&model, &chip);
        let of = |part: &str| found.placement.layers.iter().find(|l| l.layer.contains(part));
        assert!(of("f.0").unwrap().cores as usize * neurons >= 9216);
        assert!(found.placement.layers.iter().all(|l| l.fullest <= 1.0 && l.cores > 0));
        // 512 inputs of the dense layer
        assert_eq!(of("f.7").is_some(), axons >= 512, "{axons} axons");
    }
}

#[test]
fn inputs_outputs_and_fan_out() {
    let digits = common::local("configs/digits/digits_cnn.onnx");
    let found = on(&digits, &Chip::load("xylo-audio2").unwrap());
    let finding = |rule: &str| found.findings.iter().find(|f| f.rule == rule).unwrap_or_else(|| panic!("no {rule}"));
    assert_eq!((finding("inputs").need, finding("inputs").have), (64, 16));
    assert_eq!((finding("outputs").need, finding("outputs").have), (10, 8));
    assert_eq!(found.findings[0].rule, "inputs");
    // a neuron of the first convolution drives 3 x 3 positions of the second one's channels
    let network = network::read(&digits).unwrap();
    let demand = Demand::of(&network, |_| 1);
    let fan_out = demand.fan_out();
    let (first, second) = (&demand.layers[0], &demand.layers[1]);
    assert_eq!(fan_out[first.node], 9 * second.shape.c as u64);
    assert!(found.unknown.is_empty());
    assert!(on(&digits, &Chip::load("loihi2").unwrap()).unknown.contains(&"core.fan_in".to_string()));
}

/// `convert` refuses before any work, with the message that `inspect` gives first.
#[test]
fn convert_refuses_what_inspect_refuses() {
    let digits = |name: &str| common::local(&format!("configs/digits/{name}")).display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    let (model, images) = (digits("digits_cnn.onnx"), digits("train_images.npy"));
    for (chip, words) in [
        ("odin", &["does not fit odin", "input axons"][..]),
        ("truenorth", &["does not fit truenorth", "input axons"]),
        ("xylo-audio3", &["does not fit xylo-audio3", "64"]),
        ("spinnaker2", &["weights.grid"]),
    ] {
        let inspect = Command::new(env!("CARGO_BIN_EXE_synfit"))
            .args(["inspect", &model, "--chip", chip, "--json"])
            .output()
            .unwrap();
        assert!(inspect.status.success(), "inspect works for every chip");
        let seen: Value = serde_json::from_slice(&inspect.stdout).unwrap();
        let refused = Command::new(env!("CARGO_BIN_EXE_synfit"))
            .args(["convert", "--model", &model, "--calibration", &images, "--chip", chip, "--out", &out])
            .output()
            .unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(words.iter().all(|w| said.contains(w)), "{words:?} in {said}");
        let first = match &seen["not_convertible"] {
            Value::String(why) => why.clone(),
            _ => seen["verdict"]["findings"][0]["message"].as_str().unwrap().to_string(),
        };
        assert!(said.contains(&first), "{said} has not {first}");
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left behind");
    }
}
