//! What the store keeps of volumes and of their snapshots.
//!
//! ```text
//!   POST -> Volume, its room on a host --report--> VolumeObserved
//!   DELETE -> Volume gone, TrashedVolume: still present on its host, its room reserved
//!     undo  -> TrashedVolume gone, the volume back, one generation further
//!     purge -> TrashedVolume gone, VolumeTombstone: absent on its host --report Absent--> tombstone and room gone
//! ```
//!
//! Never: room on a host that belongs to neither a volume, the trash nor a tombstone; a volume that shrinks.

use agent_api::DiskFormat;
use base::{
    AttachmentId, Fault, HostName, ImageId, ProjectId, ServerId, Timestamp, UserId, VolumeId, VolumeSnapshotId,
};
use model::volume::{Hold, Stage, Verb};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use store::{Document, Keys, Made, Needs};

/// What a volume is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Origin {
    #[default]
    Blank,
    Image {
        image: ImageId,
        format: DiskFormat,
        sha512: String,
        image_bytes: u64,
    },
    Snapshot {
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
    },
    Volume {
        volume: VolumeId,
    },
}

impl Origin {
    /// The volume on whose bytes the new one may lie.
    pub fn parent(&self) -> Option<&VolumeId> {
        match self {
            Origin::Snapshot { volume, .. } | Origin::Volume { volume } => Some(volume),
            Origin::Blank | Origin::Image { .. } => None,
        }
    }
}

/// Why a volume or a snapshot is in error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// For its owner: cause and cure.
    pub message: String,
    /// For administrators.
    pub details: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub id: VolumeId,
    pub project_id: ProjectId,
    pub user_id: UserId,
    pub name: Option<String>,
    pub description: Option<String>,
    pub size_gib: u64,
    /// The id of its type.
    pub volume_type: String,
    pub zone: String,
    /// None: no host has been found yet, or none at all.
    pub host: Option<HostName>,
    /// The server that is being made with it decides on the host.
    pub goes_with: Option<ServerId>,
    pub generation: u64,
    pub verb: Verb,
    pub verb_generation: u64,
    /// When the newest verb was asked for, as long as its host has not said that it is done.
    pub passing_since: Option<Timestamp>,
    /// The generation of the verb whose deadline has passed; 0: none.
    pub overdue: u64,
    pub origin: Origin,
    /// The host shall make it lie on nothing but itself.
    pub flatten: bool,
    pub metadata: BTreeMap<String, String>,
    pub image_metadata: BTreeMap<String, String>,
    pub bootable: bool,
    pub read_only: Option<bool>,
    pub multiattach: bool,
    pub hold: Hold,
    pub held_since: Option<Timestamp>,
    /// What an administrator has said that it is.
    pub forced: Option<String>,
    /// The transfer that offers it.
    pub transfer: Option<String>,
    /// The image that a job makes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploading: Option<ImageId>,
    /// No host would take it.
    pub unplaceable: Option<Why>,
}

impl Volume {
    /// Asks its host for something that takes time.
    pub fn ask(&mut self, verb: Verb, now: Timestamp) {
        self.generation += 1;
        (self.verb, self.verb_generation) = (verb, self.generation);
        (self.passing_since, self.overdue) = (Some(now), 0);
    }

    pub fn touch(&mut self) {
        self.generation += 1;
    }

    pub fn is_overdue(&self) -> bool {
        self.overdue != 0 && self.overdue == self.verb_generation
    }

    pub fn needs_placing(&self) -> bool {
        self.host.is_none() && self.unplaceable.is_none() && self.goes_with.is_none()
    }
}

impl Document for Volume {
    const KIND: &'static str = "volume";
    const MADE: Made = Made::Removed(2);

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        if let Some(host) = &self.host {
            keys.index("host", host.as_str());
        }
        if let Some(parent) = self.origin.parent() {
            keys.index("parent", parent.as_str());
        }
        if self.needs_placing() {
            keys.index("todo", "place");
        }
        if self.passing_since.is_some() && !self.is_overdue() || self.held_since.is_some() {
            keys.index("todo", "passing");
        }
        keys.index("type", self.volume_type.as_str());
    }
    fn needs(&self, needs: &mut Needs) {
        if let Some(host) = &self.host {
            needs.on::<Pool>(host);
        }
        needs.kind("volume_type", &self.volume_type);
    }
    fn restored(&mut self, now: Timestamp, replaced: Option<&Self>) {
        match replaced {
            // Its host has seen one generation more: that of the volume in the trash.
            None => {
                // The job that made an image of it ended with it.
                self.uploading = None;
                self.generation += 1;
                self.touch();
            }
            Some(current) => {
                (self.generation, self.verb) = (current.generation, current.verb);
                (self.verb_generation, self.overdue) = (current.verb_generation, current.overdue);
                (self.passing_since, self.host) = (current.passing_since, current.host.clone());
                self.uploading = current.uploading.clone();
                match self.size_gib == current.size_gib {
                    true => self.touch(),
                    false => self.ask(Verb::Extend, now),
                }
            }
        }
    }
    fn undone(_: &mut store::Tx, before: Option<&Self>, after: Option<&Self>) -> base::Result<()> {
        match (before, after) {
            (Some(before), Some(after)) if after.size_gib < before.size_gib => {
                Err(Fault::conflict(format!("Volume {} was extended, and a volume never shrinks.", before.id)))
            }
            _ => Ok(()),
        }
    }
}

/// A volume as its host last said it is, also while it rests in the trash.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeObserved {
    pub id: VolumeId,
    pub project_id: ProjectId,
    pub generation: u64,
    pub ready: bool,
    /// It was ready once.
    #[serde(default)]
    pub made: bool,
    pub size_bytes: u64,
    pub used_bytes: u64,
    pub snapshots: BTreeSet<VolumeSnapshotId>,
    /// The volumes on whose bytes it lies.
    pub depends_on: BTreeSet<VolumeId>,
    /// It stands on an image, or on what was another volume's.
    #[serde(default)]
    pub shares: bool,
    pub fault: Option<Why>,
    pub gave_up: bool,
    pub attempts: u32,
}

impl Document for VolumeObserved {
    const KIND: &'static str = "volume_observed";
    const UNDO: bool = false;
    const TRASH: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        for parent in &self.depends_on {
            keys.index("depends_on", parent.as_str());
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: VolumeSnapshotId,
    pub project_id: ProjectId,
    pub user_id: UserId,
    pub volume: VolumeId,
    pub volume_type: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub size_gib: u64,
    pub metadata: BTreeMap<String, String>,
    /// The generation of the volume from which on it is there.
    pub generation: u64,
    pub passing_since: Option<Timestamp>,
    pub overdue: bool,
    pub forced: Option<String>,
    /// As somebody has said it.
    pub progress: Option<String>,
}

impl Document for Snapshot {
    const KIND: &'static str = "volume_snapshot";
    const MADE: Made = Made::Removed(1);
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("volume", self.volume.as_str());
        if self.passing_since.is_some() && !self.overdue {
            keys.index("todo", "passing");
        }
    }
    fn needs(&self, needs: &mut Needs) {
        needs.on::<Volume>(&self.volume);
    }
}

/// A deleted volume that is still on its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrashedVolume {
    pub volume: Volume,
    pub deleted: Timestamp,
}

impl Document for TrashedVolume {
    const KIND: &'static str = "trashed_volume";
    const TRASH: bool = false;
    fn id(&self) -> &str {
        &self.volume.id
    }
    fn project_id(&self) -> &str {
        &self.volume.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        if let Some(host) = &self.volume.host {
            keys.index("host", host.as_str());
        }
        if let Some(parent) = self.volume.origin.parent() {
            keys.index("parent", parent.as_str());
        }
    }
}

/// A deleted snapshot that is still on the host of its volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrashedSnapshot {
    pub snapshot: Snapshot,
    pub deleted: Timestamp,
}

impl Document for TrashedSnapshot {
    const KIND: &'static str = "trashed_volume_snapshot";
    const TRASH: bool = false;
    fn id(&self) -> &str {
        &self.snapshot.id
    }
    fn project_id(&self) -> &str {
        &self.snapshot.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("volume", self.snapshot.volume.as_str());
    }
}

/// A volume that must go from a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeTombstone {
    pub id: VolumeId,
    pub host: HostName,
    pub generation: u64,
    /// What it has reserved there until it is gone.
    pub size_gib: u64,
}

impl Document for VolumeTombstone {
    const KIND: &'static str = "volume_tombstone";
    const TRASH: bool = false;
    const UNDO: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("host", self.host.as_str());
    }
}

/// A snapshot that must go from the host of its volume. Without such a word no host is told to forget one: the store may
/// be an older copy than the snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotTombstone {
    pub id: VolumeSnapshotId,
    pub volume: VolumeId,
    /// The volume's, from which on it is gone.
    pub generation: u64,
}

impl Document for SnapshotTombstone {
    const KIND: &'static str = "volume_snapshot_tombstone";
    const TRASH: bool = false;
    const UNDO: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("volume", self.volume.as_str());
    }
}

/// Who made an attachment, and by what it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A client of this API: what it says of the attachment is believed.
    Client,
    /// A server of this cloud: what its host says is believed.
    Server,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    pub id: AttachmentId,
    pub project_id: ProjectId,
    pub volume: VolumeId,
    pub by: By,
    pub server: Option<ServerId>,
    pub host_name: Option<String>,
    pub device: Option<String>,
    /// `rw` or `ro`.
    pub mode: String,
    /// Its maker has said so.
    #[serde(default)]
    pub told: bool,
    pub stage: Stage,
    pub connector: Option<Value>,
    pub attached_at: Option<Timestamp>,
    pub since: Timestamp,
    /// The server's, from which on its guest shall have the volume, or have it no more.
    #[serde(default)]
    pub generation: u64,
    /// It has been on its way for longer than it may.
    #[serde(default)]
    pub overdue: bool,
    /// What its host says against it.
    #[serde(default)]
    pub why: Option<String>,
    pub delete_on_termination: bool,
    pub boot_index: Option<u32>,
    pub tag: Option<String>,
    pub bus: Option<String>,
}

impl Document for Attachment {
    const KIND: &'static str = "volume_attachment";
    const MADE: Made = Made::Removed(1);
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("volume", self.volume.as_str());
        // No back-end lets two servers use one volume.
        keys.unique("volume", [self.volume.as_str()]);
        if self.is_passing() {
            keys.index("todo", "passing");
        }
        if let Some(server) = &self.server {
            keys.index("server", server.as_str());
            if self.by == By::Server {
                if let Some(device) = &self.device {
                    keys.unique("device", [server.as_str(), device.as_str()]);
                }
            }
        }
    }
    fn needs(&self, needs: &mut Needs) {
        needs.on::<Volume>(&self.volume);
        if self.by == By::Server {
            needs.kind("server", self.server.as_ref().map_or("", |id| id.as_str()));
        }
    }
    /// Its guest rested without it, and its host will say when it is there again.
    fn restored(&mut self, now: Timestamp, replaced: Option<&Self>) {
        if replaced.is_none() && self.by == By::Server {
            (self.stage, self.since, self.overdue) = (Stage::Attaching, now, false);
        }
    }
    fn undone(tx: &mut store::Tx, before: Option<&Self>, after: Option<&Self>) -> base::Result<()> {
        let (None, Some(back)) = (before, after) else { return Ok(()) };
        let Some(volume) = tx.get::<Volume>(&back.volume)? else { return Ok(()) };
        // What is being detached is so from this very server.
        let free = volume.transfer.is_none() && matches!(volume.hold, Hold::None | Hold::Detaching);
        match volume.project_id == back.project_id && free {
            true => Ok(()),
            false => Err(Fault::conflict(format!("Volume {} is somebody else's by now.", volume.id))),
        }
    }
}

impl Attachment {
    /// A server's that waits for its host.
    pub fn is_passing(&self) -> bool {
        self.by == By::Server && !self.overdue && self.stage != Stage::Attached
    }
}

/// A volume of a deleted server whose guest may still have it open. It goes when the host says that it has not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaving {
    /// The volume's.
    pub id: VolumeId,
    pub project_id: ProjectId,
    pub server: ServerId,
    /// The generation of the guest that is without it.
    pub generation: u64,
    pub since: Timestamp,
    pub overdue: bool,
}

impl Document for Leaving {
    const KIND: &'static str = "volume_leaving";
    const TRASH: bool = false;
    const UNDO: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("server", self.server.as_str());
        if !self.overdue {
            keys.index("todo", "passing");
        }
    }
}

/// What a host can carry of volumes, and whether it is to take new ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    pub host: HostName,
    pub total_gib: u64,
    pub free_gib: u64,
    pub backend: String,
    pub zone: String,
    pub enabled: bool,
    pub disabled_reason: Option<String>,
    pub frozen: bool,
    pub service_uuid: String,
}

impl Pool {
    /// As Cinder names it.
    pub fn name(&self) -> String {
        format!("{}@{backend}#{backend}", self.host, backend = self.backend)
    }

    pub fn service(&self) -> String {
        format!("{}@{}", self.host, self.backend)
    }
}

impl Document for Pool {
    const KIND: &'static str = "volume_pool";
    fn id(&self) -> &str {
        &self.host
    }
}
