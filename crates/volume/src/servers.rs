//! The volumes of this cloud's own servers.
//!
//! ```text
//!   attach -> Attachment: attaching --host: attached--> attached
//!   detach -> detaching --host: the guest has it no more--> gone, the volume is free
//!   server deleted -> Attachment gone; Leaving: until its guest, which rests, has let go of the volume
//! ```
//!
//! Never: a volume that is free while a guest may still write into it; an attachment without a server.

use crate::document::{Attachment, By, Leaving, Pool, Snapshot, Volume};
use crate::snapshots::{self, Said};
use crate::volumes::{self, Wanted, invalid};
use crate::{Ask, Volumes, messages, place, sight, trash};
use agent_api::{AttachmentState, DiskBus, GuestVolumeObserved};
use base::{AttachmentId, Fault, HostName, Result, ServerId, VolumeId};
use contract::{Caller, ForServer, ServerVolume, VolumeFrom, VolumeKept, WantedVolume};
use model::volume::{Hold, Stage};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Change, Document, Query, Reader, Stored, Tx};

/// The slots that a guest has for disks: `vda` to `vdo`.
const SLOTS: std::ops::RangeInclusive<char> = 'a'..='o';

fn slot(letter: char) -> String {
    format!("vd{letter}")
}

fn shown(attachment: &Attachment, volume: Option<&Volume>) -> ServerVolume {
    ServerVolume {
        attachment: attachment.id.clone(),
        volume: attachment.volume.clone(),
        server: attachment.server.clone().unwrap_or_default(),
        device: attachment.device.as_deref().unwrap_or_default().trim_start_matches("/dev/").to_owned(),
        boot_index: attachment.boot_index,
        bus: if attachment.bus.as_deref() == Some("scsi") { DiskBus::Scsi } else { DiskBus::Virtio },
        tag: attachment.tag.clone(),
        read_only: volume.is_some_and(|volume| volume.read_only == Some(true)),
        delete_on_termination: attachment.delete_on_termination,
        stage: attachment.stage,
    }
}

/// What a server has, in the order of the devices.
fn of(reader: &mut Reader, server: &ServerId) -> Result<Vec<Stored<Attachment>>> {
    let mut found = reader.list::<Attachment>(Query::index("server", server.as_str()))?;
    found.retain(|attachment| attachment.by == By::Server);
    found.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(found)
}

fn one(reader: &mut Reader, server: &ServerId, volume: &VolumeId) -> Result<Stored<Attachment>> {
    let missing = || Fault::not_found(format!("Instance {server} is not attached to volume {volume}"));
    of(reader, server)?.into_iter().find(|it| it.volume == *volume).ok_or_else(missing)
}

/// The host says otherwise of an attachment than is known.
fn settle(tx: &mut Tx, attachment: &Attachment, stage: Stage) -> Result<()> {
    let attached_at = if stage == Stage::Attached { Some(tx.now()) } else { attachment.attached_at };
    let doc = Attachment { stage, attached_at, since: tx.now(), overdue: false, why: None, ..attachment.clone() };
    tx.update(&doc)?;
    Ok(())
}

/// The guest has none of it any more.
fn end(tx: &mut Tx, attachment: &Attachment) -> Result<()> {
    tx.delete::<Attachment>(&attachment.id)?;
    match tx.get::<Volume>(&attachment.volume)? {
        // What a client had announced is done.
        Some(volume) if volume.hold == Hold::Detaching => {
            tx.update(&Volume { hold: Hold::None, held_since: None, ..volume.doc })?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn seen(tx: &mut Tx, attachment: &Attachment, generation: u64, said: Option<&GuestVolumeObserved>) -> Result<()> {
    let there = said.is_some_and(|said| said.state == AttachmentState::Attached);
    match (attachment.stage, said) {
        (Stage::Detaching, None) if generation >= attachment.generation => return end(tx, attachment),
        (Stage::Reserved | Stage::Attaching, _) if there => return settle(tx, attachment, Stage::Attached),
        (Stage::Attached, Some(said)) if said.state == AttachmentState::Attaching => {
            return settle(tx, attachment, Stage::Attaching);
        }
        (Stage::Attached, None) if generation >= attachment.generation => {
            return settle(tx, attachment, Stage::Attaching);
        }
        _ => {}
    }
    let why = said.and_then(|said| said.fault.as_ref()).map(|fault| fault.message.clone());
    if why != attachment.why {
        if let Some(why) = &why {
            messages::say(tx, &attachment.project_id, &attachment.volume, messages::unfinished(attachment), why)?;
        }
        tx.update(&Attachment { why, ..attachment.clone() })?;
    }
    Ok(())
}

impl Volumes {
    /// The volume of an attachment: a new one, or one that is there and free.
    fn volume_for(&self, tx: &mut Tx, ask: ForServer<'_>, wanted: &WantedVolume) -> Result<Volume> {
        let now = tx.now();
        let by = |rule| Ask::inside(self, ask.caller, rule, now);
        if let VolumeFrom::Volume(id) = &wanted.from {
            return self.take_over(tx, &by("volume:attachment_create"), ask, id, wanted);
        }
        let mut new = Wanted {
            name: Some(String::new()),
            size_gib: wanted.size_gib,
            volume_type: wanted.volume_type.clone(),
            goes_with: Some(ask.server.clone()),
            ..Wanted::default()
        };
        match &wanted.from {
            VolumeFrom::Image(image) => new.image = Some(image.to_string()),
            VolumeFrom::Snapshot(snapshot) => new.snapshot = Some(snapshot.to_string()),
            VolumeFrom::Blank | VolumeFrom::Volume(_) => {}
        }
        let asked = by("volume:create");
        asked.enforce_own()?;
        volumes::make(self, tx, &asked, &new)
    }

    fn take_over(
        &self,
        tx: &mut Tx,
        by: &Ask,
        ask: ForServer<'_>,
        id: &VolumeId,
        wanted: &WantedVolume,
    ) -> Result<Volume> {
        let volume = volumes::of(tx, by, id)?;
        if of(tx, ask.server)?.iter().any(|it| it.volume == *id) {
            return Err(invalid(format!("volume {id} already attached")));
        }
        let status = sight::status_of(tx, &volume)?;
        if status != "available" {
            return Err(invalid(format!(
                "Volume {id} status must be available or downloading to reserve, but the current status is {status}."
            )));
        }
        if wanted.boot_index == Some(0) && !volume.bootable {
            return Err(Fault::invalid(format!("Block Device {id} is not bootable.")));
        }
        if ask.host.is_some_and(|host| volume.host.as_ref() != Some(host)) {
            return Err(invalid(format!(
                "volume {id} lies on another host than server {}, and no back-end of this cloud carries a volume to \
                 another host yet.",
                ask.server
            )));
        }
        Ok(volume.doc)
    }

    fn attach_one(
        &self,
        tx: &mut Tx,
        ask: ForServer<'_>,
        wanted: &WantedVolume,
        taken: &mut BTreeSet<String>,
    ) -> Result<(ServerVolume, Volume)> {
        let volume = self.volume_for(tx, ask, wanted)?;
        let root = wanted.boot_index == Some(0);
        let device = match &wanted.device {
            _ if root => slot('a'),
            Some(device) if taken.contains(device) => {
                return Err(Fault::conflict(format!("The supplied device path (/dev/{device}) is in use.")));
            }
            Some(device) => device.clone(),
            None => {
                let free = SLOTS.skip(1).map(slot).find(|slot| !taken.contains(slot));
                free.ok_or_else(|| Fault::forbidden("The maximum allowed number of disk devices (15) to attach to a single instance has been exceeded."))?
            }
        };
        taken.insert(device.clone());
        let attachment = Attachment {
            id: AttachmentId::new(tx.uuid()),
            project_id: volume.project_id.clone(),
            volume: volume.id.clone(),
            by: By::Server,
            server: Some(ask.server.clone()),
            host_name: volume.host.as_ref().map(ToString::to_string),
            device: Some(format!("/dev/{device}")),
            mode: if volume.read_only == Some(true) { "ro" } else { "rw" }.to_owned(),
            stage: Stage::Attaching,
            told: true,
            connector: None,
            attached_at: None,
            since: tx.now(),
            generation: ask.generation,
            overdue: false,
            why: None,
            delete_on_termination: wanted.delete_on_termination,
            boot_index: wanted.boot_index,
            tag: wanted.tag.clone(),
            bus: Some(wanted.bus.name().to_owned()),
        };
        tx.create(&attachment)?;
        Ok((shown(&attachment, Some(&volume)), volume))
    }

    /// What of a server's volumes has no host yet, and where the rest is.
    fn whereabouts(&self, reader: &mut Reader, server: &ServerId) -> Result<(Vec<Volume>, BTreeSet<HostName>)> {
        let (mut homeless, mut hosts) = (Vec::new(), BTreeSet::new());
        for attachment in of(reader, server)? {
            let Some(volume) = reader.get::<Volume>(&attachment.volume)? else { continue };
            match volume.host.clone() {
                Some(host) => drop(hosts.insert(host)),
                None => homeless.push(volume.doc),
            }
        }
        Ok((homeless, hosts))
    }
}

impl contract::Volumes for Volumes {
    fn attach(&self, tx: &mut Tx, ask: ForServer<'_>, wanted: &[WantedVolume]) -> Result<Vec<ServerVolume>> {
        let mut taken: BTreeSet<String> = of(tx, ask.server)?.iter().map(|it| shown(it, None).device).collect();
        if ask.has_root || wanted.iter().any(|it| it.boot_index == Some(0)) {
            taken.insert(slot('a'));
        }
        let (mut made, mut hosts) = (Vec::new(), BTreeSet::new());
        // Who names a device gets it; the others take what is left.
        let (named, free): (Vec<_>, Vec<_>) = wanted.iter().partition(|it| it.device.is_some());
        for one in named.into_iter().chain(free) {
            let (attached, volume) = self.attach_one(tx, ask, one, &mut taken)?;
            hosts.extend(volume.host);
            made.push(attached);
        }
        if hosts.len() > 1 {
            return Err(Fault::invalid(
                "Block Device Mapping is Invalid: the volumes lie on different hosts, and no back-end of this cloud \
                 carries a volume to another host yet.",
            ));
        }
        Ok(made)
    }

    fn detach(&self, tx: &mut Tx, server: &ServerId, volume: &VolumeId, generation: u64, on_host: bool) -> Result<()> {
        let attachment = one(tx, server, volume)?;
        if tx.get::<Volume>(volume)?.is_some_and(|volume| volume.uploading.is_some()) {
            return Err(invalid(format!(
                "Unable to detach volume {volume}: an image is made of it. Wait until it is in-use, or delete the image."
            )));
        }
        if !on_host {
            return end(tx, &attachment);
        }
        let since = tx.now();
        let doc =
            Attachment { stage: Stage::Detaching, since, generation, overdue: false, why: None, ..attachment.doc };
        tx.update(&doc)?;
        Ok(())
    }

    fn keep_or_delete(&self, tx: &mut Tx, server: &ServerId, volume: &VolumeId, delete: bool) -> Result<()> {
        let attachment = one(tx, server, volume)?;
        tx.update(&Attachment { delete_on_termination: delete, ..attachment.doc })?;
        Ok(())
    }

    fn of_server(&self, reader: &mut Reader, server: &ServerId) -> Result<Vec<ServerVolume>> {
        let mut list = Vec::new();
        for attachment in of(reader, server)? {
            let volume = reader.get::<Volume>(&attachment.volume)?;
            list.push(shown(&attachment, volume.as_ref().map(|volume| &volume.doc)));
        }
        Ok(list)
    }

    fn servers_touched(&self, change: &Change) -> Result<Option<Vec<ServerId>>> {
        if change.kind != Attachment::KIND {
            return Ok(Some(Vec::new()));
        }
        let attachment = change.document::<Attachment>()?;
        Ok(attachment.map(|it| it.doc.server.filter(|_| it.doc.by == By::Server).into_iter().collect()))
    }

    fn hosts_for(&self, reader: &mut Reader, server: &ServerId) -> Result<Option<BTreeSet<HostName>>> {
        let (homeless, mut hosts) = self.whereabouts(reader, server)?;
        if homeless.is_empty() {
            return Ok((!hosts.is_empty()).then_some(hosts));
        }
        let needed: u64 = homeless.iter().map(|volume| volume.size_gib).sum();
        let (bound, mut fitting) = (std::mem::take(&mut hosts), BTreeSet::new());
        for pool in reader.list::<Pool>(Query::all())? {
            let mut fits = bound.is_empty() || bound.len() == 1 && bound.contains(&pool.host);
            for volume in &homeless {
                let only = place::bound_to(reader, volume)?;
                fits = fits && place::unfit(self, reader, &pool, volume, only.as_ref(), needed)?.is_none();
            }
            if fits {
                fitting.insert(pool.doc.host);
            }
        }
        Ok(Some(fitting))
    }

    fn settle(&self, tx: &mut Tx, server: &ServerId, host: &HostName) -> Result<()> {
        let (homeless, _) = self.whereabouts(tx, server)?;
        for mut volume in homeless {
            place::settle_on(self, tx, &mut volume, host.clone())?;
            (volume.passing_since, volume.unplaceable) = (Some(tx.now()), None);
            tx.update(&volume)?;
        }
        for attachment in of(tx, server)? {
            tx.update(&Attachment { host_name: Some(host.to_string()), ..attachment.doc })?;
        }
        Ok(())
    }

    fn let_go(&self, tx: &mut Tx, server: &ServerId, resting: Option<u64>) -> Result<()> {
        if resting.is_none() {
            not_awaited(tx, server)?;
        }
        for attachment in of(tx, server)? {
            end(tx, &attachment)?;
            let Some(volume) = tx.get::<Volume>(&attachment.volume)? else { continue };
            let kept = volume.transfer.is_some()
                || volume.uploading.is_some()
                || tx.count::<Snapshot>(Query::index("volume", volume.id.as_str()).limit(1))? > 0;
            if attachment.delete_on_termination && !kept {
                trash::lay(tx, volume)?;
                continue;
            }
            if volume.goes_with.is_some() {
                tx.update(&Volume { goes_with: None, ..volume.doc.clone() })?;
            }
            if let Some(generation) = resting.filter(|_| volume.host.is_some()) {
                let (id, project_id) = (volume.id.clone(), volume.project_id.clone());
                let server = server.clone();
                tx.put(&Leaving { id, project_id, server, generation, since: tx.now(), overdue: false })?;
            }
        }
        Ok(())
    }

    fn keep_as_they_are(
        &self,
        tx: &mut Tx,
        caller: &Arc<Caller>,
        server: &ServerId,
        name: &str,
    ) -> Result<Vec<VolumeKept>> {
        let ask = Ask::inside(self, caller, "volume:create_snapshot", tx.now());
        let mut kept = Vec::new();
        for attachment in of(tx, server)? {
            let Some(volume) = tx.get::<Volume>(&attachment.volume)? else { continue };
            ask.allow(&volume.project_id, || Fault::not_found(format!("Volume {} could not be found.", volume.id)))?;
            let status = sight::status_of(tx, &volume)?;
            if status != "in-use" {
                return Err(Fault::conflict(format!(
                    "Volume {} of server {server} is {status}: wait until it is in-use.",
                    volume.id
                )));
            }
            let of = shown(&attachment, Some(&volume));
            let said = Said { name: Some(format!("snapshot for {name}")), ..Said::default() };
            let (size_gib, image_metadata) = (volume.size_gib, volume.image_metadata.clone());
            let snapshot = snapshots::keep(tx, &ask, volume.doc, said)?.id;
            kept.push(VolumeKept { snapshot, size_gib, of, image_metadata });
        }
        Ok(kept)
    }

    fn guest_seen(
        &self,
        tx: &mut Tx,
        server: &ServerId,
        generation: u64,
        volumes: &[GuestVolumeObserved],
    ) -> Result<()> {
        let attached = of(tx, server)?;
        for attachment in &attached {
            seen(tx, attachment, generation, volumes.iter().find(|said| said.attachment == attachment.id))?;
        }
        for leaving in tx.list::<Leaving>(Query::index("server", server.as_str()))? {
            let said = volumes.iter().any(|said| said.volume == leaving.id);
            let back = attached.iter().any(|attachment| attachment.volume == leaving.id);
            if back || !said && generation >= leaving.generation {
                tx.delete::<Leaving>(&leaving.id)?;
            }
        }
        Ok(())
    }

    fn guest_gone(&self, tx: &mut Tx, server: &ServerId) -> Result<()> {
        for attachment in of(tx, server)? {
            match attachment.stage {
                Stage::Detaching => end(tx, &attachment)?,
                Stage::Attached => settle(tx, &attachment, Stage::Attaching)?,
                Stage::Reserved | Stage::Attaching => {}
            }
        }
        not_awaited(tx, server)
    }
}

/// The guest has gone: no volume waits for it, nor one that it left before its server came back from the trash.
fn not_awaited(tx: &mut Tx, server: &ServerId) -> Result<()> {
    for leaving in tx.list::<Leaving>(Query::index("server", server.as_str()))? {
        tx.delete::<Leaving>(&leaving.id)?;
    }
    Ok(())
}
