//! Messages to users: why something that was asked for did not come.

use crate::{Ask, Volumes, table};
use crate::listing::Listing;
use base::{Fault, ProjectId, Result, Timestamp};
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

/// What happened, as Cinder numbers it: the action and the detail.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    NoHost,
    HostGaveUp,
    Late,
    NoImage,
}

impl Event {
    fn id(self, resource_type: &str) -> String {
        let (action, detail) = match self {
            Event::NoHost => ("001", "002"),
            Event::HostGaveUp => ("003", "001"),
            Event::Late => ("003", "012"),
            Event::NoImage => ("003", "004"),
        };
        format!("{resource_type}_{resource_type}_{action}_{detail}")
    }

    fn beginning(self) -> &'static str {
        match self {
            Event::NoHost => "schedule allocate volume: Could not find any available weighted backend.",
            Event::HostGaveUp => "The host gave up.",
            Event::Late => "It took too long.",
            Event::NoImage => "copy volume to image: Failed to upload volume to image at backend.",
        }
    }
}

/// Writes a message for the owner of a resource.
pub fn say(tx: &mut Tx, project: &ProjectId, kind: &str, resource: &str, event: Event, why: &str) -> Result<()> {
    let old = tx.list::<Message>(Query::project(project.as_str()).limit(MOST))?;
    if let Some(oldest) = old.first().filter(|_| old.len() >= MOST) {
        tx.delete::<Message>(&oldest.id)?;
    }
    let message = Message {
        id: tx.uuid(),
        project_id: project.clone(),
        resource_type: kind.to_owned(),
        resource_id: resource.to_owned(),
        event_id: event.id(kind),
        user_message: format!("{} {why}", event.beginning()).trim_end().to_owned(),
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
    let messages = state.read(&ask, move |reader, _| Ok(reader.list::<Message>(Query::project(project.as_str()))?)).await?;
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
