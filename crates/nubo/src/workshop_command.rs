//! `nubo image convert`, `sparsify`, `resize`, `rebase`, `commit`, `check` and `diff`. They need no cloud and no root.
//!
//! Exit 0: done, or the answer is yes (sound, identical); 1: the answer is no; 2: refused, or it could not be done.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use workshop::{Conversion, Error, Show, Sparsify};

#[derive(clap::Subcommand)]
pub enum Work {
    /// Write an image in another format, or a chain of files as one
    Convert {
        file: PathBuf,
        output: PathBuf,
        /// What is written: qcow2, raw, vmdk, vdi, vhd or vhdx
        #[arg(long, default_value = "qcow2")]
        format: String,
        /// What the file must be
        #[arg(long = "as", value_name = "DISK_FORMAT")]
        declared: Option<String>,
        /// The file below, and with further ones the files below that; what a header names is not followed
        #[arg(long, value_name = "FILE")]
        backing: Vec<PathBuf>,
        #[arg(long)]
        compress: bool,
        /// Replace the output
        #[arg(long)]
        force: bool,
        #[arg(long)]
        json: bool,
    },
    /// Give back the room of zeros, and of blocks that ext4, xfs and btrfs have as free
    Sparsify {
        file: PathBuf,
        #[arg(required_unless_present = "in_place", conflicts_with = "in_place")]
        output: Option<PathBuf>,
        /// In the file itself
        #[arg(long)]
        in_place: bool,
        /// Do not read file systems
        #[arg(long)]
        zeros_only: bool,
        /// Pack the clusters of a qcow2
        #[arg(long)]
        compress: bool,
        /// Replace the output
        #[arg(long)]
        force: bool,
        #[arg(long)]
        json: bool,
    },
    /// Make the disk in an image larger (or smaller with --shrink)
    Resize {
        file: PathBuf,
        /// Such as 20G, or +5G for that much more
        size: String,
        /// The end of the disk may be cut off
        #[arg(long)]
        shrink: bool,
        #[arg(long)]
        json: bool,
    },
    /// Put an overlay on another file: a guest sees the same as before
    Rebase {
        file: PathBuf,
        /// The file that it stands on
        #[arg(long)]
        from: PathBuf,
        /// The file that it shall stand on
        #[arg(long)]
        onto: PathBuf,
    },
    /// Write what an overlay holds into the file that it stands on
    Commit {
        file: PathBuf,
        /// The file that it stands on
        #[arg(long)]
        into: PathBuf,
    },
    /// Hold an image's own tables against each other
    Check {
        file: PathBuf,
        /// Mend what is wrong: `leaks` loses nothing, `all` may
        #[arg(long, value_parser = ["leaks", "all"])]
        repair: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Whether a guest would see the same of two images, and from where on it would not
    Diff {
        one: PathBuf,
        other: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

/// Does it, and says what came of it.
pub fn main(work: Work) -> ExitCode {
    exit(run(work))
}

pub fn exit(result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nubo: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(work: Work) -> Result<bool> {
    match work {
        Work::Convert { file, output, format, declared, backing, compress, force, json } => {
            let show = Show::Progress;
            let conversion = Conversion { from: declared, to: format, compress, backing, cpu_s: None, force, show };
            let made = workshop::convert(&file, &output, &conversion)?;
            let line = format!("{}: {}, {} bytes", output.display(), made.format, made.size_bytes);
            tell(json, &made, &line)
        }
        Work::Sparsify { file, output, in_place: _, zeros_only, compress, force, json } => {
            let how = Sparsify { zeros_only, compress, force, show: Show::Progress };
            let done = match &output {
                Some(output) => workshop::sparsify(&file, output, &how)?,
                None => workshop::sparsify_in_place(&file, &how)?,
            };
            tell(json, &done, &sparsified(&done))
        }
        Work::Resize { file, size, shrink, json } => {
            let size_bytes = size_bytes(&file, &size)?;
            workshop::resize(&file, size_bytes, shrink)?;
            let line = format!("{}: a disk of {size_bytes} bytes", file.display());
            tell(json, &json!({"virtual_size": size_bytes}), &line)
        }
        Work::Rebase { file, from, onto } => {
            workshop::rebase(&file, &from, &onto, Show::Progress)?;
            Ok(true)
        }
        Work::Commit { file, into } => {
            workshop::commit(&file, &into, Show::Progress)?;
            Ok(true)
        }
        Work::Check { file, repair, json } => {
            let found = workshop::check(&file, repair.as_deref())?;
            let line = match (found.has_tables, found.is_sound()) {
                (false, _) => format!("{} has no tables to check", found.format),
                (true, true) => "sound".to_owned(),
                (true, false) => format!("{} wrong entries, {} leaks", found.corruptions, found.leaks),
            };
            tell(json, &found, &line)?;
            Ok(found.is_sound())
        }
        Work::Diff { one, other, json } => {
            let found = workshop::compare(&one, &other)?;
            let line = match (found.identical, found.first_difference_bytes) {
                (true, _) => "identical".to_owned(),
                (false, Some(at)) => format!("different from byte {at} on"),
                (false, None) => "different".to_owned(),
            };
            tell(json, &found, &line)?;
            Ok(found.identical)
        }
    }
}

fn sparsified(done: &workshop::Sparsified) -> String {
    let mut lines = Vec::new();
    for found in &done.file_systems {
        let kind = found.kind.unwrap_or("nothing that is known");
        lines.push(match &found.left_alone {
            None => format!("at {}: {kind}, {} bytes free", found.start_bytes, found.free_bytes),
            Some(why) => format!("at {}: {kind}, left alone: it {why}", found.start_bytes),
        });
    }
    lines.push(format!("{} bytes on disk before, {} after", done.before_bytes, done.after_bytes));
    lines.join("\n")
}

pub fn tell(json: bool, result: &impl Serialize, line: &str) -> Result<bool> {
    if json {
        println!("{:#}", serde_json::to_value(result)?);
    } else {
        println!("{line}");
    }
    Ok(true)
}

fn size_bytes(file: &std::path::Path, text: &str) -> workshop::Result<u64> {
    let Some(more) = text.strip_prefix('+') else { return workshop::parse_size(text) };
    let now = workshop::Image::open(file, None)?.findings().virtual_size;
    let sum = now.checked_add(workshop::parse_size(more)?).filter(|sum| *sum <= workshop::VIRTUAL_BYTES);
    sum.ok_or_else(|| Error::Refused(format!("{text} makes more than a disk may have (16 TiB)")))
}
