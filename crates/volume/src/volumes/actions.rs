//! What is done to a volume by the only key of a body.

use super::create::read_size;
use super::{find, invalid, ops, upload};
use crate::document::{Attachment, By, Pool, Volume};
use crate::sight::Sight;
use crate::{Ask, Volumes, place, quota, types};
use base::{AttachmentId, Fault, Result, ServerId};
use model::volume::{Hold, Stage, Verb};
use rest::input::{self, Fields};
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Stored, Tx};

/// The most bytes of what a volume keeps of its image.
const IMAGE_METADATA: usize = 65_535;

/// The rule of each action.
fn rule(action: &str) -> Option<&'static str> {
    Some(match action {
        "os-attach" => "volume_extension:volume_actions:attach",
        "os-detach" => "volume_extension:volume_actions:detach",
        "os-force_detach" => "volume_extension:volume_admin_actions:force_detach",
        "os-reserve" => "volume_extension:volume_actions:reserve",
        "os-unreserve" => "volume_extension:volume_actions:unreserve",
        "os-begin_detaching" => "volume_extension:volume_actions:begin_detaching",
        "os-roll_detaching" => "volume_extension:volume_actions:roll_detaching",
        "os-initialize_connection" => "volume_extension:volume_actions:initialize_connection",
        "os-terminate_connection" => "volume_extension:volume_actions:terminate_connection",
        "os-extend" => "volume:extend",
        "nubo-flatten" => "volume:flatten",
        "os-volume_upload_image" => "volume_extension:volume_actions:upload_image",
        "os-retype" => "volume:retype",
        "os-set_bootable" | "os-update_readonly_flag" => "volume:update",
        "os-set_image_metadata" => "volume_extension:volume_image_metadata:set",
        "os-unset_image_metadata" => "volume_extension:volume_image_metadata:remove",
        "os-show_image_metadata" => "volume_extension:volume_image_metadata:show",
        "os-reset_status" => "volume_extension:volume_admin_actions:reset_status",
        "os-force_delete" => "volume_extension:volume_admin_actions:force_delete",
        _ => return None,
    })
}

pub async fn action(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let (name, value) = input::action(&body)?;
    let rule = rule(name).ok_or_else(|| Fault::invalid(format!("There is no such action: {name:.100}")))?;
    let (name, value, inner) = (name.to_owned(), value.clone(), state.clone());
    let (status, answer) = state
        .write(&ask, move |tx, ask| {
            let volume = find(tx, ask)?;
            ask.enforce_rule(rule, &policy::Target::project(volume.project_id.as_str()))?;
            let sight = Sight::of(tx, &volume)?;
            Doing { state: &inner, ask, sight }.run(tx, volume, &name, &value)
        })
        .await?;
    match answer {
        Value::Null => Ok(Reply::empty(status)),
        answer => ask.reply(status, &answer),
    }
}

struct Doing<'a> {
    state: &'a Volumes,
    ask: &'a Ask,
    sight: Sight,
}

/// Actions that are asked for by their name alone; Cinder does not look at what stands behind it.
const BARE: &[&str] = &[
    "os-begin_detaching",
    "os-force_delete",
    "os-reserve",
    "os-roll_detaching",
    "os-show_image_metadata",
    "os-unreserve",
];

/// Status and body of the answer.
type Answer = Result<(u16, Value)>;

impl Doing<'_> {
    fn run(&self, tx: &mut Tx, volume: Stored<Volume>, name: &str, value: &Value) -> Answer {
        let empty = json!({});
        let nothing = value.is_null() && ["os-detach", "nubo-flatten"].contains(&name);
        let value = if nothing || BARE.contains(&name) { &empty } else { value };
        let mut fields = Fields::of(name, value)?;
        let status = self.sight.status(&volume);
        let mut doc = volume.doc.clone();
        match name {
            "os-attach" => return self.attach(tx, &doc, &status, fields),
            "os-detach" | "os-force_detach" => return self.detach(tx, doc, fields, name),
            "os-reserve" => {
                let free = status == "available" || status == "in-use" && doc.multiattach;
                self.hold(&mut doc, free, &status, Hold::Attaching, tx)?;
            }
            // As in Cinder, what nobody has reserved is free already.
            "os-unreserve" if status != "attaching" => return Ok((202, Value::Null)),
            "os-roll_detaching" if status != "detaching" => return Ok((202, Value::Null)),
            "os-unreserve" | "os-roll_detaching" => self.hold(&mut doc, true, &status, Hold::None, tx)?,
            "os-begin_detaching" => self.hold(&mut doc, status == "in-use", &status, Hold::Detaching, tx)?,
            "os-initialize_connection" => return initialize(&doc, fields),
            "os-terminate_connection" => {
                fields.need("connector")?;
                fields.finish()?;
                return Ok((202, Value::Null));
            }
            "os-retype" => self.retype(tx, &mut doc, &status, fields)?,
            "nubo-flatten" => flatten(&mut doc, &status, fields)?,
            "os-extend" => self.extend(tx, &mut doc, &status, fields)?,
            "os-set_bootable" => {
                doc.bootable = input::boolean("bootable", fields.need("bootable")?)?;
                fields.finish()?;
                tx.update(&doc)?;
                return Ok((200, Value::Null));
            }
            "os-update_readonly_flag" => {
                doc.read_only = Some(input::boolean("readonly", fields.need("readonly")?)?);
                fields.finish()?;
                if status != "available" {
                    return Err(invalid(format!("its status must be available to change the flag, not {status}.")));
                }
            }
            "os-set_image_metadata" | "os-unset_image_metadata" | "os-show_image_metadata" => {
                return self.image_metadata(tx, doc, name, fields);
            }
            "os-volume_upload_image" => {
                return Ok((202, upload::begin(self.state, tx, self.ask, volume, fields)?));
            }
            "os-reset_status" => reset(tx, &mut doc, self.sight.attachments(&volume.id), fields)?,
            "os-force_delete" => {
                ops::remove(tx, volume, false, true)?;
                return Ok((202, Value::Null));
            }
            _ => {}
        }
        tx.update(&doc)?;
        Ok((202, Value::Null))
    }

    fn image_metadata(&self, tx: &mut Tx, mut doc: Volume, name: &str, mut fields: Fields<'_>) -> Answer {
        match name {
            "os-set_image_metadata" => {
                let set = input::keyed("metadata", fields.need("metadata")?, "-_:. /", IMAGE_METADATA)?;
                fields.finish()?;
                set.keys().try_for_each(|name| self.state.images.may_create(&self.ask.caller, name))?;
                doc.image_metadata.extend(set);
                let bytes: usize = doc.image_metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
                if doc.image_metadata.len() > 256 || bytes > IMAGE_METADATA {
                    return Err(Fault::invalid(format!(
                        "A volume keeps at most 256 properties of its image, of {IMAGE_METADATA} bytes together."
                    )));
                }
            }
            "os-unset_image_metadata" => {
                let key = input::text("key", fields.need("key")?, 1, 255)?;
                fields.finish()?;
                let missing = || Fault::not_found("Metadata does not exist.");
                doc.image_metadata.remove(&key).ok_or_else(missing)?;
            }
            _ => return Ok((200, json!({"metadata": doc.image_metadata}))),
        }
        tx.update(&doc)?;
        Ok((200, if name == "os-set_image_metadata" { json!({"metadata": doc.image_metadata}) } else { Value::Null }))
    }

    fn hold(&self, doc: &mut Volume, fits: bool, status: &str, hold: Hold, tx: &Tx) -> Result<()> {
        if !fits {
            return Err(invalid(format!("its status is {status}, from which this cannot be done.")));
        }
        doc.hold = hold;
        doc.held_since = (hold != Hold::None).then(|| tx.now());
        Ok(())
    }

    fn attach(&self, tx: &mut Tx, doc: &Volume, status: &str, mut fields: Fields<'_>) -> Answer {
        let server = fields.text_or_null("instance_uuid", 1, 255)?;
        let host = fields.text_or_null("host_name", 1, 255)?;
        let device = fields.text_or_null("mountpoint", 1, 255)?;
        let device = device.ok_or_else(|| Fault::invalid("'mountpoint' is a required property"))?;
        let mode = fields.text_or_null("mode", 1, 16)?.unwrap_or_else(|| "rw".to_owned());
        fields.finish()?;
        if !["rw", "ro"].contains(&mode.as_str()) {
            return Err(Fault::invalid(format!(
                "Invalid attaching mode '{mode}'. Attaching mode should be 'rw' or 'ro'."
            )));
        }
        match &server {
            Some(id) if !base::is_uuid(id) => return Err(Fault::invalid(format!("Invalid UUID: {id}"))),
            None if host.is_none() => {
                return Err(Fault::invalid(
                    "Invalid request to attach volume to an invalid target: name an instance or a host.",
                ));
            }
            _ => {}
        }
        if !["available", "attaching"].contains(&status) {
            return Err(invalid(format!("its status must be available or attaching to attach it, not {status}.")));
        }
        if !self.sight.attachments(&doc.id).is_empty() {
            return Err(invalid(format!("volume {} already attached", doc.id)));
        }
        if doc.read_only == Some(true) && mode != "ro" {
            return Err(Fault::invalid(format!(
                "Invalid attaching mode '{mode}' for volume {}: it is read-only.",
                doc.id
            )));
        }
        let attachment = Attachment {
            id: AttachmentId::new(tx.uuid()),
            project_id: doc.project_id.clone(),
            volume: doc.id.clone(),
            by: By::Client,
            server: server.map(ServerId::new),
            host_name: host,
            device: Some(device),
            mode,
            stage: Stage::Attached,
            told: true,
            connector: None,
            attached_at: Some(tx.now()),
            since: tx.now(),
            generation: 0,
            overdue: false,
            why: None,
            delete_on_termination: false,
            boot_index: None,
            tag: None,
            bus: None,
        };
        tx.create(&attachment)?;
        tx.update(&Volume { hold: Hold::None, held_since: None, ..doc.clone() })?;
        Ok((202, Value::Null))
    }

    fn detach(&self, tx: &mut Tx, doc: Volume, mut fields: Fields<'_>, name: &str) -> Answer {
        let wanted = fields.text_or_null("attachment_id", 1, 255)?;
        if name == "os-force_detach" {
            fields.opt("connector");
        }
        fields.finish()?;
        let all = self.sight.attachments(&doc.id);
        let found: Vec<_> = all.iter().filter(|it| wanted.as_ref().is_none_or(|id| it.id.as_str() == id)).collect();
        match (found.as_slice(), &wanted) {
            ([], Some(id)) => return Err(Fault::not_found(format!("Volume attachment {id:.255} could not be found."))),
            ([_, _, ..], None) => {
                return Err(invalid("Detach volume failed: More than one attachment, but no attachment_id provided."));
            }
            // What is not attached is detached already, as in Cinder.
            _ => {}
        }
        for attachment in found {
            if attachment.by == By::Server {
                let server = attachment.server.clone().unwrap_or_default();
                return Err(invalid(format!(
                    "server {server} has it: {name} is not how it is taken away; detach it there."
                )));
            }
            tx.delete::<Attachment>(&attachment.id)?;
        }
        // By force an administrator says that all is well again.
        let forced = doc.forced.clone().filter(|_| name != "os-force_detach");
        tx.update(&Volume { hold: Hold::None, held_since: None, forced, ..doc })?;
        Ok((202, Value::Null))
    }

    /// The type is another one, on the same host: to another one no volume moves yet.
    fn retype(&self, tx: &mut Tx, doc: &mut Volume, status: &str, mut fields: Fields<'_>) -> Result<()> {
        let named = input::text("new_type", fields.need("new_type")?, 1, 255)?;
        let policy = fields.text_or_null("migration_policy", 1, 32)?.unwrap_or_else(|| "never".to_owned());
        fields.finish()?;
        if !["never", "on-demand"].contains(&policy.as_str()) {
            return Err(Fault::invalid("migration_policy must be 'on-demand' or 'never'."));
        }
        if !["available", "in-use"].contains(&status) {
            return Err(invalid(format!("its status must be available or in-use to retype it, not {status}.")));
        }
        let kind = types::wanted(tx, self.ask, Some(&named))?;
        if kind.id == doc.volume_type {
            return Err(Fault::invalid("Invalid input received: New volume_type same as original."));
        }
        if let Some(host) = &doc.host {
            let pool = tx.need::<Pool>(host)?;
            place::suits(&pool, &kind.extra_specs).map_err(|why| {
                invalid(format!(
                    "its host does not suit the type {}: {why}; no volume moves to another host yet.",
                    kind.name
                ))
            })?;
        }
        quota::release_volume(tx, doc)?;
        doc.volume_type = kind.doc.id;
        quota::charge_volume(tx, doc)
    }

    fn extend(&self, tx: &mut Tx, doc: &mut Volume, status: &str, mut fields: Fields<'_>) -> Result<()> {
        let size = read_size("new_size", fields.need("new_size")?)?;
        fields.finish()?;
        let in_use = status == "in-use";
        if in_use && self.ask.since(42) {
            self.ask.enforce_rule("volume:extend_attached_volume", &self.ask.own())?;
        } else if status != "available" {
            return Err(invalid(format!(
                "Volume {} status must be 'available' to extend, currently {status}.",
                doc.id
            )));
        }
        if size <= doc.size_gib {
            return Err(Fault::invalid(format!(
                "Invalid input received: New size for extend must be greater than current size. (current: {}, extended: {size}).",
                doc.size_gib
            )));
        }
        let by = size - doc.size_gib;
        quota::charge_growth(tx, doc, by)?;
        if let Some(host) = &doc.host {
            let pool = tx.need::<Pool>(host)?;
            let most = place::capacity(self.state, &pool);
            match tx.charge(&place::scope(host), place::ROOM, by as i64, Some(most)) {
                Err(store::Error::Quota { .. }) => {
                    return Err(Fault::too_large(format!(
                        "The host of volume {} has no room for {by} GiB more.",
                        doc.id
                    )));
                }
                charged => drop(charged?),
            }
        }
        doc.size_gib = size;
        doc.ask(Verb::Extend, tx.now());
        let (user, request) = (self.ask.caller.user_id(), &self.ask.request_id);
        self.state
            .tell(tx, &doc.id, |guests, tx, server| guests.volume_grows(tx, server, user.as_str(), request.as_str()))
    }
}

/// Its host makes it stand on nothing but itself, however long that takes; it is what it is meanwhile.
fn flatten(doc: &mut Volume, status: &str, fields: Fields<'_>) -> Result<()> {
    fields.finish()?;
    if !["available", "in-use"].contains(&status) {
        return Err(invalid(format!("its status must be available or in-use to flatten it, not {status}.")));
    }
    if !doc.flatten {
        doc.flatten = true;
        doc.touch();
    }
    Ok(())
}

/// How a host reaches it: the files of a volume are reached from their own host alone.
pub fn connection(volume: &Volume) -> Value {
    json!({
        "driver_volume_type": "nubo",
        "data": {
            "volume_id": volume.id,
            "host": volume.host,
            "access_mode": if volume.read_only == Some(true) { "ro" } else { "rw" },
            "encrypted": false,
            "discard": true,
        },
    })
}

fn initialize(volume: &Volume, mut fields: Fields<'_>) -> Answer {
    let connector = fields.need("connector")?;
    fields.finish()?;
    let mut info = connection(volume);
    info["enforce_multipath"] = json!(connector.get("enforce_multipath").and_then(Value::as_bool).unwrap_or(false));
    Ok((200, json!({"connection_info": info})))
}

/// What `os-reset_status` takes, as Cinder does.
const STATUSES: &[&str] = &[
    "creating",
    "available",
    "deleting",
    "error",
    "error_deleting",
    "error_managing",
    "managing",
    "attaching",
    "in-use",
    "detaching",
    "maintenance",
    "restoring-backup",
    "error_restoring",
    "reserved",
    "awaiting-transfer",
    "backing-up",
    "error_backing-up",
    "error_extending",
    "downloading",
    "uploading",
    "retyping",
    "extending",
];
const ATTACH_STATUSES: &[&str] = &["attached", "detached"];
const MIGRATION_STATUSES: &[&str] = &["migrating", "error", "success", "completing", "none", "starting"];

fn said(fields: &mut Fields<'_>, key: &'static str, known: &[&str]) -> Result<Option<String>> {
    let said = fields.text_or_null(key, 0, 64)?.filter(|said| !said.is_empty()).map(|said| said.to_lowercase());
    match said.as_deref().filter(|said| !known.contains(said)) {
        Some(other) => Err(Fault::invalid(format!("{key}: {other} is not one of {}.", known.join(", ")))),
        None => Ok(said),
    }
}

/// What an administrator says, goes; `available` and `in-use` mean: what it really is.
fn reset(tx: &mut Tx, doc: &mut Volume, attached: &[Stored<Attachment>], mut fields: Fields<'_>) -> Result<()> {
    let status = said(&mut fields, "status", STATUSES)?;
    let attach = said(&mut fields, "attach_status", ATTACH_STATUSES)?;
    let migration = said(&mut fields, "migration_status", MIGRATION_STATUSES)?;
    fields.finish()?;
    match status.as_deref() {
        None if attach.is_none() && migration.is_none() => {
            return Err(Fault::invalid("Must specify 'status', 'attach_status' or 'migration_status' for update."));
        }
        Some("deleting") => return Err(Fault::invalid("Cannot reset-state to deleting")),
        Some("in-use") if attached.is_empty() => {
            return Err(Fault::invalid("Cannot reset-state to in-use because volume does not have any attachments."));
        }
        _ => {}
    }
    if attach.as_deref() == Some("detached") {
        if let Some(server) = attached.iter().find(|it| it.by == By::Server).and_then(|it| it.server.as_ref()) {
            return Err(invalid(format!("server {server} has it: detach it there.")));
        }
        for attachment in attached {
            tx.delete::<Attachment>(&attachment.id)?;
        }
    }
    let Some(status) = status else { return Ok(()) };
    // No image is made of it any more: its job ends.
    doc.uploading = None;
    (doc.hold, doc.held_since) = (Hold::None, None);
    doc.forced = (!["available", "in-use"].contains(&status.as_str())).then_some(status);
    Ok(())
}
