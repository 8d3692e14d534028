//! `nubo image inspect`: what a disk image really is, by the inspector that uploads pass. Needs no cloud and no
//! privilege, and opens the file for reading alone.
//!
//! Ends with 0, with 1 where the image would not be accepted as what `--as` says, with 2 where it cannot be read.

use anyhow::{Context, Result};
use format::{Decision, Facts, Findings, Format, Limits, OnDisk};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const UNREADABLE: u8 = 2;

#[derive(clap::Args)]
pub struct Options {
    file: PathBuf,
    /// Say whether it would be accepted as this disk_format (exit 1 if not)
    #[arg(long = "as", value_name = "DISK_FORMAT")]
    declared: Option<String>,
    /// What `qemu-img info --output=json` tells, by its names, and what is ours under `nubo`
    #[arg(long)]
    json: bool,
}

/// # Errors
/// None: what cannot be read has an exit code of its own.
pub fn main(options: &Options) -> Result<ExitCode> {
    let findings = match examine(&options.file) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("nubo: {error:#}");
            return Ok(ExitCode::from(UNREADABLE));
        }
    };
    let declared = options.declared.as_deref();
    let verdict = declared.map(|declared| format::decide(declared, "bare", &findings, &Limits::default()));
    let refused = match &verdict {
        Some(Decision::Refuse(why)) => Some(why.as_str()),
        _ => None,
    };
    let ours = ours(&findings, declared, refused);
    if options.json {
        let mut all = as_qemu_tells(&options.file, &findings);
        all.insert("nubo".to_owned(), ours);
        println!("{:#}", Value::Object(all));
    } else {
        print!("{}", lines(&options.file, &findings, &ours));
    }
    Ok(if refused.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn examine(path: &Path) -> Result<Findings> {
    let found = File::open(path).and_then(OnDisk::new).and_then(|file| format::examine(&file));
    found.with_context(|| format!("cannot read {}", path.display()))
}

/// What `qemu-img info` has no name for.
fn ours(findings: &Findings, declared: Option<&str>, refused: Option<&str>) -> Value {
    let mut ours = json!({
        "formats": findings.formats.iter().map(|format| format.name()).collect::<Vec<_>>(),
        "disk_format": findings.format().and_then(Format::disk_format),
        "layout": findings.layout,
        "size_bytes": findings.size_bytes,
        "snapshots": findings.facts.snapshots,
        "problems": findings.problems,
    });
    if let Some(declared) = declared {
        ours["accepted_as"] = if refused.is_none() { json!(declared) } else { Value::Null };
        ours["refused"] = json!(refused);
    }
    ours
}

/// The names of `qemu-img info --output=json`. What is not known is left out, as there.
fn as_qemu_tells(path: &Path, findings: &Findings) -> Map<String, Value> {
    let facts = &findings.facts;
    let driver = findings.format().map_or("raw", Format::driver);
    let data = format_specific(findings.format(), facts);
    let told = json!({
        "filename": path.display().to_string(),
        "format": driver,
        "virtual-size": findings.virtual_size,
        "cluster-size": facts.cluster_size,
        "encrypted": facts.encryption.as_ref().map(|_| true),
        "dirty-flag": facts.dirty,
        "backing-filename": facts.backing_file,
        "backing-filename-format": facts.backing_format,
        "format-specific": (!data.is_empty()).then(|| json!({"type": driver, "data": data})),
    });
    without_null(told)
}

fn format_specific(format: Option<Format>, facts: &Facts) -> Map<String, Value> {
    let told = match format {
        Some(Format::Qcow2) => json!({
            "compat": facts.subformat,
            "compression-type": facts.compression,
            "corrupt": facts.corrupt,
            "data-file": facts.data_file,
            "encrypt": facts.encryption.as_ref().map(|method| json!({"format": method})),
        }),
        Some(Format::Vmdk) => {
            let extents: Vec<Value> = facts.extents.iter().map(|name| json!({"filename": name})).collect();
            json!({"create-type": facts.subformat, "extents": (!extents.is_empty()).then_some(extents)})
        }
        _ => json!({"subformat": facts.subformat}),
    };
    without_null(told)
}

fn without_null(object: Value) -> Map<String, Value> {
    let fields = match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// For people: a name and a value a line, and only what there is.
fn lines(path: &Path, findings: &Findings, ours: &Value) -> String {
    let facts = &findings.facts;
    let text = |text: &Option<String>| json!(text);
    let told = [
        ("file", json!(path.display().to_string())),
        ("format", json!(findings.formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(" and "))),
        ("kind", text(&facts.subformat)),
        ("disk_format", ours["disk_format"].clone()),
        ("layout", if ours["layout"] == "unknown" { Value::Null } else { ours["layout"].clone() }),
        ("file size", json!(findings.size_bytes)),
        ("virtual size", json!(findings.virtual_size)),
        ("cluster size", json!(facts.cluster_size)),
        ("compression", text(&facts.compression)),
        ("encryption", text(&facts.encryption)),
        ("snapshots", json!((facts.snapshots > 0).then_some(facts.snapshots))),
        ("backing file", text(&facts.backing_file)),
        ("data file", text(&facts.data_file)),
        ("extent", json!(facts.extents)),
        ("problem", json!(findings.problems)),
        ("accepted as", ours["accepted_as"].clone()),
        ("refused", ours["refused"].clone()),
    ];
    let mut text = String::new();
    for (name, value) in told.into_iter().filter(|(_, value)| !value.is_null()) {
        let values = match value {
            Value::Array(list) => list,
            one => vec![one],
        };
        for value in values {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!("{name:>12}  {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A qcow2 over another file.
    fn backed() -> Vec<u8> {
        let mut bytes = vec![0; 4 << 16];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"QFI\xfb\0\0\0\x03");
        put(8, &512u64.to_be_bytes());
        put(16, &9u32.to_be_bytes());
        put(20, &16u32.to_be_bytes());
        put(24, &(1u64 << 30).to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
        put(512, b"/etc/motd");
        bytes
    }

    fn code(file: &Path, declared: Option<&str>, json: bool) -> String {
        let options = Options { file: file.to_owned(), declared: declared.map(str::to_owned), json };
        format!("{:?}", main(&options).unwrap())
    }

    #[test]
    fn a_file_is_reported_as_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, backed()).unwrap();
        let findings = examine(&path).unwrap();
        let told = Value::Object(as_qemu_tells(&path, &findings));
        let expected = json!({
            "filename": path.display().to_string(),
            "format": "qcow2",
            "virtual-size": 1 << 30,
            "cluster-size": 65536,
            "dirty-flag": false,
            "backing-filename": "/etc/motd",
            "format-specific": {
                "type": "qcow2",
                "data": {"compat": "1.1", "compression-type": "zlib", "corrupt": false},
            },
        });
        assert_eq!(told, expected);
        let ours = ours(&findings, Some("raw"), Some("why"));
        assert_eq!((&ours["accepted_as"], &ours["refused"]), (&Value::Null, &json!("why")));
        let text = lines(&path, &findings, &ours);
        for line in
            ["      format  qcow2\n", "backing file  /etc/motd\n", "virtual size  1073741824\n", "     refused  why\n"]
        {
            assert!(text.contains(line), "{text} lacks {line:?}");
        }
        assert!(!text.contains("null") && !text.contains("extent"), "{text}");
    }

    #[test]
    fn the_exit_code_says_whether_it_would_be_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
        std::fs::write(&good, [7; 4096]).unwrap();
        std::fs::write(&bad, backed()).unwrap();
        let (success, failure) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        for json in [true, false] {
            assert_eq!(code(&good, None, json), success);
            assert_eq!(code(&bad, None, json), success);
            assert_eq!(code(&good, Some("raw"), json), success);
            assert_eq!(code(&bad, Some("raw"), json), failure);
            assert_eq!(code(&bad, Some("qcow2"), json), failure);
        }
        let unreadable = format!("{:?}", ExitCode::from(UNREADABLE));
        assert_eq!(code(&folder.path().join("none"), None, true), unreadable);
        assert_eq!(code(folder.path(), None, true), unreadable);
    }
}
