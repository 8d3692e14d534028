//! Importing: the bytes of an image that its client does not send itself, or has staged before.
//!
//! - `glance-direct` makes staged bytes the image's own: inside the call, since all was read while they were staged;
//!   by a job where they are to be converted.
//! - `web-download` and a location fetch what lies behind a URL, `glance-download` another image of this cloud: a
//!   durable job each, which the commit that answers the call makes. See [`job`].
//! - `copy-image`, and whatever shall lie in several stores, makes copies by a job of its own. See [`copies`].
//!
//! Each has a task, which tells clients how it stands.

mod copies;
mod job;
pub mod locations;
mod request;

pub use copies::{CopyWork, copy};
pub use job::{ImportWork, Source, start};

use crate::data::{judge, may_import, staged_fits};
use crate::document::{Contents, Copying, Image, LOCAL, Status};
use crate::images::find;
use crate::tasks::{self, Task};
use crate::{Service, quota};
use base::{Fault, ImageId, Result};
use request::{Method, Request};
use rest::{Call, Reply};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::Tx;

pub async fn import(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let request = Request::read(&body, &service, call.header("x-image-meta-store"))?;
    let stores = request.stores.clone();
    let input = json!({"image_id": call.param("image_id"), "import_req": body, "backend": request.stores});
    match request.method {
        Method::Direct if service.options.convert_to.is_some() => {
            by_job(service, call, input, stores, |_, _| Ok(Source::Staged)).await
        }
        Method::Direct => direct(service, call, input, stores).await,
        Method::Copy => copies::request(service, call, input, stores, request.all).await,
        Method::Web { uri } => {
            let source = move |_: &mut Tx, _: &Call| Ok(Source::Web { uri: uri.clone(), check: None, location: false });
            by_job(service, call, input, stores, source).await
        }
        Method::Glance { image, here } => {
            let source = move |tx: &mut Tx, call: &Call| {
                // What is wrong with the other image shows in the task, as it does where it lies in another cloud.
                let found = find(tx, call, &image, "download_image").ok().filter(|_| here);
                Ok(Source::Image { image: ImageId::new(image.clone()), there: found.is_some() })
            };
            by_job(service, call, input, stores, source).await
        }
    }
}

/// Refuses what no import can begin with.
fn may_begin(image: &Image, method: &str) -> Result<()> {
    if matches!(image.status, Status::Active | Status::Deactivated) {
        return Err(Fault::conflict("Image with status active cannot be target for import"));
    }
    if image.importing.is_some() || image.awaits.is_some() {
        return Err(Fault::conflict(format!(
            "New operation on image '{}' is not permitted as prior operation is still in progress",
            image.id
        )));
    }
    if image.status != Status::Queued {
        return Err(Fault::conflict(format!("Image needs to be in 'queued' state to use '{method}' method")));
    }
    for (name, value) in [("container_format", &image.container_format), ("disk_format", &image.disk_format)] {
        if value.is_none() {
            return Err(Fault::conflict(format!("'{name}' needs to be set before import")));
        }
    }
    Ok(())
}

async fn by_job(
    service: Arc<Service>,
    call: Call,
    input: Value,
    stores: Vec<String>,
    source: impl Fn(&mut Tx, &Call) -> Result<Source> + Send + Sync + 'static,
) -> Result<Reply> {
    let (limits, deadlines, cause) = (service.options.quota.clone(), service.options.deadlines, call.cause());
    let asked = service.clone();
    let written = service.store.write(cause, move |tx| {
        let before = find(tx, &call, call.param("image_id"), call.rule)?.doc;
        let method = input["import_req"]["method"]["name"].as_str().unwrap_or_default();
        let source = source(tx, &call)?;
        match source {
            Source::Staged => staged_fits(tx, &asked, &before, &may_import(&before)?)?,
            _ => may_begin(&before, method)?,
        }
        let mut image = before.clone();
        let task = Task::begin(tx, &call, tasks::Kind::ApiImageImport, &image.id, input.clone())?;
        start(tx, &mut image, &task, source, &stores, &deadlines)?;
        quota::settle(tx, &limits, Some(&before), Some(&image))?;
        tx.update(&image)?;
        Ok(())
    });
    written.await?;
    Ok(Reply::empty(202))
}

/// Makes staged bytes the image's own: one look at what was found while they came, and one commit.
async fn direct(service: Arc<Service>, call: Call, input: Value, stores: Vec<String>) -> Result<Reply> {
    let (options, cause) = (service.options.clone(), call.cause());
    let id = ImageId::new(call.param("image_id"));
    let written = service.store.write(cause, move |tx| {
        let before = find(tx, &call, call.param("image_id"), call.rule)?.doc;
        let staged = may_import(&before)?;
        let mut image = before.clone();
        image.staged = None;
        let outcome = judge(&image, &staged.findings, &options);
        let task = Task::begin(tx, &call, tasks::Kind::ApiImageImport, &image.id, input.clone())?;
        match &outcome {
            Ok((virtual_size_bytes, quarantined)) => {
                let (virtual_size_bytes, quarantined) = (*virtual_size_bytes, quarantined.clone());
                image.contents = Some(Contents { virtual_size_bytes, quarantined, ..staged.contents });
                image.status = Status::Active;
                // The bytes are in the first store already, and copies of them go to the others.
                let to: Vec<String> = stores.iter().filter(|store| *store != LOCAL).cloned().collect();
                if to.is_empty() {
                    Task::set(tx, &task.id, tasks::Status::Success, "")?;
                } else {
                    let copies = Copying { task: task.id.clone(), to, failed: Vec::new() };
                    copy(tx, &mut image, copies, &options.deadlines)?;
                }
            }
            Err(fault) => {
                // Back to queued, so that other bytes can be staged.
                image.status = Status::Queued;
                Task::set(tx, &task.id, tasks::Status::Failure, &fault.message)?;
            }
        }
        quota::settle(tx, &options.quota, Some(&before), Some(&image))?;
        tx.update(&image)?;
        Ok(outcome.map(|_| ()))
    });
    let outcome = written.await?.value;
    if outcome.is_err() {
        service.reclaim(&id).await;
    }
    outcome.map(|()| Reply::empty(202))
}
