//! Every shader, with its imports in place, translates to what the backends take: SPIR-V (Vulkan), MSL (Metal), HLSL
//! (DX12). No adapter is needed, so that a shader which only one vendor's compiler would take shows here.

use std::path::{Path, PathBuf};

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")
}

/// All shaders that are dispatched, not what they import.
fn kernels(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("shared") {
                found.extend(kernels(&path));
            }
        } else if path.extension().is_some_and(|e| e == "wgsl") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text that the device compiles: imports replaced by their files, and the scalar type set.
fn composed(path: &Path, scalar: &str) -> String {
    let mut text = String::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        match line.strip_prefix("#import ") {
            Some(name) => text += &std::fs::read_to_string(root().join(name).with_extension("wgsl")).unwrap(),
            None => text += line,
        }
        text.push('\n');
    }
    text.replace("alias Scalar = f32;", &format!("alias Scalar = {scalar};"))
}

/// Scalar types that a shader is compiled for: its kernels' element types.
fn scalars(path: &Path) -> &'static [&'static str] {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    match stem {
        "pool" | "conv" => &["f32", "i32"],
        "gather" | "fill" => &["f32", "i32", "u32"],
        "time" => &["i32"],
        _ => &["f32"],
    }
}

/// Parsed and validated with no capability beyond WebGPU's own.
fn module(text: &str, name: &str) -> (naga::Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
    (module, info)
}

/// Every entry point in the three languages.
fn translate(module: &naga::Module, info: &ModuleInfo, name: &str) {
    let words = spv::write_vec(module, info, &spv::Options::default(), None).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(words[0], 0x0723_0203, "{name}: no SPIR-V");
    let options = msl::Options { fake_missing_bindings: true, ..Default::default() };
    let (text, told) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|e| panic!("{name}: MSL: {e}"));
    assert_eq!(told.entry_point_names.len(), module.entry_points.len(), "{name}");
    for entry in &told.entry_point_names {
        let entry = entry.as_ref().unwrap_or_else(|e| panic!("{name}: MSL: {e}"));
        assert!(text.contains(&format!("kernel void {entry}")), "{name}: MSL lacks {entry}");
    }
    let options = hlsl::Options { fake_missing_bindings: true, ..Default::default() };
    let pipeline = hlsl::PipelineOptions::default();
    let mut text = String::new();
    let told = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|e| panic!("{name}: HLSL: {e}"));
    assert_eq!(told.entry_point_names.len(), module.entry_points.len(), "{name}");
    for entry in &told.entry_point_names {
        let entry = entry.as_ref().unwrap_or_else(|e| panic!("{name}: HLSL: {e}"));
        assert!(text.contains(&format!("void {entry}(")), "{name}: HLSL lacks {entry}");
    }
}

#[test]
fn every_shader_translates() {
    let files = kernels(&root());
    assert!(files.len() >= 20, "only {} shaders found", files.len());
    for path in files {
        for scalar in scalars(&path) {
            let name = format!("{} of {scalar}", path.strip_prefix(root()).unwrap().display());
            let (module, info) = module(&composed(&path, scalar), &name);
            assert!(!module.entry_points.is_empty(), "{name}: no kernel");
            translate(&module, &info, &name);
        }
    }
}

/// Instruction codes of SPIR-V.
const U_DOT: u32 = 4451;
const BIT_FIELD_U_EXTRACT: u32 = 203;

/// Packed dot products become one instruction where the adapter has it, and bit fields where it has not.
#[test]
fn packed_dot_products_need_no_capability() {
    let name = "gram_counts.wgsl";
    let (module, info) = module(&composed(&root().join(name), "f32"), name);
    let words = |capabilities: &[spv::Capability]| {
        let options = spv::Options { capabilities: Some(capabilities.iter().copied().collect()), ..Default::default() };
        spv::write_vec(&module, &info, &options, None).unwrap()
    };
    let has = |words: &[u32], op: u32| {
        // after the header of five words, every instruction begins with its length and code
        let mut at = 5;
        let mut found = false;
        while at < words.len() {
            found |= words[at] & 0xffff == op;
            at += (words[at] >> 16) as usize;
        }
        found
    };
    let without = words(&[spv::Capability::Shader]);
    assert!(!has(&without, U_DOT) && has(&without, BIT_FIELD_U_EXTRACT));
    let with =
        words(&[spv::Capability::Shader, spv::Capability::DotProduct, spv::Capability::DotProductInput4x8BitPacked]);
    assert!(has(&with, U_DOT) && !has(&with, BIT_FIELD_U_EXTRACT));
}

/// What the shaders are held to does refuse: f64 is no part of WebGPU.
#[test]
#[should_panic(expected = "wide")]
fn what_webgpu_lacks_is_refused() {
    module("@compute @workgroup_size(1) fn main() { var x = 1.0lf; x = x + x; }", "wide");
}
