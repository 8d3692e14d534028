//! The project's own tasks: `cargo xtask tidy`, `cargo xtask bench`, `cargo xtask sim`.

mod sim;
mod tidy;

use anyhow::{Result, bail};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "tidy" => tidy::run(),
        "bench" => bench(),
        "sim" => sim::run(std::env::args().skip(2)),
        _ => Err(anyhow::anyhow!("usage: cargo xtask tidy | bench | sim --help")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the release program and measures it; a real cloud in a namespace of its own where this is root.
fn bench() -> Result<()> {
    for arguments in [["build", "--release", "--package", "nubo"], ["build", "--release", "--package", "bench"]] {
        if !Command::new("cargo").args(arguments).status()?.success() {
            bail!("cargo {} failed", arguments.join(" "));
        }
    }
    if !Command::new("scripts/bench").status()?.success() {
        bail!("the measurement failed");
    }
    // The store against bare prepared statements, which only an example of its own crate can write.
    let store = ["run", "--release", "--quiet", "--package", "store", "--example", "bench"];
    if !Command::new("cargo").args(store).status()?.success() {
        bail!("the measurement of the store failed");
    }
    // A small cloud of simulated hosts and a large one, and the second against the first.
    sim::run(["--scale".to_owned()].into_iter())
}
