//! Our findings and QEMU's, side by side.

use format::{Findings, Format};
use serde_json::{Value, json};

/// Every fact that both tell and tell differently.
pub fn differences(findings: &Findings, info: &Value) -> Vec<String> {
    let data = &info["format-specific"]["data"];
    let facts = &findings.facts;
    let mut pairs = vec![
        ("format", json!(findings.format().map(Format::driver)), info["format"].clone()),
        ("virtual-size", json!(virtual_size(findings)), info["virtual-size"].clone()),
        ("backing-filename", json!(facts.backing_file), info["backing-filename"].clone()),
        ("snapshots", json!(facts.snapshots), json!(info["snapshots"].as_array().map_or(0, Vec::len))),
        ("data-file", json!(facts.data_file), data["data-file"].clone()),
        ("dirty-flag", json!(facts.dirty), json!(info["dirty-flag"] == true)),
        ("corrupt", json!(facts.corrupt), json!(data["corrupt"] == true)),
    ];
    match findings.format() {
        Some(Format::Qcow2) => pairs.extend([
            ("compat", json!(facts.subformat), data["compat"].clone()),
            ("compression-type", json!(facts.compression), data["compression-type"].clone()),
            ("encrypt", json!(facts.encryption), data["encrypt"]["format"].clone()),
            ("encrypted", json!(facts.encryption.is_some()), json!(info["encrypted"] == true)),
            ("backing-filename-format", json!(facts.backing_format), info["backing-filename-format"].clone()),
        ]),
        Some(Format::Vmdk) => pairs.push(("create-type", json!(facts.subformat), data["create-type"].clone())),
        Some(Format::Luks) => {
            let cipher = data["cipher-alg"].as_str().unwrap_or_default().split('-').next().unwrap_or_default();
            let told = facts.subformat.as_deref().is_some_and(|told| told.starts_with(&format!("LUKS1 {cipher}-")));
            pairs.push(("cipher-alg", json!(told), json!(true)));
        }
        _ => {}
    }
    let extents = data["extents"].as_array().into_iter().flatten().filter_map(|extent| extent["filename"].as_str());
    if !facts.extents.is_empty() {
        pairs.push(("extents", json!(facts.extents), json!(extents.collect::<Vec<_>>())));
    }
    // Of a descriptor that stands alone, QEMU tells what stands in the files that it names.
    if !info["cluster-size"].is_null() && facts.extents.is_empty() {
        pairs.push(("cluster-size", json!(facts.cluster_size), info["cluster-size"].clone()));
    }
    let differs = |(_, ours, theirs): &(&str, Value, Value)| ours != theirs;
    pairs.into_iter().filter(differs).map(|(what, ours, theirs)| format!("{what}: {ours}, QEMU {theirs}")).collect()
}

/// Our size as QEMU counts it: bytes as they are end with a whole sector, and it does not look for a volume in them.
fn virtual_size(findings: &Findings) -> u64 {
    match findings.format() {
        Some(Format::Raw | Format::Iso) => findings.size_bytes.next_multiple_of(512),
        _ => findings.virtual_size,
    }
}
