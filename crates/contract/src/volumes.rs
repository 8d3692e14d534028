//! What compute asks of the volume service: the volumes of servers.
//!
//! An attachment is the volume service's document, and the server is compute's; both change in one transaction. What a
//! guest really has is said by its host alone, and comes in through [`Volumes::guest_seen`].

use crate::Caller;
use agent_api::{DiskBus, GuestVolumeObserved};
use base::{AttachmentId, Fault, FaultKind, HostName, ImageId, Result, ServerId, VolumeId, VolumeSnapshotId};
use model::volume::Stage;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Change, Reader, Tx};

/// What a volume of a new server is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeFrom {
    Blank,
    Image(ImageId),
    Snapshot(VolumeSnapshotId),
    /// It is there already.
    Volume(VolumeId),
}

#[derive(Clone, Debug, PartialEq)]
pub struct WantedVolume {
    pub from: VolumeFrom,
    pub size_gib: Option<u64>,
    pub volume_type: Option<String>,
    /// 0: the server boots from it.
    pub boot_index: Option<u32>,
    pub bus: DiskBus,
    pub tag: Option<String>,
    /// `vdb`; none: the next that is free.
    pub device: Option<String>,
    pub delete_on_termination: bool,
}

/// Who asks for an attachment, and for which server.
#[derive(Clone, Copy)]
pub struct ForServer<'a> {
    pub caller: &'a Arc<Caller>,
    pub server: &'a ServerId,
    /// None: the server is being made, and goes to where its volumes are.
    pub host: Option<&'a HostName>,
    /// The server's, from which on its guest shall have the volume.
    pub generation: u64,
    /// It has a root disk of its own, which sits in the first slot.
    pub has_root: bool,
}

/// A volume of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerVolume {
    pub attachment: AttachmentId,
    pub volume: VolumeId,
    pub server: ServerId,
    pub device: String,
    pub boot_index: Option<u32>,
    pub bus: DiskBus,
    pub tag: Option<String>,
    pub read_only: bool,
    pub delete_on_termination: bool,
    pub stage: Stage,
}

impl ServerVolume {
    /// The guest shall have it.
    pub fn is_wanted(&self) -> bool {
        self.stage != Stage::Detaching
    }

    pub fn is_root(&self) -> bool {
        self.boot_index == Some(0)
    }
}

/// A snapshot of a server's volume, and what the volume was to the server.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeKept {
    pub snapshot: VolumeSnapshotId,
    pub size_gib: u64,
    pub of: ServerVolume,
    /// What its image said of a volume to boot from.
    pub image_metadata: BTreeMap<String, String>,
}

pub trait Volumes: Send + Sync {
    /// Gives a server volumes: makes those that are asked for, and takes over those that are there.
    ///
    /// # Errors
    /// NotFound for what the caller does not know, Invalid where the volume is not free or the host is another one's,
    /// Conflict for a device that is taken, Quota.
    fn attach(&self, tx: &mut Tx, ask: ForServer<'_>, wanted: &[WantedVolume]) -> Result<Vec<ServerVolume>>;
    /// The guest lets go of a volume, from `generation` on; one without a host has it no more at once.
    fn detach(&self, tx: &mut Tx, server: &ServerId, volume: &VolumeId, generation: u64, on_host: bool) -> Result<()>;
    fn keep_or_delete(&self, tx: &mut Tx, server: &ServerId, volume: &VolumeId, delete: bool) -> Result<()>;
    /// In the order of their devices.
    fn of_server(&self, reader: &mut Reader, server: &ServerId) -> Result<Vec<ServerVolume>>;
    /// The servers of which a committed change may have altered what [`Volumes::of_server`] says. None: one of those
    /// that have volumes, not known which.
    fn servers_touched(&self, change: &Change) -> Result<Option<Vec<ServerId>>>;
    /// The hosts on which a server can be by its volumes: where they are, or could be made. None: any.
    fn hosts_for(&self, reader: &mut Reader, server: &ServerId) -> Result<Option<BTreeSet<HostName>>>;
    /// The server has got its host: the volumes that are made for it are made there.
    fn settle(&self, tx: &mut Tx, server: &ServerId, host: &HostName) -> Result<()>;
    /// The server is gone: its volumes are free, or go with it, as was asked for. `resting`: its guest is still on its
    /// host, and has let go of them by this generation.
    fn let_go(&self, tx: &mut Tx, server: &ServerId, resting: Option<u64>) -> Result<()>;
    /// Keeps all volumes of a server as they are, crash-consistent each for itself.
    ///
    /// # Errors
    /// Conflict where one is on its way in or out, Forbidden, Quota.
    fn keep_as_they_are(
        &self,
        tx: &mut Tx,
        caller: &Arc<Caller>,
        server: &ServerId,
        name: &str,
    ) -> Result<Vec<VolumeKept>>;
    /// What a host says of the volumes of a guest.
    fn guest_seen(
        &self,
        tx: &mut Tx,
        server: &ServerId,
        generation: u64,
        volumes: &[GuestVolumeObserved],
    ) -> Result<()>;
    /// The guest is not on its host (any more), and has no volume.
    fn guest_gone(&self, tx: &mut Tx, server: &ServerId) -> Result<()>;
}

/// A cloud without volumes.
pub struct NoVolumes;

impl Volumes for NoVolumes {
    fn attach(&self, _: &mut Tx, _: ForServer<'_>, wanted: &[WantedVolume]) -> Result<Vec<ServerVolume>> {
        match wanted {
            [] => Ok(Vec::new()),
            _ => Err(Fault::new(FaultKind::Invalid, "This cloud has no volumes.")),
        }
    }
    fn detach(&self, _: &mut Tx, _: &ServerId, _: &VolumeId, _: u64, _: bool) -> Result<()> {
        Ok(())
    }
    fn keep_or_delete(&self, _: &mut Tx, _: &ServerId, _: &VolumeId, _: bool) -> Result<()> {
        Ok(())
    }
    fn of_server(&self, _: &mut Reader, _: &ServerId) -> Result<Vec<ServerVolume>> {
        Ok(Vec::new())
    }
    fn servers_touched(&self, _: &Change) -> Result<Option<Vec<ServerId>>> {
        Ok(Some(Vec::new()))
    }
    fn hosts_for(&self, _: &mut Reader, _: &ServerId) -> Result<Option<BTreeSet<HostName>>> {
        Ok(None)
    }
    fn settle(&self, _: &mut Tx, _: &ServerId, _: &HostName) -> Result<()> {
        Ok(())
    }
    fn let_go(&self, _: &mut Tx, _: &ServerId, _: Option<u64>) -> Result<()> {
        Ok(())
    }
    fn keep_as_they_are(&self, _: &mut Tx, _: &Arc<Caller>, _: &ServerId, _: &str) -> Result<Vec<VolumeKept>> {
        Ok(Vec::new())
    }
    fn guest_seen(&self, _: &mut Tx, _: &ServerId, _: u64, _: &[GuestVolumeObserved]) -> Result<()> {
        Ok(())
    }
    fn guest_gone(&self, _: &mut Tx, _: &ServerId) -> Result<()> {
        Ok(())
    }
}
