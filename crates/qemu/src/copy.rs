//! Copies of disks by a running QEMU: as they are at one moment, however the guest goes on.

use crate::{Error, Format, Monitor, Result};
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

/// How often the copy is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The name of the copy of a disk: its job, its node and its set of descriptors. `of` begins the names of the disk's
/// own nodes; `root` is the disk that has none.
pub(crate) fn name(of: &str) -> String {
    format!("copy-{}", of.trim_end_matches('-'))
}

impl Monitor {
    /// Copies the disk of the node `source` into `target`: an empty qcow2 file of its size, or a raw one of as many
    /// zeros. Returns when the copy is whole; false: `unwanted` said so before.
    ///
    /// # Errors
    /// What QEMU says of it.
    pub async fn copy_disk(
        &self,
        of: &str,
        source: &str,
        target: &File,
        format: Format,
        unwanted: impl Fn() -> bool + Send,
    ) -> Result<bool> {
        self.end_copy(of).await?;
        let copied = self.copy(&name(of), source, target, format, unwanted).await;
        // The node's end writes the last of its tables.
        let ended = self.end_copy(of).await;
        let whole = copied?;
        ended.map(|()| whole)
    }

    async fn copy(
        &self,
        name: &str,
        source: &str,
        target: &File,
        format: Format,
        unwanted: impl Fn() -> bool + Send,
    ) -> Result<bool> {
        let opaque = json!({"opaque": crate::block::opaque(name)});
        let added = self.qmp.call_with("add-fd", opaque, Some(target.as_fd())).await?;
        let file = json!({
            "driver": "file", "filename": format!("/dev/fdset/{}", added["fdset-id"]), "discard": "unmap",
        });
        // What is zero takes no room in the copy.
        let mut node = json!({
            "driver": format.driver(), "node-name": name, "file": file, "discard": "unmap", "detect-zeroes": "unmap",
        });
        if format == Format::Qcow2 {
            node["backing"] = Value::Null;
        }
        self.qmp.call("blockdev-add", node).await?;
        let backup = json!({"job-id": name, "device": source, "target": name, "sync": "full", "auto-dismiss": false});
        self.qmp.call("blockdev-backup", backup).await?;
        loop {
            if unwanted() {
                return Ok(false);
            }
            let jobs = self.qmp.call("query-jobs", json!({})).await?;
            let job = jobs.as_array().and_then(|jobs| jobs.iter().find(|job| job["id"] == name));
            if let Some(job) = job.filter(|job| job["status"] == "concluded") {
                return match job["error"].as_str() {
                    Some(error) => Err(Error::Protocol(format!("copying the disk: {error}"))),
                    None => Ok(true),
                };
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends a copy, also one that an agent left which died over it, and closes its file.
    pub(crate) async fn end_copy(&self, of: &str) -> Result<()> {
        let name = name(of);
        self.end_job(&name).await?;
        match self.qmp.call("blockdev-del", json!({"node-name": name})).await {
            // There is none.
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        self.remove_sets(&name).await
    }
}
