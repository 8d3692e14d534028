//! Volumes in a guest: plugged in and taken out until what QEMU has is what the spec names.
//!
//! The ledger's `plugged` names every volume that QEMU may have open: it is written before a descriptor is handed out,
//! and after the last one has been closed. In between QEMU is the truth. Taking out needs the guest's consent; it is
//! asked again and again, since it may be booting, and nothing else waits for it.

use super::Actor;
use crate::fault;
use crate::ledger::Ledger;
use crate::volumes::nodes;
use agent_api::{AgentFault, AttachmentState, GuestVolume, GuestVolumeObserved};
use base::VolumeId;
use base::backoff::Backoff;
use qemu::{Disk, Monitor};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RETRY: Backoff = Backoff { first_ms: 250, most_ms: 30_000 };
/// How often a guest is asked to let go.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How soon an unfinished change is looked at again.
pub const SOON: Duration = Duration::from_millis(250);

/// What an actor knows of its guest's volumes besides the ledger.
#[derive(Default)]
pub struct Plugs {
    /// The process has been asked what it has.
    looked: bool,
    present: BTreeSet<VolumeId>,
    /// When each was last asked to be let go.
    asked: BTreeMap<VolumeId, Instant>,
    faults: BTreeMap<VolumeId, AgentFault>,
    failures: u32,
    not_before: Option<Instant>,
    /// Something is on its way.
    pub unsettled: bool,
}

/// The slot that a device's name stands for.
pub fn slot(device: &str) -> Option<u8> {
    match device.as_bytes() {
        [b'v', b'd', letter @ b'a'..=b'o'] => Some(letter - b'a'),
        _ => None,
    }
}

/// The same volume in the same place.
fn same(one: &GuestVolume, other: &GuestVolume) -> bool {
    let GuestVolume { attachment, volume, device, bus, read_only, boot_index: _, tag: _ } = one;
    (attachment, volume, device, bus, read_only)
        == (&other.attachment, &other.volume, &other.device, &other.bus, &other.read_only)
}

impl Actor {
    /// The disks for a process that is to be made. What it will have open is in the ledger before it is opened.
    pub(super) async fn open_volumes(&mut self, ledger: &Ledger, resume: bool) -> Result<Vec<Disk>, AgentFault> {
        // Saved memory knows the devices that it was saved with.
        let wanted = if resume { ledger.done.plugged.clone() } else { ledger.spec.volumes.clone() };
        self.plugs = Plugs::default();
        for (at, volume) in wanted.iter().enumerate() {
            if let Err(fault) = self.host.volumes.claim(&volume.volume, &self.id) {
                wanted[..at].iter().for_each(|it| self.host.volumes.leave(&it.volume, &self.id));
                return Err(fault);
            }
        }
        let plugged = wanted.clone();
        if let Err(error) = self.ledger.update(move |ledger| ledger.done.plugged = plugged).await {
            wanted.iter().for_each(|it| self.host.volumes.leave(&it.volume, &self.id));
            return Err(fault::disk("server's ledger", &error));
        }
        let mut disks = Vec::new();
        for volume in &wanted {
            disks.push(self.open_volume(volume).await?);
        }
        Ok(disks)
    }

    async fn open_volume(&self, volume: &GuestVolume) -> Result<Disk, AgentFault> {
        let turn = self.host.volumes.take(&volume.volume).await;
        let source = self.host.volumes.open(&volume.volume, volume.read_only, &turn).await?;
        Ok(Disk {
            name: volume.volume.to_string(),
            serial: volume.volume.to_string(),
            source,
            boot_index: volume.boot_index,
            slot: slot(&volume.device),
        })
    }

    /// There is no process: nothing is open. Saved memory keeps its list for the process that reads it.
    pub(super) async fn let_go(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        self.plugs = Plugs::default();
        for volume in &ledger.done.plugged {
            self.host.volumes.leave(&volume.volume, &self.id);
        }
        if ledger.done.plugged.is_empty() || ledger.done.memory_saved {
            return Ok(());
        }
        let forgotten = self.ledger.update(|ledger| ledger.done.plugged.clear()).await;
        forgotten.map_err(|error| fault::disk("server's ledger", &error))
    }

    /// Brings the volumes of a running guest nearer to the spec. What stands in the way is said of the volume, and the
    /// guest goes on.
    pub(super) async fn plug_volumes(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        let Some(monitor) = self.held.as_ref().map(|held| held.monitor.clone()) else { return Ok(()) };
        let (wanted, plugged) = (&ledger.spec.volumes, &ledger.done.plugged);
        let settled = wanted.len() == plugged.len() && wanted.iter().all(|it| plugged.iter().any(|old| same(it, old)));
        if settled && self.plugs.looked && !self.plugs.unsettled {
            return Ok(());
        }
        self.plugs.unsettled = true;
        if self.plugs.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let asked = |error: qemu::Error| fault::qemu("be asked for the server's disks", &error);
        let there: BTreeSet<String> = monitor.disks().await.map_err(asked)?.into_iter().collect();
        self.plugs.present = plugged.iter().map(|it| it.volume.clone()).filter(|it| there.contains(&**it)).collect();
        self.plugs.looked = true;
        let mut failed = false;
        let mut waits = false;
        for old in plugged.iter().filter(|old| !wanted.iter().any(|new| same(new, old))) {
            match self.take_out(&monitor, old).await {
                Ok(out) => waits |= !out,
                Err(fault) => failed |= self.plugs.fails(&self.id, old, fault),
            }
        }
        for new in wanted {
            let known = plugged.iter().find(|old| old.volume == new.volume);
            let done = match known {
                // Still in its old place.
                Some(old) if !same(new, old) => {
                    waits = true;
                    continue;
                }
                Some(_) if self.plugs.present.contains(&new.volume) => {
                    self.host.volumes.live(&new.volume, &self.id, &monitor);
                    Ok(())
                }
                known => self.put_in(&monitor, new, known.is_some()).await,
            };
            match done {
                Ok(()) => drop(self.plugs.faults.remove(&new.volume)),
                Err(fault) => failed |= self.plugs.fails(&self.id, new, fault),
            }
        }
        self.plugs.settle(failed, waits, &*self.host.env.random);
        Ok(())
    }

    /// `again`: an earlier attempt may have left something of it in QEMU.
    async fn put_in(
        &mut self,
        monitor: &Arc<Monitor>,
        volume: &GuestVolume,
        again: bool,
    ) -> Result<(), AgentFault> {
        let id = &volume.volume;
        self.host.volumes.claim(id, &self.id)?;
        let noted = volume.clone();
        let written = self.ledger.note(move |ledger| {
            ledger.done.plugged.retain(|it| it.volume != noted.volume);
            ledger.done.plugged.push(noted);
        });
        let plugged = match tokio::join!(written, self.open_volume(volume)) {
            (Err(error), _) => Err(fault::disk("server's ledger", &error)),
            (_, Err(fault)) => Err(fault),
            (Ok(()), Ok(disk)) => {
                let plugged = monitor.plug(disk, &nodes(id), again).await;
                plugged.map_err(|error| fault::qemu("plug the volume in", &error))
            }
        };
        match plugged {
            Ok(()) => {
                tracing::info!(server = %self.id, volume = %id, "plugged in");
                self.plugs.present.insert(id.clone());
                self.host.volumes.live(id, &self.id, monitor);
                Ok(())
            }
            Err(fault) => {
                // Where QEMU keeps nothing of it, others may have it.
                if monitor.remove_nodes(&nodes(id)).await.is_ok() {
                    self.forget(id).await?;
                }
                Err(fault)
            }
        }
    }

    /// True: it is out, and QEMU has closed it.
    async fn take_out(&mut self, monitor: &Arc<Monitor>, volume: &GuestVolume) -> Result<bool, AgentFault> {
        let id = &volume.volume;
        if self.plugs.present.contains(id) {
            if self.plugs.asked.get(id).is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                self.plugs.asked.insert(id.clone(), Instant::now());
                monitor.ask_out(id).await.map_err(|error| fault::qemu("take the volume out", &error))?;
            }
            self.host.volumes.live(id, &self.id, monitor);
            return Ok(false);
        }
        {
            let _turn = self.host.volumes.take(id).await;
            monitor.remove_nodes(&nodes(id)).await.map_err(|error| fault::qemu("close the volume", &error))?;
        }
        self.forget(id).await?;
        tracing::info!(server = %self.id, volume = %id, "taken out");
        Ok(true)
    }

    /// QEMU has it open no more.
    async fn forget(&mut self, id: &VolumeId) -> Result<(), AgentFault> {
        let gone = id.clone();
        let written = self.ledger.update(move |ledger| ledger.done.plugged.retain(|it| it.volume != gone)).await;
        written.map_err(|error| fault::disk("server's ledger", &error))?;
        self.host.volumes.leave(id, &self.id);
        self.plugs.asked.remove(id);
        Ok(())
    }

    /// The guest waits, since the host has no room for what it wrote to these disks.
    pub(super) fn without_room(&mut self, disks: &[String]) -> AgentFault {
        let error = io::Error::from(io::ErrorKind::StorageFull);
        let waits = |what: &str| AgentFault {
            message: format!("The host's disk is full: the server waits until it can write to its {what} again."),
            ..fault::disk(what, &error)
        };
        let plugged = self.ledger.read().done.plugged;
        let full: Vec<VolumeId> =
            plugged.into_iter().map(|it| it.volume).filter(|id| disks.iter().any(|disk| **id == **disk)).collect();
        for id in &full {
            self.plugs.faults.insert(id.clone(), waits(&format!("volume {id}")));
        }
        // Looked at again when it goes on: then the faults are over.
        self.plugs.unsettled |= !full.is_empty();
        match full.first() {
            Some(id) => waits(&format!("volume {id}")),
            None => waits("root disk"),
        }
    }

    /// All volumes that the process was started with.
    pub(super) fn volumes_started(&mut self) {
        let Some(held) = &self.held else { return };
        for volume in self.ledger.read().done.plugged {
            self.host.volumes.live(&volume.volume, &self.id, &held.monitor);
            self.plugs.present.insert(volume.volume);
        }
        self.plugs.looked = true;
    }

    /// What is said of the volumes.
    pub(super) fn volumes_observed(&self, ledger: &Ledger) -> Vec<GuestVolumeObserved> {
        let (wanted, plugged) = (&ledger.spec.volumes, &ledger.done.plugged);
        let observed = |volume: &GuestVolume, state| GuestVolumeObserved {
            volume: volume.volume.clone(),
            attachment: volume.attachment.clone(),
            state,
            fault: self.plugs.faults.get(&volume.volume).cloned(),
        };
        let state = |volume: &GuestVolume| {
            let old = plugged.iter().find(|old| old.volume == volume.volume);
            let present = self.held.is_none() || self.plugs.present.contains(&volume.volume);
            match old {
                Some(old) if !same(volume, old) => AttachmentState::Attaching,
                None if self.held.is_some() => AttachmentState::Attaching,
                _ if present => AttachmentState::Attached,
                _ => AttachmentState::Attaching,
            }
        };
        let mut all: Vec<GuestVolumeObserved> = wanted.iter().map(|it| observed(it, state(it))).collect();
        let leaving = plugged.iter().filter(|old| !wanted.iter().any(|new| new.attachment == old.attachment));
        all.extend(leaving.map(|it| observed(it, AttachmentState::Detaching)));
        all
    }
}

impl Plugs {
    fn fails(&mut self, server: &base::ServerId, volume: &GuestVolume, fault: AgentFault) -> bool {
        if self.faults.get(&volume.volume) != Some(&fault) {
            tracing::warn!(%server, volume = %volume.volume, detail = fault.detail, "{}", fault.message);
        }
        self.faults.insert(volume.volume.clone(), fault);
        true
    }

    fn settle(&mut self, failed: bool, waits: bool, random: &dyn base::Random) {
        self.unsettled = failed || waits;
        if failed {
            self.failures = self.failures.saturating_add(1);
            self.not_before = Some(Instant::now() + Duration::from_millis(RETRY.delay_ms(self.failures, random)));
        } else {
            (self.failures, self.not_before) = (0, None);
            if !waits {
                self.faults.clear();
            }
        }
    }

    /// Tries at once again: something has changed.
    pub fn hurry(&mut self) {
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_name_is_a_slot() {
        assert_eq!((slot("vda"), slot("vdb"), slot("vdo")), (Some(0), Some(1), Some(14)));
        for bad in ["", "vd", "vdp", "vdaa", "sda", "/dev/vdb", "vdB"] {
            assert_eq!(slot(bad), None, "{bad}");
        }
    }
}
