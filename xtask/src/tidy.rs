//! Checks that no compiler makes: the layers, the licences, the size of files, and where `unsafe` may stand.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

const OWN_CRATES: usize = 32;
const LOCKED_PACKAGES: usize = 450;
const CHAIN: usize = 8;
const FILE_LINES: usize = 1000;
/// Crates that speak to the kernel.
const UNSAFE: [&str; 4] = ["qemu", "netlink", "agent", "unixfd"];
const BANNED: [&str; 4] = ["openssl-sys", "aws-lc-sys", "openssl", "native-tls"];
const LICENCES: [&str; 14] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "BSL-1.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT-0",
    "CDLA-Permissive-2.0",
];

#[derive(Deserialize)]
struct Layer {
    floor: u8,
    may: Vec<String>,
    why: String,
}

pub fn run() -> Result<()> {
    let layers: BTreeMap<String, Layer> = toml::from_str(&std::fs::read_to_string("layers.toml")?)?;
    let metadata = Command::new("cargo").args(["metadata", "--format-version", "1", "--all-features"]).output()?;
    let metadata: Value = serde_json::from_slice(&metadata.stdout).context("cargo metadata")?;
    let mut wrong = Vec::new();
    let edges = check_layers(&metadata, &layers, &mut wrong);
    check_chain(&edges, &mut wrong);
    check_packages(&metadata, &mut wrong);
    check_files(Path::new("crates"), &mut wrong)?;
    if wrong.is_empty() {
        println!("tidy: {} crates, {} packages", layers.len(), list(&metadata["packages"]).count());
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn check_layers(
    metadata: &Value,
    layers: &BTreeMap<String, Layer>,
    wrong: &mut Vec<String>,
) -> BTreeMap<String, BTreeSet<String>> {
    let members: BTreeSet<&str> = list(&metadata["workspace_members"]).filter_map(Value::as_str).collect();
    let own: Vec<&Value> =
        list(&metadata["packages"]).filter(|p| p["id"].as_str().is_some_and(|id| members.contains(id))).collect();
    if own.len() > OWN_CRATES {
        wrong.push(format!("{} own crates: at most {OWN_CRATES}", own.len()));
    }
    let mut edges = BTreeMap::new();
    for package in own {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(layer) = layers.get(name) else {
            wrong.push(format!("layers.toml does not know the crate {name}"));
            continue;
        };
        let normal = list(&package["dependencies"]).filter(|d| d["kind"].as_str() != Some("dev"));
        let uses: BTreeSet<String> =
            normal.filter_map(|d| d["name"].as_str()).filter(|n| layers.contains_key(*n)).map(str::to_owned).collect();
        for used in &uses {
            if !layer.may.contains(used) {
                wrong.push(format!("{name} may not depend on {used}: {}", layer.why));
            } else if layers[used].floor > layer.floor {
                wrong.push(format!("layers.toml lets {name} depend on {used}, which stands on a higher floor"));
            }
        }
        edges.insert(name.to_owned(), uses);
    }
    edges
}

fn check_chain(edges: &BTreeMap<String, BTreeSet<String>>, wrong: &mut Vec<String>) {
    fn depth(name: &str, edges: &BTreeMap<String, BTreeSet<String>>) -> usize {
        1 + edges.get(name).into_iter().flatten().map(|used| depth(used, edges)).max().unwrap_or(0)
    }
    for name in edges.keys() {
        let depth = depth(name, edges);
        if depth > CHAIN {
            wrong.push(format!("the chain of crates below {name} is {depth} long: at most {CHAIN}"));
        }
    }
}

fn check_packages(metadata: &Value, wrong: &mut Vec<String>) {
    let packages: Vec<&Value> = list(&metadata["packages"]).collect();
    if packages.len() > LOCKED_PACKAGES {
        wrong.push(format!("{} packages: at most {LOCKED_PACKAGES}", packages.len()));
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if BANNED.contains(&name) {
            wrong.push(format!("the package {name} is banned: TLS is rustls with ring"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !licence_fits(licence) {
            wrong.push(format!("the licence of {name} is {licence}"));
        }
    }
}

/// True when some choice that the expression offers needs only licences of the list.
fn licence_fits(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" OR ").any(|choice| choice.split(" AND ").all(|part| LICENCES.contains(&part.trim())))
}

fn check_files(directory: &Path, wrong: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            check_files(&path, wrong)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            check_file(&path, wrong)?;
        }
    }
    Ok(())
}

fn check_file(path: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    let name = path.display();
    if text.lines().count() > FILE_LINES {
        wrong.push(format!("{name} has more than {FILE_LINES} lines: it is more than one room"));
    }
    let own = path.iter().nth(1).and_then(|part| part.to_str()).unwrap_or_default();
    let inside = path.iter().any(|part| part == "src");
    if inside && !text.starts_with("//!") {
        wrong.push(format!("{name} does not begin with `//!`: what it owns and must never do"));
    }
    if text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe fn")) && !UNSAFE.contains(&own) {
        wrong.push(format!("{name} has unsafe code outside the crates that speak to the kernel"));
    }
    Ok(())
}
