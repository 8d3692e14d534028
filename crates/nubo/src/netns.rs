//! The network namespace in which a cloud may live (NUBO_NETNS).

use crate::setup::run;
use anyhow::{Context, Result};
use std::path::Path;

fn path(name: &str) -> String {
    format!("/run/netns/{name}")
}

pub fn exists(name: &str) -> bool {
    Path::new(&path(name)).exists()
}

/// Makes the namespace where it is missing, with `lo` up.
pub fn ensure(name: &str) -> Result<()> {
    if !exists(name) {
        run("ip", &["netns", "add", name])?;
    }
    run("ip", &["-n", name, "link", "set", "lo", "up"]).map(drop)
}

/// Moves this thread into the namespace. Called before any other thread exists, so that all follow.
pub fn enter(name: &str) -> Result<()> {
    let file = std::fs::File::open(path(name)).with_context(|| format!("there is no network namespace {name}"))?;
    nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("cannot enter the network namespace {name} (root is needed)"))
}

pub fn remove(name: &str) -> Result<()> {
    if exists(name) {
        run("ip", &["netns", "delete", name])?;
    }
    Ok(())
}
