//! What is asked of a running QEMU about disks: in, out, larger, snapshots, and the merging of layers.
//!
//! QEMU is the truth: each of these asks what is there before it changes anything, so that all may be repeated by an
//! agent that does not know how far another one came.

use crate::disk::{self, Disk, DiskSource};
use crate::{Error, Monitor, Result};
use serde_json::{Value, json};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What stands before the number of each set of descriptors that the monitor is given for disks.
const OPAQUE: &str = "disk:";

/// What says of a set of descriptors whose it is.
pub(crate) fn opaque(of: &str) -> String {
    format!("{OPAQUE}{of}")
}

/// How often a job is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    None,
    Runs { done: u64, all: u64 },
    Failed(String),
    Done,
}

impl Monitor {
    /// The names of the disks whose devices are in the machine.
    pub async fn disks(&self) -> Result<Vec<String>> {
        let found = self.qmp.call("qom-list", json!({"path": "/machine/peripheral"})).await?;
        let names = array(&found).iter().filter_map(|it| it["name"].as_str()?.strip_prefix("disk-"));
        Ok(names.map(str::to_owned).collect())
    }

    /// The names of the nodes that begin with `prefix`.
    pub async fn nodes(&self, prefix: &str) -> Result<Vec<String>> {
        let found = self.qmp.call("query-named-block-nodes", json!({"flat": true})).await?;
        let names = array(&found).iter().filter_map(|it| it["node-name"].as_str());
        Ok(names.filter(|it| it.starts_with(prefix)).map(str::to_owned).collect())
    }

    /// The topmost node of a disk's device; none: there is no such device.
    pub async fn top(&self, name: &str) -> Result<Option<String>> {
        let path = format!("/machine/peripheral/{}", disk::device(name));
        let found = self.qmp.call("query-block", json!({})).await?;
        let own =
            |it: &&Value| it["qdev"].as_str().is_some_and(|qdev| qdev == path || qdev.starts_with(&format!("{path}/")));
        let device = array(&found).iter().find(own);
        Ok(device.and_then(|it| it["inserted"]["node-name"].as_str()).map(str::to_owned))
    }

    /// The names of the disks that the host has no room for: a guest that has written to one of them waits.
    pub async fn disks_without_room(&self) -> Result<Vec<String>> {
        let found = self.qmp.call("query-block", json!({})).await?;
        let full = array(&found).iter().filter(|it| it["io-status"] == "nospace");
        let name = |it: &Value| {
            let (_, device) = it["qdev"].as_str()?.split_once("/machine/peripheral/")?;
            device.split('/').next()?.strip_prefix("disk-").map(str::to_owned)
        };
        Ok(full.filter_map(name).collect())
    }

    /// Plugs in a disk that is not there. `prefix` begins the names of its nodes: where this is another attempt, what
    /// an earlier one left of them goes first.
    pub async fn plug(&self, disk: Disk, prefix: &str, again: bool) -> Result<()> {
        if again {
            self.remove_nodes(prefix).await?;
        }
        let device = disk.device();
        let node = self.add_node(prefix, |put| disk.describe(put)).await;
        let plugged = match node {
            Ok(()) => self.qmp.call("device_add", device.arguments()).await.map(drop),
            Err(error) => Err(error),
        };
        if plugged.is_err() {
            // Nobody wants a node without a device; should this fail too, the next attempt does it.
            let _ = self.remove_nodes(prefix).await;
        }
        plugged
    }

    /// Asks the guest to let go of a disk. It may not listen yet: ask again until [`Monitor::disks`] has it no more.
    pub async fn ask_out(&self, name: &str) -> Result<()> {
        match self.qmp.call("device_del", json!({"id": disk::device(name)})).await {
            Ok(_) => Ok(()),
            // Gone already, or being asked.
            Err(Error::Refused { class, .. }) if class == "DeviceNotFound" => Ok(()),
            Err(Error::Refused { desc, .. }) if desc.contains("in the process of unplug") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Closes the files of a disk whose device is gone: its nodes, and the descriptors that they were opened from.
    pub async fn remove_nodes(&self, prefix: &str) -> Result<()> {
        self.end_merge(prefix).await?;
        // From the top: what lies below goes with it, or is owned by the monitor and goes by itself.
        let mut left = self.nodes(prefix).await?;
        while !left.is_empty() {
            left.sort_by_key(|name| (std::cmp::Reverse(name.len()), std::cmp::Reverse(name.clone())));
            for node in &left {
                match self.qmp.call("blockdev-del", json!({"node-name": node})).await {
                    Ok(_) | Err(Error::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let now = self.nodes(prefix).await?;
            if now.len() >= left.len() {
                return Err(Error::Protocol(format!("{} nodes of a disk stay in use", now.len())));
            }
            left = now;
        }
        self.remove_sets(prefix).await
    }

    pub(crate) async fn remove_sets(&self, prefix: &str) -> Result<()> {
        let opaque = opaque(prefix);
        let sets = self.qmp.call("query-fdsets", json!({})).await?;
        for set in array(&sets) {
            let own = |it: &Value| it["opaque"].as_str() == Some(&opaque);
            if array(&set["fds"]).iter().any(own) {
                match self.qmp.call("remove-fd", json!({"fdset-id": set["fdset-id"]})).await {
                    Ok(_) | Err(Error::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Makes a node from descriptors that travel before it.
    async fn add_node(
        &self,
        prefix: &str,
        describe: impl FnOnce(&mut dyn FnMut(OwnedFd) -> String) -> Value,
    ) -> Result<()> {
        let sets = self.qmp.call("query-fdsets", json!({})).await?;
        let mut next = array(&sets).iter().filter_map(|set| set["fdset-id"].as_u64()).max().unwrap_or(0);
        let mut files = Vec::new();
        let node = describe(&mut |file| {
            next += 1;
            files.push((next, file));
            format!("/dev/fdset/{next}")
        });
        let opaque = opaque(prefix);
        for (set, file) in &files {
            let arguments = json!({"fdset-id": set, "opaque": opaque});
            self.qmp.call_with("add-fd", arguments, Some(file.as_fd())).await?;
        }
        self.qmp.call("blockdev-add", node).await.map(drop)
    }

    /// The guest sees the new size.
    pub async fn resize(&self, prefix: &str, node: &str, bytes: u64) -> Result<()> {
        self.end_merge(prefix).await?;
        self.qmp.call("block_resize", json!({"node-name": node, "size": bytes})).await.map(drop)
    }

    /// Puts an empty layer on top of the disk, whose node of before is written no more: atomic, and crash-consistent
    /// for the guest. `on_top` has a name and no backing. Done already where it is the top.
    pub async fn snapshot(&self, name: &str, prefix: &str, on_top: DiskSource) -> Result<()> {
        let Some(new) = on_top.node.clone() else { return Err(Error::Protocol("a layer without a name".into())) };
        let Some(old) = self.top(name).await? else {
            return Err(Error::Protocol(format!("the disk {name} is not in the machine")));
        };
        if old == new {
            return Ok(());
        }
        self.end_merge(prefix).await?;
        if !self.nodes(&new).await?.contains(&new) {
            self.add_node(prefix, |put| on_top.describe(put)).await?;
        }
        self.qmp.call("blockdev-snapshot", json!({"node": old, "overlay": new})).await.map(drop)
    }

    /// Begins to copy into `top` what the layers between it and `base` hold (none: all of them), where just that does
    /// not go on already.
    pub async fn begin_merge(&self, prefix: &str, top: &str, base: Option<(&str, &str)>) -> Result<()> {
        let id = merge_job(prefix, top, base);
        if self.jobs(prefix).await?.iter().any(|(name, _)| *name == id) {
            return Ok(());
        }
        self.end_merge(prefix).await?;
        let mut arguments = json!({"job-id": id, "device": top, "auto-dismiss": false, "on-error": "report"});
        if let Some((node, file)) = base {
            arguments["base-node"] = json!(node);
            // What stands in the header: never followed, shown to people.
            arguments["backing-file"] = json!(file);
        }
        self.qmp.call("block-stream", arguments).await.map(drop)
    }

    /// How the merge stands that [`Monitor::begin_merge`] began.
    pub async fn merge(&self, prefix: &str) -> Result<Job> {
        Ok(self.jobs(prefix).await?.into_iter().next().map_or(Job::None, |(_, job)| job))
    }

    /// Ends merges wherever they are, and forgets how they ended. What they have copied does no harm. A copy of the
    /// disk that goes on has been left by an agent that died over it, and ends as well.
    pub async fn end_merge(&self, prefix: &str) -> Result<()> {
        let jobs = self.qmp.call("query-jobs", json!({})).await?;
        let (merges, copy) = (merges_of(prefix), crate::copy::name(prefix));
        for id in array(&jobs).iter().filter_map(|it| it["id"].as_str()) {
            if id == copy {
                self.end_copy(prefix).await?;
            } else if id.starts_with(&merges) {
                self.end_job(id).await?;
            }
        }
        Ok(())
    }

    async fn jobs(&self, prefix: &str) -> Result<Vec<(String, Job)>> {
        let begin = merges_of(prefix);
        let jobs = self.qmp.call("query-jobs", json!({})).await?;
        let own = array(&jobs).iter().filter(|it| it["id"].as_str().is_some_and(|id| id.starts_with(&begin)));
        let stands = |it: &Value| match (it["status"].as_str(), it["error"].as_str()) {
            (Some("concluded"), Some(error)) => Job::Failed(error.to_owned()),
            (Some("concluded"), None) => Job::Done,
            _ => Job::Runs {
                done: it["current-progress"].as_u64().unwrap_or(0),
                all: it["total-progress"].as_u64().unwrap_or(0),
            },
        };
        Ok(own.map(|it| (it["id"].as_str().unwrap_or_default().to_owned(), stands(it))).collect())
    }

    /// All that was written to the disk is on the host's disk, the tables of its format, too.
    pub async fn flush(&self, node: &str) -> Result<()> {
        let line = format!("qemu-io {node} flush");
        let said = self.qmp.call("human-monitor-command", json!({"command-line": line})).await?;
        match said.as_str().map(str::trim) {
            None | Some("") => Ok(()),
            Some(said) => Err(Error::Protocol(format!("flushing {node}: {said}"))),
        }
    }
}

/// What the names of a disk's merges begin with.
fn merges_of(prefix: &str) -> String {
    format!("merge-{prefix}")
}

/// The name of the job that merges just these layers: one that an agent left is known again.
fn merge_job(prefix: &str, top: &str, base: Option<(&str, &str)>) -> String {
    let number = |node: &str| node.strip_prefix(prefix).unwrap_or(node).to_owned();
    format!("merge-{prefix}{}-{}", number(top), base.map_or("none".into(), |(node, _)| number(node)))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Monitor {
    /// Ends a job, also one that an agent left which died over it, and dismisses it.
    pub(crate) async fn end_job(&self, id: &str) -> Result<()> {
        loop {
            let jobs = self.qmp.call("query-jobs", json!({})).await?;
            let Some(found) = array(&jobs).iter().find(|it| it["id"] == *id) else { return Ok(()) };
            if found["status"] == "concluded" {
                self.qmp.call("job-dismiss", json!({"id": id})).await?;
                continue;
            }
            // It may conclude by itself between the two.
            let _ = self.qmp.call("job-cancel", json!({"id": id})).await;
            tokio::time::sleep(LOOK).await;
        }
    }
}
