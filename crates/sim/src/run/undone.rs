//! Something is deleted, rests unseen, and comes back as it was.

use super::past::{difference, without};
use super::{DELETED, History, brief};
use crate::calls::ADMIN;
use crate::check::{Broken, Held};
use crate::client::{Answer, Ask, send};
use crate::dice::Dice;
use crate::promises;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The service of a class, and the path of its collection.
const CLASSES: [(&str, &str); 12] = [
    ("servers", "/compute/v2.1/servers"),
    ("servers", "/compute/v2.1/servers"),
    ("servers", "/compute/v2.1/servers"),
    ("ports", "/network/v2.0/ports"),
    ("ports", "/network/v2.0/ports"),
    ("networks", "/network/v2.0/networks"),
    ("subnets", "/network/v2.0/subnets"),
    ("routers", "/network/v2.0/routers"),
    ("floatingips", "/network/v2.0/floatingips"),
    ("security-groups", "/network/v2.0/security-groups"),
    ("images", "/image/v2/images"),
    ("images", "/image/v2/images"),
];

/// What is observed anew, and what says that something happened to a thing.
const MOVES: &[&str] = &[
    "updated_at",
    "updated",
    "revision_number",
    "status",
    "fault",
    "progress",
    "OS-EXT-STS:task_state",
    "OS-EXT-STS:vm_state",
    "OS-EXT-STS:power_state",
    "OS-SRV-USG:launched_at",
    "host_status",
];

/// The same of documents.
const DOCUMENT_MOVES: &[&str] = &[
    "revision",
    "generation",
    "verb",
    "verb_generation",
    "passing_since",
    "overdue",
    "stop_reason",
    "since",
    "stage",
    "attached_at",
    "why",
];

/// A job went with its owner: an image that comes back waits for a client's bytes, and of a server that comes back no
/// image is made.
const OF_JOBS: &[&str] = &["awaits", "transfer", "imaging", "uploading"];

type Documents = BTreeMap<String, BTreeMap<String, Value>>;

/// What was deleted past the trash is seen until its host has let go of it, and deleting it again does not make it rest.
fn is_going(shown: &Value) -> bool {
    shown["server"]["OS-EXT-STS:task_state"] == "deleting"
        || ["volume", "snapshot"].iter().any(|class| shown[*class]["status"] == "deleting")
}

const VOLUMES: &str = "os-extended-volumes:volumes_attached";

/// Volumes that a server was about to lose: they may have left it before its deletion was committed.
fn leaving(shown: &Value, documents: &Documents, server: &str) -> Vec<String> {
    let ids = shown["server"][VOLUMES].as_array().into_iter().flatten().filter_map(|it| it["id"].as_str());
    let attachments = documents.get("volume_attachment");
    let stays = |id: &&str| {
        attachments.into_iter().flatten().any(|(_, attachment)| {
            attachment["server"] == server && attachment["volume"] == *id && attachment["stage"] != "detaching"
        })
    };
    ids.filter(|id| !stays(id)).map(str::to_owned).collect()
}

impl History<'_> {
    /// What a look says; none where nobody answers.
    async fn peek(&mut self, path: &str, actor: usize) -> Option<Answer> {
        self.world.up().await;
        self.tally.calls += 1;
        let answer = send(&self.world, &self.tokens, &self.template.actors, &Ask::look(actor, path)).await;
        answer.filter(|answer| answer.status < 500)
    }

    pub(super) async fn delete_and_undo(&mut self, dice: &Dice) -> Held {
        let ((class, collection), actor) = (dice.of(CLASSES), dice.of([1, 1, 2]));
        let Some(thing) = self.known.pick(dice, class, actor, true).filter(|thing| thing.actor == Some(actor)) else {
            return Ok(());
        };
        let path = format!("{collection}/{}", thing.id);
        self.drain().await?;
        self.tally.operations.entry(DELETED.to_owned()).or_default().0 += 1;
        let Some(before) = self.peek(&path, actor).await.filter(|answer| answer.status == 200) else { return Ok(()) };
        if is_going(&before.json) {
            return Ok(());
        }
        self.refresh()?;
        let documents = self.mirror.everything();
        let began = Instant::now();
        let delete = Ask { method: Method::DELETE, operation: "sim:delete", ..Ask::look(actor, path.clone()) };
        let deleted = self.go(delete).await?;
        let Some(deleted) = deleted.filter(Answer::is_ok) else { return Ok(()) };
        self.look()?;
        if self.world.retention_s == 0 {
            return Ok(());
        }
        self.is_unseen(class, &path, actor).await?;
        let wait = dice.of([0, 0, 200, 4_000]);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let undo = format!("/nubo/v1/undo/{}", deleted.request_id);
        let undo = Ask { method: Method::POST, operation: "nubo:undo", ..Ask::look(actor, undo) };
        let Some(undone) = self.go(undo).await? else { return Ok(()) };
        self.look()?;
        if !undone.is_ok() {
            let text = String::from_utf8_lossy(&undone.body).into_owned();
            // A quota that was lowered below what is used refuses rightly.
            let short = text.contains("quota ") || text.contains("are used");
            // What was deleted was part of another project's, such as a floating address on this one's port.
            let shared = undone.status == 403 && text.contains("of other projects");
            let expired = short || shared || self.world.retention_s < 60 || self.world.was_troubled(began);
            let what = format!("{path}: {} {}", undone.status, brief(&undone.body));
            return if expired { Ok(()) } else { Err(Broken::new("what was just deleted can be brought back", what)) };
        }
        self.tally.operations.entry(DELETED.to_owned()).or_default().1 += 1;
        self.are_back(&undone, &documents)?;
        let Some(after) = self.peek(&path, actor).await else { return Ok(()) };
        let (mut before, mut after) = (without(before.json, MOVES), without(after.json, MOVES));
        let id = path.rsplit_once('/').map_or("", |(_, id)| id);
        for volume in leaving(&before, &documents, id) {
            for shown in [&mut before, &mut after] {
                if let Some(volumes) = shown["server"][VOLUMES].as_array_mut() {
                    volumes.retain(|it| it["id"] != volume.as_str());
                }
            }
        }
        let differs = difference("", &before, &after);
        differs
            .map_or(Ok(()), |what| Err(Broken::new("an undo brings back what was deleted", format!("{path}: {what}"))))
    }

    /// Whoever asks hears that it is not there.
    async fn is_unseen(&mut self, class: &str, path: &str, actor: usize) -> Held {
        for asker in [actor, ADMIN] {
            let Some(answer) = self.peek(path, asker).await else { continue };
            if answer.status != 404 {
                let what = format!("{class}: {path}: {} {}", answer.status, brief(&answer.body));
                return Err(Broken::new("what rests is not seen", what));
            }
        }
        let (list, id) = path.rsplit_once('/').unwrap_or_default();
        let Some(answer) = self.peek(list, actor).await else { return Ok(()) };
        if String::from_utf8_lossy(&answer.body).contains(&format!("\"id\":\"{id}\"")) {
            return Err(Broken::new("what rests is not seen", format!("{class}: {path} is listed")));
        }
        Ok(())
    }

    /// The documents that came back are those that went.
    fn are_back(&self, undone: &Answer, before: &Documents) -> Held {
        for change in undone.json["undo"]["changes"].as_array().into_iter().flatten() {
            let (kind, id) = (change["kind"].as_str().unwrap_or_default(), change["id"].as_str().unwrap_or_default());
            if change["what"] != "brought back" || kind.ends_with("_observed") {
                continue;
            }
            let earlier = before.get(kind).and_then(|documents| documents.get(id)).cloned().unwrap_or_default();
            let now = self.mirror.get(kind, id).cloned().unwrap_or_default();
            let had_job = earlier["awaits"].is_string() || earlier["imaging"].is_object() || earlier["uploading"].is_string();
            let gone = if had_job { OF_JOBS } else { &[] };
            let stripped = |value| without(without(without(value, DOCUMENT_MOVES), MOVES), gone);
            if let Some(what) = difference("", &stripped(earlier), &stripped(now)) {
                return Err(Broken::new("an undo brings back what was deleted", format!("{kind} {id}: {what}")));
            }
        }
        Ok(())
    }

    /// What an undo brought back is there for clients again.
    pub(super) fn hear_of_undo(&mut self, actor: usize, answer: &Answer) {
        for change in answer.json["undo"]["changes"].as_array().into_iter().flatten() {
            let class = change["kind"].as_str().and_then(promises::class_of);
            if let Some(class) = class.filter(|_| change["what"] == "brought back") {
                self.known.learn(class, &json!({"id": change["id"]}), Some(actor), false);
            }
        }
    }
}
