//! `cargo xtask sim`: builds the simulator and runs it; with `--defects` it must find what was broken on purpose.
//!
//! Few histories run as quickly in an ordinary build as a second one takes to compile; `--profile sim` before anything
//! else is for many. What is measured (`--scale`) is built as it is delivered.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

const DEFECTS: &str = "crates/sim/defects";
/// A defect must be found within so many seeds.
const SEEDS: &str = "0..2000";

pub fn run(args: impl Iterator<Item = String>) -> Result<()> {
    let mut args: Vec<String> = args.collect();
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let profile = match args.first().map(String::as_str) {
        Some("--profile") if args.len() > 1 => args.drain(..2).nth(1).unwrap_or_default(),
        Some("--scale") => "release".to_owned(),
        _ => "dev".to_owned(),
    };
    if args.first().is_some_and(|arg| arg == "--defects") {
        let names = match args.get(1).map(String::as_str) {
            Some("--only") => args[2..].to_vec(),
            None => Vec::new(),
            Some(other) => bail!("{other} is not understood: cargo xtask sim --defects [--only NAME…]"),
        };
        return defects(Path::new(&target), &profile, &names);
    }
    let program = build(Path::new("."), Path::new(&target), &profile)?;
    let status = Command::new(&program).args(args).status().with_context(|| format!("{}", program.display()))?;
    if !status.success() {
        bail!("the simulator found something");
    }
    Ok(())
}

/// Builds the simulator of a checkout; `target` is where.
fn build(checkout: &Path, target: &Path, profile: &str) -> Result<PathBuf> {
    let mut cargo = crate::cargo();
    // With the features that the whole workspace has, as the tests are built.
    cargo.args(["build", "--quiet", "--workspace", "--bin", "sim", "--profile", profile]).current_dir(checkout);
    if !cargo.env("CARGO_TARGET_DIR", std::path::absolute(target)?).status()?.success() {
        bail!("the simulator does not build in {}", checkout.display());
    }
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(target.join(folder).join("sim"))
}

/// A second checkout that goes when this does.
struct Checkout(PathBuf);

impl Checkout {
    fn new(at: PathBuf) -> Result<Checkout> {
        let text = at.to_string_lossy().into_owned();
        git(Path::new("."), &["worktree", "prune"])?;
        git(Path::new("."), &["worktree", "add", "--quiet", "--force", "--detach", &text, "HEAD"])?;
        Ok(Checkout(at))
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        // Failing that, the next run's prune does it.
        let _ = git(Path::new("."), &["worktree", "remove", "--force", &self.0.to_string_lossy()]);
    }
}

fn git(at: &Path, args: &[&str]) -> Result<Output> {
    let output = Command::new("git").arg("-C").arg(at).args(args).output().context("git")?;
    if !output.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}

/// Plants each defect by itself and fails where one is not found.
fn defects(target: &Path, profile: &str, only: &[String]) -> Result<()> {
    let mut patches: Vec<PathBuf> =
        std::fs::read_dir(DEFECTS)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    patches.sort();
    let name = |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    for wanted in only {
        if !patches.iter().any(|path| name(path) == *wanted) {
            bail!("no defect is called {wanted}");
        }
    }
    patches.retain(|path| only.is_empty() || only.contains(&name(path)));
    let place = std::path::absolute(target.join("sim-defects"))?;
    std::fs::create_dir_all(&place)?;
    let checkout = Checkout::new(place.join("checkout"))?;
    let mut missed = Vec::new();
    for patch in &patches {
        let began = Instant::now();
        let sentence = std::fs::read_to_string(patch)?.lines().next().unwrap_or_default().to_owned();
        git(&checkout.0, &["checkout", "--quiet", "--", "."])?;
        let text = std::path::absolute(patch)?;
        git(&checkout.0, &["apply", "--recount", "-C1", &text.to_string_lossy()])?;
        let program = build(&checkout.0, &place.join("target"), profile)?;
        let output = Command::new(program).args(["--seeds", SEEDS, "--no-shrink"]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = said.lines().find(|line| line.starts_with("FAILED "));
        println!("{}: {sentence}", name(patch));
        match found {
            Some(found) => println!("  found: {} ({:.0} s)", &found[7..], began.elapsed().as_secs_f64()),
            None => {
                println!("  NOT FOUND within the seeds {SEEDS}");
                missed.push(name(patch));
            }
        }
    }
    println!("{} defects planted, {} found", patches.len(), patches.len() - missed.len());
    if !missed.is_empty() {
        bail!("not found: {}", missed.join(", "));
    }
    Ok(())
}
