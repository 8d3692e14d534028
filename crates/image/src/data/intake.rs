//! Bytes that a job brings instead of a client: the disk of a server, a volume, or what is imported.
//!
//! The same stream as an upload, with the job's own change in both commits: a worker that has lost its lease is
//! refused there, and neither announces nor finishes anything.

use super::transfer::{Transfer, abandon, carry, expected};
use crate::document::{Copying, Image, Promised, Status};
use crate::{Service, quota};
use agent_api::BoxStream;
use async_trait::async_trait;
use base::{Fault, FaultKind, ImageId, Result};
use contract::{InTx, Intake};
use rest::Body;
use std::sync::Arc;
use store::Cause;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

/// [`Intake`] of the service: uploads end in a task of their own, so they need a share of it.
pub struct SnapshotIntake(pub Arc<Service>);

#[async_trait]
impl Intake for SnapshotIntake {
    async fn take_in(&self, image: &ImageId, size_bytes: u64, bytes: BoxStream, begun: InTx, done: InTx) -> Result<()> {
        let service = &self.0;
        let _permit = service.uploads.acquire().await;
        let transfer = begin(service, image, size_bytes, begun, done).await?;
        let body = Body::from_stream(ReaderStream::new(bytes.take(size_bytes)));
        carry_for_job(service, &transfer, body).await.map_err(|fault| match fault.kind {
            // No client is to blame: the stream broke off, and another attempt may bring it whole.
            FaultKind::Invalid => Fault::unavailable(fault.message.to_string()).because(fault),
            _ => fault,
        })
    }
}

async fn begin(service: &Arc<Service>, id: &ImageId, size_bytes: u64, begun: InTx, done: InTx) -> Result<Transfer> {
    let prepare = |image: &mut Image| {
        if image.awaits.is_none() {
            return Err(Fault::gone(format!("Image {} waits for no bytes.", image.id)));
        }
        image.status = Status::Saving;
        Ok(())
    };
    let after = After::first(service.stores.default());
    begin_for_job(service, id, Some(size_bytes), None, "images:snapshot", prepare, begun, done, after).await
}

/// Where bytes go first, and where copies go then, with the task that tells of them; what becomes of them before.
#[derive(Clone)]
pub struct After {
    pub first: String,
    pub then: Option<Copying>,
    /// They become what the operator wants all imports to be.
    pub converts: bool,
}

impl After {
    /// To one store alone, as they are.
    pub fn first(store: &str) -> After {
        After { first: store.to_owned(), then: None, converts: false }
    }
}

/// Announces bytes that a job brings. `prepare` refuses an image that does not wait for them, and says how it is shown
/// meanwhile.
#[allow(clippy::too_many_arguments)]
pub async fn begin_for_job(
    service: &Arc<Service>,
    id: &ImageId,
    size_bytes: Option<u64>,
    promised: Option<Promised>,
    what: &'static str,
    prepare: impl Fn(&mut Image) -> Result<()> + Send + Sync + 'static,
    begun: InTx,
    done: InTx,
    stores: After,
) -> Result<Transfer> {
    let nonce = service.env.secret_hex(8);
    let underway = |id: &ImageId| Fault::conflict(format!("The bytes of image {id} are on their way already."));
    let before = service.store.get::<Image>(id).await?.and_then(|image| image.doc.transfer);
    if before.as_ref().is_some_and(|before| service.stores.is_held(id, before)) {
        return Err(underway(id));
    }
    let store = service.stores.get(&stores.first).cloned();
    let store = store.ok_or_else(|| Fault::gone(format!("There is no store '{}' any more.", stores.first)))?;
    super::transfer::reachable(&store).await?;
    let files = service.stores.intake(&store).clone();
    let file = files.begin(id, &nonce)?;
    let cause = Cause::new("nubo", "", what);
    let (wanted, image, quota) = (nonce.clone(), id.clone(), service.options.quota.clone());
    let announcing = service.store.write(cause.clone(), move |tx| {
        let found = tx.get::<Image>(&image)?.map(|stored| stored.doc);
        let was = found.ok_or_else(|| Fault::gone(format!("Image {image} waits for no bytes.")))?;
        let mut found = was.clone();
        prepare(&mut found)?;
        if found.transfer != before && found.transfer.is_some() {
            return Err(underway(&image));
        }
        found.begin_transfer(&wanted, tx.now());
        begun(tx)?;
        quota::precheck(tx, &quota, &found, quota::SIZE, size_bytes.unwrap_or(0))?;
        quota::settle(tx, &quota, Some(&was), Some(&found))?;
        tx.update(&found)?;
        Ok(found)
    });
    let as_announced = match announcing.await {
        Ok(committed) => committed.value,
        Err(fault) => {
            files.remove(&super::Files::partial(id, &nonce))?;
            return Err(fault);
        }
    };
    let mut expected = expected(service, &as_announced, Status::Saving, size_bytes);
    expected.promised = promised;
    Ok(Transfer::of_job(as_announced, nonce, file, cause, expected, done, store, stores))
}

/// Takes them in; an image whose bytes did not come is as it was before.
pub async fn carry_for_job(service: &Arc<Service>, transfer: &Transfer, body: Body) -> Result<()> {
    let carried = carry(service, transfer, body).await;
    if let Err(fault) = &carried {
        abandon(service, transfer, fault).await;
    }
    carried
}
