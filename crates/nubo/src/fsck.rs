//! `nubo fsck`: what lies on this machine without an owner in the store. Read-only.
//!
//! Written against the kernel and not against the code that made things: it lists namespaces, links, nft tables,
//! processes, cgroups, accounts and files that bear the cloud's id, takes the ids out of their names, and asks control
//! for the owners. What nobody owns is an orphan.

use crate::netns;
use crate::process;
use crate::settings::Settings;
use crate::setup::{Setup, run};
use crate::status;
use anyhow::Result;
use base::CloudId;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Something on this machine that bears the cloud's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Thing {
    /// `namespace`, `link`, `process`, `cgroup`, `guest directory`, `image file`, …
    pub what: &'static str,
    pub name: String,
    /// The id of the object it was made for, whole or its last twelve digits; none where the name holds none.
    pub owner: Option<String>,
}

pub fn main(settings: &Settings, as_json: bool) -> Result<ExitCode> {
    match look(settings) {
        Ok(orphans) => {
            if as_json {
                println!("{}", json!({ "orphans": orphans }));
            } else if orphans.is_empty() {
                println!("clean: everything on this machine that bears the cloud's id has an owner");
            } else {
                orphans.iter().for_each(|thing| println!("{} {} has no owner", thing.what, thing.name));
            }
            Ok(if orphans.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Err(error) => {
            eprintln!("nubo fsck: cannot look: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

fn look(settings: &Settings) -> Result<Vec<Thing>> {
    let setup =
        Setup::load(&settings.state)?.ok_or_else(|| anyhow::anyhow!("no cloud in {}", settings.state.display()))?;
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("processes and namespaces of other accounts are only seen by root: sudo nubo fsck");
    }
    if let Some(name) = settings.netns.as_deref().filter(|name| netns::exists(name)) {
        netns::enter(name)?;
    }
    let things = list(settings, &setup.cloud_id)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let owners = runtime.block_on(async {
        let (client, url) = status::admin(settings, &setup).await?;
        client.get_url(&format!("{url}/nubo/v1/owners")).await
    })?;
    Ok(orphans(things, &owners))
}

/// Everything without an owner. Pure.
fn orphans(things: Vec<Thing>, owners: &Value) -> Vec<Thing> {
    let hosts = owners["hosts"].as_object().into_iter().flat_map(|hosts| hosts.values());
    let objects = hosts.flat_map(|objects| objects.as_array().into_iter().flatten());
    let images = owners["images"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let ids: BTreeSet<&str> = objects.filter_map(|object| object["id"].as_str()).chain(images).collect();
    let tails: BTreeSet<&str> =
        ids.iter().filter_map(|id| id.len().checked_sub(12).and_then(|at| id.get(at..))).collect();
    let owned = |owner: &str| ids.contains(owner) || (owner.len() == 12 && tails.contains(owner));
    things.into_iter().filter(|thing| !thing.owner.as_deref().is_some_and(owned)).collect()
}

fn list(settings: &Settings, cloud: &CloudId) -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    let prefix = format!("nubo-{cloud}-");
    let mut namespaces = Vec::new();
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(rest) = name.strip_prefix(&prefix) {
            things.push(Thing {
                what: "namespace",
                name: name.clone(),
                owner: rest.rsplit('-').next().map(str::to_owned),
            });
            namespaces.push(name);
        }
    }
    list_links(&[], cloud, &mut things)?;
    for namespace in &namespaces {
        list_links(&["-n", namespace], cloud, &mut things)?;
    }
    list_processes(settings, cloud, &mut things);
    list_cgroups(cloud, &mut things);
    list_files(&settings.state.join("hosts/guests"), "guest directory", &mut things);
    list_files(&settings.state.join("control/images"), "image file", &mut things);
    things.sort();
    things.dedup();
    Ok(things)
}

/// Links whose alias is `nubo:CLOUD:KIND:ID`.
fn list_links(arguments: &[&str], cloud: &CloudId, things: &mut Vec<Thing>) -> Result<()> {
    let mut all = arguments.to_vec();
    all.extend(["-j", "link", "show"]);
    let Ok(text) = run("ip", &all) else { return Ok(()) };
    let links: Value = serde_json::from_str(text.trim()).unwrap_or_default();
    for link in links.as_array().into_iter().flatten() {
        let alias = link["ifalias"].as_str().unwrap_or_default();
        let Some(rest) = alias.strip_prefix(&format!("nubo:{cloud}:")) else { continue };
        let place = arguments.last().copied().unwrap_or("the cloud's namespace");
        let name = format!("{} in {place}", link["ifname"].as_str().unwrap_or_default());
        things.push(Thing { what: "link", name, owner: rest.split(':').nth(1).map(str::to_owned) });
    }
    Ok(())
}

/// Guests by `-name` and `-uuid`. Control, agent and the like have their pid files; a second one of them is an orphan.
fn list_processes(settings: &Settings, cloud: &CloudId, things: &mut Vec<Thing>) {
    let known: BTreeSet<i32> = [("supervisor", "supervise"), ("control", "control"), ("agent", "agent")]
        .iter()
        .filter_map(|(file, word)| process::find(&settings.run().join(format!("{file}.pid")), word, &settings.state))
        .map(|found| found.pid.as_raw())
        .chain(agent::netd::status(&settings.run().join("netd.sock")).map(|(_, pid)| pid as i32))
        .collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<String> =
            line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let after = |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1)).cloned();
        if after("-name").is_some_and(|name| name.contains(cloud.as_str())) {
            things.push(Thing { what: "process", name: format!("{pid} (guest)"), owner: after("-uuid") });
        } else if after("--state").is_some_and(|path| Path::new(&path) == settings.state)
            && words.iter().any(|word| matches!(word.as_str(), "supervise" | "control" | "agent" | "netd"))
            && !known.contains(&pid)
            && process::start_time(pid).is_some()
        {
            things.push(Thing { what: "process", name: format!("{pid} ({})", words.join(" ").trim()), owner: None });
        }
    }
}

/// Directories named after the cloud, and those of guests below them.
fn list_cgroups(cloud: &CloudId, things: &mut Vec<Thing>) {
    let root = Path::new("/sys/fs/cgroup");
    let mut bases = vec![root.to_owned()];
    bases.extend(
        fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()),
    );
    for base in bases {
        let own = base.join(format!("nubo-{cloud}"));
        for entry in fs::read_dir(&own).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            things.push(Thing { what: "cgroup", name: entry.path().display().to_string(), owner: Some(name) });
        }
    }
}

/// Entries of a directory that are named after their owner.
fn list_files(directory: &Path, what: &'static str, things: &mut Vec<Thing>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // An upload under way is `.upload-IMAGE-NONCE`; everything else begins with its owner's id.
        let owner = match name.strip_prefix(".upload-") {
            Some(rest) => rest.chars().take(36).collect(),
            None => name.split('.').next().unwrap_or_default().to_owned(),
        };
        things.push(Thing { what, name: entry.path().display().to_string(), owner: Some(owner) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_owns_is_an_orphan_and_nothing_else() {
        let owners = json!({
            "hosts": {"h": [{"kind": "guest", "id": "018f3c2a-1b2c-7001-8aaa-0123456789ab"}]},
            "images": ["018f3c2a-1b2c-7001-8aaa-ffffffffffff"],
        });
        let thing = |owner: Option<&str>| Thing { what: "link", name: "x".into(), owner: owner.map(str::to_owned) };
        let owned = ["018f3c2a-1b2c-7001-8aaa-0123456789ab", "0123456789ab", "018f3c2a-1b2c-7001-8aaa-ffffffffffff"];
        assert!(orphans(owned.iter().map(|id| thing(Some(id))).collect(), &owners).is_empty());
        for stray in [None, Some("018f3c2a-1b2c-7001-8aaa-000000000000"), Some("89ab"), Some("")] {
            assert_eq!(orphans(vec![thing(stray)], &owners).len(), 1, "{stray:?}");
        }
    }
}
