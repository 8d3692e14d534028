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

/// Cargo, without what the one that runs this has told of this program: build scripts that look at such variables would
/// run anew, and everything above them would be built twice.
pub(crate) fn cargo() -> Command {
    const OF_THIS: [&str; 4] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_NAME", "CARGO_CRATE_NAME"];
    let mut cargo = Command::new("cargo");
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| OF_THIS.iter().any(|own| name.starts_with(own))) {
        cargo.env_remove(name);
    }
    cargo
}

/// Builds the release program and measures it; a real cloud in a namespace of its own where this is root.
fn bench() -> Result<()> {
    for arguments in [["build", "--release", "--package", "nubo"], ["build", "--release", "--package", "bench"]] {
        if !cargo().args(arguments).status()?.success() {
            bail!("cargo {} failed", arguments.join(" "));
        }
    }
    if !Command::new("scripts/bench").status()?.success() {
        bail!("the measurement failed");
    }
    // The store against bare prepared statements, which only an example of its own crate can write.
    let store = ["run", "--release", "--quiet", "--package", "store", "--example", "bench"];
    if !cargo().args(store).status()?.success() {
        bail!("the measurement of the store failed");
    }
    // A small cloud of simulated hosts and a large one, and the second against the first.
    sim::run(["--scale".to_owned()].into_iter())
}
