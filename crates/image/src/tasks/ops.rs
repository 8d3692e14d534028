//! Listing, showing and making tasks: Glance's old way for administrators, still asked for by clients.

use super::{Kind, Task, stub, view};
use crate::document::LOCAL;
use crate::images::{ops as images, wire, within_limits};
use crate::import::{self, Source};
use crate::{Service, quota};
use base::{Fault, FaultKind, ImageId, Result, is_uuid, limits};
use policy::Target;
use rest::{Call, Reply, header};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Query, Stored};

const PAGE: usize = 25;
const SORT_KEYS: [&str; 5] = ["created_at", "updated_at", "id", "type", "status"];

/// The whole API is closed to all but administrators, whatever its other rules say.
fn may(call: &Call) -> Result<()> {
    images::only_projects(call)?;
    let own = call.caller.project_id();
    let target = Target::project(own.as_deref());
    call.enforce_rule("tasks_api_access", &target)?;
    call.enforce(&target)
}

pub async fn of_image(service: Arc<Service>, call: Call) -> Result<Reply> {
    let tasks = service.store.read(move |reader| {
        let image = crate::images::find(reader, &call, call.param("image_id"), call.rule)?;
        super::of_image(reader, &image.id, call.now)
    });
    Reply::json(200, &json!({"tasks": tasks.await?.iter().map(view).collect::<Vec<_>>()}))
}

pub async fn show(service: Arc<Service>, call: Call) -> Result<Reply> {
    may(&call)?;
    let (id, now) = (call.param("task_id").to_owned(), call.now);
    let task = service.store.get::<Task>(&id).await?.filter(|task| task.expires().is_none_or(|at| at > now));
    let task = task.ok_or_else(|| Fault::not_found(format!("No task found with ID {id}")))?;
    Reply::json(200, &view(&task))
}

/// Tasks go by themselves.
pub async fn delete(_: Arc<Service>, call: Call) -> Result<Reply> {
    may(&call)?;
    let message = "A task cannot be deleted: it goes with its image, and a finished one is shown for two days.";
    Err(Fault::new(FaultKind::MethodNotAllowed, message).named("GET"))
}

pub async fn list(service: Arc<Service>, call: Call) -> Result<Reply> {
    may(&call)?;
    let query = &call.query;
    let wanted = |name: &str, known: &[&str]| match query.get(name) {
        None => Ok(None),
        Some(value) if known.contains(&value) => Ok(Some(value.to_owned())),
        Some(value) => Err(Fault::invalid(format!("Invalid {name} value: {value}"))),
    };
    let status = wanted("status", &["pending", "processing", "success", "failure"])?;
    let kind = wanted("type", &["import", "api_image_import", "location_import"])?;
    let sort = wanted("sort_key", &SORT_KEYS)?.unwrap_or_else(|| "created_at".to_owned());
    let rises = wanted("sort_dir", &["asc", "desc"])?.is_some_and(|dir| dir == "asc");
    let limit = match query.get("limit") {
        None => PAGE,
        Some(text) => {
            let number: i64 = text.parse().map_err(|_| Fault::invalid("limit param must be an integer"))?;
            usize::try_from(number).map_err(|_| Fault::invalid("limit param must be positive"))?.min(limits::PAGE)
        }
    };
    let now = call.now;
    let mut tasks = service.store.read(|reader| Ok(reader.list::<Task>(Query::all())?)).await?;
    tasks.retain(|task| task.expires().is_none_or(|at| at > now));
    tasks.retain(|task| status.as_ref().is_none_or(|status| task.status.as_str() == status));
    tasks.retain(|task| kind.as_ref().is_none_or(|kind| task.kind.as_str() == kind));
    let key = |a: &Stored<Task>, b: &Stored<Task>| match sort.as_str() {
        "updated_at" => a.updated.cmp(&b.updated),
        "id" => a.id.cmp(&b.id),
        "type" => a.kind.cmp(&b.kind),
        "status" => a.status.cmp(&b.status),
        _ => a.created.cmp(&b.created),
    };
    tasks.sort_by(|a, b| {
        let order = key(a, b).then(a.created.cmp(&b.created));
        if rises { order } else { order.reverse() }
    });
    if let Some(marker) = query.get("marker") {
        if !is_uuid(marker) {
            return Err(Fault::invalid("Invalid marker format"));
        }
        let at = tasks.iter().position(|task| task.id == marker);
        tasks.drain(..=at.ok_or_else(|| Fault::invalid(format!("No task found with ID {marker}")))?);
    }
    tasks.truncate(limit);
    let link = |query: String| if query.is_empty() { "/v2/tasks".to_owned() } else { format!("/v2/tasks?{query}") };
    let mut body = json!({
        "tasks": tasks.iter().map(stub).collect::<Vec<_>>(),
        "first": link(query.without("marker")),
        "schema": "/v2/schemas/tasks",
    });
    if let Some(last) = tasks.last().filter(|_| tasks.len() == limit) {
        body["next"] = json!(link(query.with("marker", &last.id)));
    }
    Reply::json(200, &body)
}

/// A new image of what lies behind a URL.
pub async fn create(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    may(&call)?;
    let body: Map<String, Value> = call.json().await?;
    for needed in ["type", "input"] {
        if !body.contains_key(needed) {
            return Err(Fault::invalid(format!("Task '{needed}' is required")));
        }
    }
    if body["type"] != "import" {
        return Err(Fault::invalid("Provided object does not match schema 'task': the type of a task is 'import'."));
    }
    let input = body["input"].as_object().ok_or_else(|| Fault::invalid("The input of a task is an object."))?;
    let text = |name: &str| {
        let text = input.get(name).and_then(Value::as_str).map(str::to_owned);
        text.ok_or_else(|| Fault::invalid(format!("Input does not contain '{name}' field")))
    };
    let (uri, format) = (text("import_from")?, text("import_from_format")?);
    let properties = input.get("image_properties").and_then(Value::as_object);
    let properties = properties.ok_or_else(|| Fault::invalid("Input does not contain 'image_properties' field"))?;
    service.options.web_rules.check("URI for import", &uri)?;
    let mut image = images::new_image(&service, &call, ImageId::new(service.env.uuid()), properties)?;
    // What is imported has the format that it is imported from: nothing is converted on the way.
    wire::set(&mut image, "disk_format", &json!(format))?;
    if image.container_format.is_none() {
        wire::set(&mut image, "container_format", &json!("bare"))?;
    }
    within_limits(&image)?;
    call.enforce_rule("add_image", &images::target(&image, None))?;
    images::may_have_visibility(&call, &image, image.visibility)?;
    let (limits, deadlines) = (service.options.quota.clone(), service.options.deadlines);
    let input = body["input"].clone();
    let written = service.store.write(call.cause(), move |tx| {
        let mut image = image.clone();
        let task = Task::begin(tx, &call, Kind::Import, &image.id, input.clone())?;
        let source = Source::Web { uri: uri.clone(), check: None, location: false };
        import::start(tx, &mut image, &task, source, &[LOCAL.to_owned()], &deadlines)?;
        quota::settle(tx, &limits, None, Some(&image))?;
        tx.create(&image)?;
        Ok(tx.need::<Task>(&task.id)?)
    });
    let task = written.await?.value;
    Ok(Reply::json(201, &view(&task))?.header(header::LOCATION, format!("/v2/tasks/{}", task.id)))
}
