//! `cargo xtask sim`: builds the simulator and runs it.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Builds the simulator in a checkout; `target` is where.
pub fn build(checkout: &str, target: &str) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--package", "sim"]).current_dir(checkout).env("CARGO_TARGET_DIR", target);
    if !cargo.status()?.success() {
        bail!("the simulator in {checkout} does not build");
    }
    Ok(PathBuf::from(target).join("debug/sim"))
}

pub fn run(args: impl Iterator<Item = String>) -> Result<()> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let program = build(".", &target)?;
    let status = Command::new(&program).args(args).status().with_context(|| format!("{}", program.display()))?;
    if !status.success() {
        bail!("the simulator found something");
    }
    Ok(())
}
