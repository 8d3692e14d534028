//! Messages to users: why something that was asked for did not come.

use crate::document::{Attachment, Volume, VolumeObserved};
use crate::listing::Listing;
use crate::{Ask, Volumes, table};
use base::{Fault, ProjectId, Result, Timestamp};
use model::volume::{Stage, Verb};
use rest::{Call, Reply, Route};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document, Query, Reader, Stored, Tx};

/// How long a message is kept at least.
const KEPT_S: i64 = 30 * 24 * 3600;
/// The most messages that a project keeps; then the oldest go.
const MOST: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub id: String,
    pub project_id: ProjectId,
    pub resource_type: String,
    pub resource_id: String,
    pub event_id: String,
    pub user_message: String,
    pub request_id: String,
    pub until: Timestamp,
}

impl Document for Message {
    const KIND: &'static str = "volume_message";
    const TRASH: bool = false;
    const UNDO: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
}

/// What has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    NoHost,
    NotCreated,
    NotExtended,
    NotAttached,
    NotDetached,
    NoImage,
    NoSnapshot,
    /// Of a volume that was there: Cinder has no number for what befalls it.
    Unknown,
}

impl Event {
    /// Action and detail by their numbers in Cinder's `message_field.py`, and what its clients show for both.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Event::NoHost => ("001", "003", "schedule allocate volume:Could not find any available weighted backend."),
            Event::NotCreated => {
                ("008", "012", "create volume from backend storage:Driver failed to create the volume.")
            }
            Event::NotExtended => ("007", "010", "extend volume:Volume Driver failed to extend volume."),
            Event::NotAttached => ("002", "021", "attach volume:Failed to attach volume."),
            Event::NotDetached => ("004", "022", "update attachment:Failed to detach volume."),
            Event::NoImage => ("003", "004", "copy volume to image:Failed to upload volume to image at backend."),
            Event::NoSnapshot => ("009", "013", "create snapshot:Snapshot failed to create."),
            Event::Unknown => ("008", "001", "create volume from backend storage:An unknown error occurred."),
        }
    }

    fn resource_type(self) -> &'static str {
        if self == Event::NoSnapshot { "VOLUME_SNAPSHOT" } else { "VOLUME" }
    }

    fn id(self) -> String {
        let (action, detail, _) = self.parts();
        format!("VOLUME_{}_{action}_{detail}", self.resource_type())
    }
}

/// What a volume's host has not done.
pub fn failed(volume: &Volume, seen: Option<&VolumeObserved>) -> Event {
    match volume.verb {
        Verb::Extend => Event::NotExtended,
        Verb::Create if seen.is_some_and(|seen| seen.made) => Event::Unknown,
        Verb::Create => Event::NotCreated,
    }
}

/// What the host of a server has not done with a volume of its.
pub fn unfinished(attachment: &Attachment) -> Event {
    if attachment.stage == Stage::Detaching { Event::NotDetached } else { Event::NotAttached }
}

/// Writes a message for the owner of a resource.
pub fn say(tx: &mut Tx, project: &ProjectId, resource: &str, event: Event, why: &str) -> Result<()> {
    let old = tx.list::<Message>(Query::project(project.as_str()).limit(MOST))?;
    if let Some(oldest) = old.first().filter(|_| old.len() >= MOST) {
        tx.delete::<Message>(&oldest.id)?;
    }
    let message = Message {
        id: tx.uuid(),
        project_id: project.clone(),
        resource_type: event.resource_type().to_owned(),
        resource_id: resource.to_owned(),
        event_id: event.id(),
        user_message: format!("{} {why}", event.parts().2).trim_end().to_owned(),
        request_id: format!("req-{}", tx.uuid()),
        until: tx.now().plus_s(KEPT_S),
    };
    tx.create(&message)?;
    Ok(())
}

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/messages" "messages:list" "message:get_all" 200 list, since(3, 3);
        GET "/v3/{project_id}/messages/{message_id}" "messages:show" "message:get" 200 show, since(3, 3);
        DELETE "/v3/{project_id}/messages/{message_id}" "messages:delete" "message:delete" 204 delete, since(3, 3), no_undo("a message is no state of anything");
    }
}

const LISTING: Listing = Listing {
    plural: "messages",
    filters: &["event_id", "resource_uuid", "resource_type", "request_id", "message_level"],
    open: Some((31, "message")),
    sorts: &["id", "event_id", "resource_uuid", "resource_type", "request_id", "message_level", "created_at"],
    brief: &[],
};

fn view(ask: &Ask, message: &Stored<Message>) -> Value {
    json!({
        "id": message.id,
        "event_id": message.event_id,
        "user_message": message.user_message,
        "message_level": "ERROR",
        "resource_type": message.resource_type,
        "resource_uuid": message.resource_id,
        "request_id": message.request_id,
        "created_at": message.created.iso_naive(),
        "guaranteed_until": message.until.iso_naive(),
        "links": ask.links(&format!("/messages/{}", message.id)),
    })
}

fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<Message>> {
    let missing = || Fault::not_found(format!("Message {} could not be found.", ask.param("message_id")));
    let message = reader.get::<Message>(ask.param("message_id"))?.ok_or_else(missing)?;
    ask.allow(&message.project_id, missing)?;
    Ok(message)
}

async fn list(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let project = ask.project()?;
    let messages =
        state.read(&ask, move |reader, _| Ok(reader.list::<Message>(Query::project(project.as_str()))?)).await?;
    let items = messages.iter().map(|message| view(&ask, message)).collect();
    ask.reply(200, &LISTING.page(&ask, items, true)?)
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let message = state.read(&ask, find).await?;
    ask.reply(200, &json!({"message": view(&ask, &message)}))
}

async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    state
        .write(&ask, |tx, ask| {
            let message = find(tx, ask)?;
            Ok(tx.delete::<Message>(&message.id).map(drop)?)
        })
        .await?;
    Ok(Reply::empty(204))
}
