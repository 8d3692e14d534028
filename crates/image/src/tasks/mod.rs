//! Tasks: what clients see of the work on an image that goes on after its call was answered.
//!
//! A task says how it stands; the work itself is a durable job (or was done inside the call). It is written in the
//! commits of that work, belongs to its image, and goes with it; a finished one is shown for two days.

pub mod ops;

use base::{ImageId, ProjectId, Result, Timestamp};
use rest::Call;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Document, Keys, Query, Reader, Stored, Tx};

/// How long a finished task is shown (Glance's `task_time_to_live`).
const SHOWN_S: i64 = 48 * 3600;
/// Most tasks of an image that are kept.
const KEPT: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Made by `POST /v2/tasks`: a new image from a URL.
    Import,
    /// Made by `POST /v2/images/{id}/import`.
    ApiImageImport,
    /// Made by `POST /v2/images/{id}/locations`.
    LocationImport,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Import => "import",
            Kind::ApiImageImport => "api_image_import",
            Kind::LocationImport => "location_import",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    Processing,
    Success,
    Failure,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Processing => "processing",
            Status::Success => "success",
            Status::Failure => "failure",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub id: String,
    pub kind: Kind,
    pub status: Status,
    pub owner: ProjectId,
    pub user_id: String,
    pub request_id: String,
    pub image: ImageId,
    pub input: Value,
    pub message: String,
    pub finished: Option<Timestamp>,
}

impl Document for Task {
    const KIND: &'static str = "image_task";
    /// It tells what happened.
    const UNDO: bool = false;
    const TRASH: bool = false;

    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        &self.owner
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("image", self.image.as_str());
    }
}

impl Task {
    /// Writes a task down, in the commit of what it tells of. The oldest of its image make room.
    ///
    /// # Errors
    /// What the store says.
    pub fn begin(tx: &mut Tx, call: &Call, kind: Kind, image: &ImageId, input: Value) -> Result<Task> {
        let mut others = tx.list::<Task>(Query::index("image", image.as_str()))?;
        others.sort_by_key(|task| task.created);
        let many = (others.len() + 1).saturating_sub(KEPT);
        for old in others.iter().filter(|task| task.finished.is_some()).take(many) {
            tx.delete::<Task>(&old.id)?;
        }
        let task = Task {
            id: tx.uuid(),
            kind,
            status: Status::Pending,
            owner: call.caller.project_id().unwrap_or_else(|| ProjectId::new("")),
            user_id: call.caller.credentials.user_id.to_string(),
            request_id: call.request_id.to_string(),
            image: image.clone(),
            input,
            message: String::new(),
            finished: None,
        };
        tx.create(&task)?;
        Ok(task)
    }

    /// Says how it stands. Does nothing to one that is gone or at its end.
    ///
    /// # Errors
    /// What the store says.
    pub fn set(tx: &mut Tx, id: &str, status: Status, message: &str) -> Result<()> {
        let Some(mut task) = tx.get::<Task>(id)?.map(|stored| stored.doc) else { return Ok(()) };
        if task.finished.is_some() {
            return Ok(());
        }
        task.status = status;
        task.message = message.chars().take(1000).collect::<String>().replace('\0', " ");
        task.finished = matches!(status, Status::Success | Status::Failure).then(|| tx.now());
        tx.update(&task)?;
        Ok(())
    }

    /// Takes away what told of an image that goes.
    ///
    /// # Errors
    /// What the store says.
    pub fn forget(tx: &mut Tx, image: &ImageId) -> Result<()> {
        for task in tx.list::<Task>(Query::index("image", image.as_str()))? {
            tx.delete::<Task>(&task.doc.id)?;
        }
        Ok(())
    }

    fn expires(&self) -> Option<Timestamp> {
        self.finished.map(|finished| finished.plus_s(SHOWN_S))
    }
}

/// Those of an image that are still shown, the newest first.
///
/// # Errors
/// What the store says.
pub fn of_image(reader: &mut Reader, image: &ImageId, now: Timestamp) -> Result<Vec<Stored<Task>>> {
    let mut tasks = reader.list::<Task>(Query::index("image", image.as_str()))?;
    tasks.retain(|task| task.expires().is_none_or(|at| at > now));
    tasks.sort_by(|a, b| b.created.cmp(&a.created));
    Ok(tasks)
}

/// As lists show it.
pub fn stub(task: &Stored<Task>) -> Value {
    let mut view = json!({
        "id": task.id,
        "type": task.kind.as_str(),
        "status": task.status.as_str(),
        "owner": task.owner,
        "created_at": task.created.iso_seconds(),
        "updated_at": task.updated.iso_seconds(),
        "self": format!("/v2/tasks/{}", task.id),
        "schema": "/v2/schemas/task",
    });
    if let Some(expires) = task.expires() {
        view["expires_at"] = json!(expires.iso_seconds());
    }
    view
}

/// The whole of it.
pub fn view(task: &Stored<Task>) -> Value {
    let mut view = stub(task);
    view["input"] = task.input.clone();
    view["message"] = json!(task.message);
    view["result"] = match task.status {
        Status::Success => json!({"image_id": task.image}),
        _ => Value::Null,
    };
    view["image_id"] = json!(task.image);
    view["request_id"] = json!(task.request_id);
    view["user_id"] = json!(task.user_id);
    view
}
