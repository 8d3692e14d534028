//! The large cloud against the small one, and both against what was promised.

use super::{Measured, Row, Shape};
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// A call may cost so many times as much in the large cloud.
const RATIO: f64 = 5.0;
/// And no more milliseconds than this.
const CALL_MS: f64 = 100.0;
/// One that takes no more than this is not held against another: it is what waiting for a processor costs, on which one
/// of a thousand hosts is being answered.
const NOTHING_MS: f64 = 1.0;
const PLACE_MS: f64 = 2.0;
const CONTROL_MIB: f64 = 1024.0;

/// Measures both, each in a process of its own so that the memory of one is not the other's, and prints what holds.
pub fn compare(small: Shape, large: Shape) -> Result<()> {
    let (small, large) = (child(small)?, child(large)?);
    let lines = lines(&small, &large);
    println!("| what | small | large | ratio | bound | holds |\n|---|---|---|---|---|---|");
    lines.iter().for_each(|line| println!("{}", line.text));
    print_clouds(&[&small, &large]);
    let missed: Vec<&str> = lines.iter().filter(|line| !line.holds).map(|line| line.what.as_str()).collect();
    if !missed.is_empty() {
        bail!("{} of {} bounds are missed: {}", missed.len(), lines.len(), missed.join(", "));
    }
    println!("All {} bounds hold.", lines.len());
    Ok(())
}

fn child(shape: Shape) -> Result<Measured> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--scale", &shape.hosts.to_string(), &shape.servers.to_string(), "--json"]);
    if shape.together {
        command.arg("--together");
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{} hosts and {} servers could not be measured", shape.hosts, shape.servers);
    }
    serde_json::from_slice(&output.stdout).context("what was measured")
}

struct Line {
    what: String,
    text: String,
    holds: bool,
}

fn lines(small: &Measured, large: &Measured) -> Vec<Line> {
    let mut lines: Vec<Line> = small.rows.iter().zip(&large.rows).map(|(small, large)| call(small, large)).collect();
    lines.push(absolute("one of 100 servers gets its host, mean", small.place.2, large.place.2, PLACE_MS, "ms"));
    lines.push(absolute("control's memory", small.memory.control(), large.memory.control(), CONTROL_MIB, "MiB"));
    lines
}

fn call(small: &Row, large: &Row) -> Line {
    if large.grows {
        return absolute(&format!("{} (looks at all), p99", large.what), small.p99, large.p99, CALL_MS, "ms");
    }
    let ratio = large.p99 / small.p99;
    let holds = (ratio <= RATIO || large.p99 <= NOTHING_MS) && large.p99 < CALL_MS;
    let (what, said) = (format!("{}, p99", large.what), if holds { "yes" } else { "NO" });
    let text = format!(
        "| {what} | {:.2} ms | {:.2} ms | {ratio:.2} | ≤ {RATIO} or ≤ {NOTHING_MS} ms, < {CALL_MS} ms | {said} |",
        small.p99, large.p99
    );
    Line { what, text, holds }
}

fn absolute(what: &str, small: f64, large: f64, bound: f64, unit: &str) -> Line {
    let holds = large < bound;
    let said = if holds { "yes" } else { "NO" };
    let ratio = large / small;
    let text = format!("| {what} | {small:.2} {unit} | {large:.2} {unit} | {ratio:.2} | < {bound} {unit} | {said} |");
    Line { what: what.to_owned(), text, holds }
}

/// One cloud by itself.
pub fn print(measured: &Measured) {
    for Row { what, p50, p99, .. } in &measured.rows {
        println!("{what:55} p50 {p50:8.2} ms  p99 {p99:8.2} ms");
    }
    print_clouds(&[measured]);
}

fn print_clouds(clouds: &[&Measured]) {
    for Measured { shape, fill_s, memory, place, .. } in clouds {
        let servers = if shape.together { "servers in one project" } else { "servers" };
        println!(
            "{} hosts, {} {servers}: made in {fill_s:.1} s; memory {:.0} MiB before the first host, {:.0} MiB full, \
             {:.0} MiB after the calls, {:.0} MiB of it the simulated hosts'; one of 100 gets its host in p50 {:.2} \
             ms, p99 {:.2} ms, mean {:.2} ms",
            shape.hosts, shape.servers, memory.start, memory.full, memory.end, memory.hosts, place.0, place.1, place.2
        );
    }
}
