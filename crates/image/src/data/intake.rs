//! Bytes that a job brings instead of a client: the disk of a server.
//!
//! The same stream as an upload, with the job's own change in both commits: a worker that has lost its lease is
//! refused there, and neither announces nor finishes anything.

use super::transfer::{Transfer, abandon, carry, expected};
use crate::Service;
use crate::document::{Image, Status};
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
        let carried = carry(service, &transfer, body).await;
        if let Err(fault) = &carried {
            abandon(service, &transfer, fault).await;
        }
        carried.map_err(|fault| match fault.kind {
            // No client is to blame: the stream broke off, and another attempt may bring it whole.
            FaultKind::Invalid => Fault::unavailable(fault.message.to_string()).because(fault),
            _ => fault,
        })
    }
}

async fn begin(service: &Arc<Service>, id: &ImageId, size_bytes: u64, begun: InTx, done: InTx) -> Result<Transfer> {
    let nonce = service.env.secret_hex(8);
    let before = service.store.get::<Image>(id).await?.and_then(|image| image.doc.transfer);
    if before.as_ref().is_some_and(|before| service.files.is_held(id, before)) {
        return Err(Fault::conflict(format!("The bytes of image {id} are on their way already.")));
    }
    let file = service.files.begin(id, &nonce)?;
    let cause = Cause::new("nubo", "", "images:snapshot");
    let (wanted, image) = (nonce.clone(), id.clone());
    let announcing = service.store.write(cause.clone(), move |tx| {
        let found = tx.get::<Image>(&image)?.map(|stored| stored.doc).filter(|found| found.awaits.is_some());
        let mut found = found.ok_or_else(|| Fault::gone(format!("Image {image} waits for no bytes.")))?;
        if found.transfer != before && found.transfer.is_some() {
            return Err(Fault::conflict(format!("The bytes of image {image} are on their way already.")));
        }
        found.status = Status::Saving;
        found.begin_transfer(&wanted, tx.now());
        begun(tx)?;
        tx.update(&found)?;
        Ok(found)
    });
    let as_announced = match announcing.await {
        Ok(committed) => committed.value,
        Err(fault) => {
            service.files.remove(&super::Files::partial(id, &nonce))?;
            return Err(fault);
        }
    };
    let expected = expected(service, &as_announced, Status::Saving, Some(size_bytes));
    Ok(Transfer::of_job(as_announced, nonce, file, cause, expected, done))
}
