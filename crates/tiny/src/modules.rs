//! Which kernel modules the guest gets, and in which order they are loaded.

use crate::packages::{Unpacked, run};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Loaded at boot: virtual disks, NICs, consoles, the power button, file systems of config drives.
const AT_BOOT: [&str; 16] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "virtio_console",
    "virtio_balloon",
    "virtio_rng",
    "button",
    "evdev",
    "isofs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
];
/// There for `modprobe`.
const ON_DEMAND: [&str; 10] = [
    "ata_piix",
    "ahci",
    "virtiofs",
    "overlay",
    "loop",
    "8021q",
    "vmw_vsock_virtio_transport",
    "virtio_mem",
    "nls_utf8",
    "i6300esb",
];

pub struct Modules {
    /// File name (flat in the guest's folder) and where it lies now.
    pub files: Vec<(String, PathBuf)>,
    /// File names in the order of loading.
    pub at_boot: Vec<String>,
    /// `modules.dep` of the flat folder.
    pub dependencies: String,
}

pub fn choose(unpacked: &Unpacked, release: &str) -> Result<Modules> {
    let folder = unpacked.file(&[&format!("lib/modules/{release}")])?;
    // The package leaves this list to its installation.
    let base = folder.ancestors().nth(3).context("the modules lie in no lib folder")?;
    let busybox = unpacked.file(&["bin/busybox"])?;
    run(Command::new(busybox).args(["depmod", "-b"]).arg(base).arg(release).current_dir(&folder))?;
    let graph = parse(&fs::read_to_string(folder.join("modules.dep"))?);
    if !graph.contains_key("virtio_blk") {
        bail!("the kernel {release} has no virtio_blk module");
    }
    let at_boot = closure(&graph, &AT_BOOT);
    let wanted: Vec<&str> = AT_BOOT.into_iter().chain(ON_DEMAND).collect();
    let mut modules = Modules { files: Vec::new(), at_boot: Vec::new(), dependencies: String::new() };
    let flat = |name: &str| graph[name].0.rsplit('/').next().unwrap_or_default().to_owned();
    for name in closure(&graph, &wanted) {
        modules.files.push((flat(&name), folder.join(&graph[&name].0)));
        let needs: Vec<String> =
            graph[&name].1.iter().filter(|it| graph.contains_key(*it)).map(|it| flat(it)).collect();
        modules.dependencies += &format!("{}: {}\n", flat(&name), needs.join(" "));
    }
    modules.at_boot = at_boot.iter().map(|name| flat(name)).collect();
    Ok(modules)
}

/// Module name to its path and the names that it needs.
type Graph = BTreeMap<String, (String, Vec<String>)>;

fn key(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

fn parse(text: &str) -> Graph {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let entry =
        |(path, needs): (&str, &str)| (key(path), (path.to_owned(), needs.split_ascii_whitespace().map(key).collect()));
    lines.map(entry).collect()
}

/// These modules and what they need, dependencies first. What the kernel has built in is not in the graph.
fn closure(graph: &Graph, names: &[&str]) -> Vec<String> {
    fn visit(graph: &Graph, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<String>) {
        if let Some((_, needs)) = graph.get(name)
            && seen.insert(name.to_owned())
        {
            needs.iter().rev().for_each(|need| visit(graph, need, seen, order));
            order.push(name.to_owned());
        }
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    names.iter().for_each(|name| visit(graph, name, &mut seen, &mut order));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first() {
        let graph = parse(
            "kernel/a/net-x.ko: kernel/b/ring.ko kernel/b/core.ko\nkernel/b/ring.ko: kernel/b/core.ko\nkernel/b/core.ko:\nother.ko.xz:\n",
        );
        assert_eq!(closure(&graph, &["net_x", "built_in"]), ["core", "ring", "net_x"]);
        assert_eq!(graph["other"].0, "other.ko.xz");
    }
}
