//! `nubo image inspect`: what a disk image really is, by the inspector that uploads pass. Needs no cloud and no
//! privilege, and opens the file for reading alone.

use anyhow::{Context, Result};
use format::{Decision, Findings, Limits, OnDisk};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    file: PathBuf,
    /// Say whether it would be accepted as this disk_format (exit 1 if not)
    #[arg(long = "as", value_name = "DISK_FORMAT")]
    declared: Option<String>,
    #[arg(long)]
    json: bool,
}

/// # Errors
/// Where the file cannot be read.
pub fn main(options: &Options) -> Result<ExitCode> {
    let findings = examine(&options.file)?;
    let declared = options.declared.as_deref();
    let verdict = declared.map(|declared| format::decide(declared, "bare", &findings, &Limits::default()));
    let refused = match &verdict {
        Some(Decision::Refuse(why)) => Some(why.as_str()),
        _ => None,
    };
    let report = report(&options.file, &findings, declared, refused);
    if options.json {
        println!("{report:#}");
    } else {
        for (name, value) in report.as_object().into_iter().flatten() {
            let lines = match value {
                Value::Array(list) => list.clone(),
                one => vec![one.clone()],
            };
            for line in lines {
                println!("{name:>16}  {}", line.as_str().map_or_else(|| line.to_string(), str::to_owned));
            }
        }
    }
    Ok(if refused.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn examine(path: &Path) -> Result<Findings> {
    let found = File::open(path).and_then(OnDisk::new).and_then(|file| format::examine(&file));
    found.with_context(|| format!("cannot read {}", path.display()))
}

fn report(path: &Path, findings: &Findings, declared: Option<&str>, refused: Option<&str>) -> Value {
    let mut report = json!({
        "file": path.display().to_string(),
        "format": findings.formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(" and "),
        "disk_format": findings.format().and_then(format::Format::disk_format),
        "layout": findings.layout,
        "size_bytes": findings.size_bytes,
        "virtual_size": findings.virtual_size,
        "problems": findings.problems,
    });
    if let Some(declared) = declared {
        report["accepted_as"] = match refused {
            None => json!(declared),
            Some(_) => Value::Null,
        };
        report["refused"] = json!(refused);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_reported_as_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut bytes = vec![0; 1 << 16];
        bytes[..4].copy_from_slice(b"KDMV");
        std::fs::write(&path, &bytes).unwrap();
        let findings = examine(&path).unwrap();
        let shown = report(&path, &findings, Some("raw"), Some("why"));
        assert_eq!((&shown["format"], &shown["disk_format"]), (&json!("VMDK"), &json!("vmdk")));
        assert_eq!((&shown["accepted_as"], &shown["refused"]), (&Value::Null, &json!("why")));
        assert!(examine(&folder.path().join("none")).is_err());
        let options = Options { file: path, declared: Some("raw".into()), json: true };
        assert_eq!(format!("{:?}", main(&options).unwrap()), format!("{:?}", ExitCode::FAILURE));
    }
}
