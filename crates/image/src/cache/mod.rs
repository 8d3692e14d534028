//! The cache API: copies of images on this machine, for stores that are not.
//!
//! What is cached is no state of the cloud: it can go at any time, and comes again. It lies in a folder of each control
//! process's machine, as Glance's does.

pub mod folder;

use crate::document::{Contents, Image, Status};
use crate::images::{find, ops::only_projects};
use crate::{CacheOptions, Service};
use base::{Fault, ImageId, Result};
use folder::Folder;
use policy::Target;
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The header that says which of the two `DELETE /v2/cache` empties.
const TARGET: &str = "x-image-cache-clear-target";

pub struct Cache {
    pub folder: Arc<Folder>,
    /// One image is brought at a time: uploads and downloads go first.
    filling: Semaphore,
}

impl Cache {
    /// # Errors
    /// Unavailable when the folder cannot be made.
    pub fn open(options: &CacheOptions) -> Result<Cache> {
        let folder = Arc::new(Folder::open(&options.folder, options.most_bytes)?);
        Ok(Cache { folder, filling: Semaphore::new(1) })
    }
}

impl Service {
    fn cached(&self) -> Result<&Cache> {
        self.cache.as_ref().ok_or_else(|| Fault::not_found("Caching via API is not supported at this site."))
    }

    async fn at_cache<T: Send + 'static>(&self, work: impl FnOnce(&Folder) -> Result<T> + Send + 'static) -> Result<T> {
        let folder = self.cached()?.folder.clone();
        self.beside(move || work(&folder)).await
    }

    /// Brings images that wait, one after the other; beside the caller where there are threads.
    pub async fn fill_cache(self: &Arc<Self>) {
        if self.store.is_inline() {
            return self.fill_all().await;
        }
        let service = self.clone();
        tokio::spawn(async move { service.fill_all().await });
    }

    async fn fill_all(&self) {
        let Some(cache) = &self.cache else { return };
        let _alone = cache.filling.acquire().await;
        // What is queued from now on is seen by whoever queues it.
        for image in cache.folder.queued().unwrap_or_default() {
            if let Err(fault) = self.fill(cache, &image).await {
                tracing::warn!(%image, "an image is not cached: {}", fault.chain());
            }
            if let Err(fault) = cache.folder.unqueue(&image) {
                tracing::warn!(%image, "{}", fault.chain());
            }
        }
    }

    async fn fill(&self, cache: &Cache, id: &ImageId) -> Result<()> {
        let image = self.store.get::<Image>(id).await?.map(|image| image.doc);
        let contents = image.filter(|image| image.status == Status::Active).and_then(|image| image.contents);
        let Some(contents) = contents.filter(|contents| !cache.folder.has(&contents.file)) else { return Ok(()) };
        if !cache.folder.takes(contents.size_bytes) {
            tracing::warn!(image = %id, "an image is larger than the cache");
            return Ok(());
        }
        let from = self.verified(&contents).await?;
        let (folder, file) = (cache.folder.clone(), contents.file.clone());
        let kept = self.beside(move || {
            let to = folder.nameless()?;
            folder::copy(from, &to)?;
            folder.keep(&file, &to)
        });
        kept.await?;
        // Deleted meanwhile: it would lie there until the next sweep.
        let now = self.store.get::<Image>(id).await?.and_then(|image| image.doc.contents);
        self.uncache(id, now.as_ref()).await
    }

    /// Of an image, what it has is cached, and nothing that another of this id had before.
    pub async fn uncache(&self, id: &ImageId, has: Option<&Contents>) -> Result<()> {
        if self.cache.is_none() {
            return Ok(());
        }
        let (id, file) = (id.clone(), has.map(|contents| contents.file.clone()));
        let removed = self.at_cache(move |folder| {
            folder.remove(&id, file.as_deref())?;
            if file.is_none() { folder.unqueue(&id).map(drop) } else { Ok(()) }
        });
        removed.await
    }
}

fn allowed(call: &Call) -> Result<()> {
    only_projects(call)?;
    call.enforce(&Target::project(call.caller.project_id().as_deref()))
}

pub async fn list(service: Arc<Service>, call: Call) -> Result<Reply> {
    allowed(&call)?;
    let (cached, queued) = service.at_cache(|folder| Ok((folder.entries()?, folder.queued()?))).await?;
    let cached = cached.into_iter().map(|entry| {
        json!({
            "image_id": entry.image,
            "hits": entry.hits,
            "last_accessed": entry.accessed_s,
            "last_modified": entry.modified_s,
            "size": entry.size_bytes,
        })
    });
    let cached: Vec<Value> = cached.collect();
    Reply::json(200, &json!({"cached_images": cached, "queued_images": queued}))
}

pub async fn queue(service: Arc<Service>, call: Call) -> Result<Reply> {
    allowed(&call)?;
    service.cached()?;
    let image = service.store.read(move |reader| find(reader, &call, call.param("image_id"), call.rule)).await?;
    if image.status != Status::Active {
        return Err(Fault::invalid("Only images with status active can be targeted for queueing"));
    }
    let (id, file) = (image.id.clone(), image.contents.as_ref().map(|contents| contents.file.clone()));
    let queue = move |folder: &Folder| match file.filter(|file| !folder.has(file)) {
        Some(_) => folder.queue(&id).map(|()| true),
        None => Ok(false),
    };
    if service.at_cache(queue).await? {
        service.fill_cache().await;
    }
    Ok(Reply::empty(202))
}

/// One image, out of both.
pub async fn delete(service: Arc<Service>, call: Call) -> Result<Reply> {
    allowed(&call)?;
    let id = ImageId::new(call.param("image_id"));
    let gone = id.clone();
    let was = service.at_cache(move |folder| Ok([folder.unqueue(&gone)?, folder.remove(&gone, None)?])).await?;
    if was == [false, false] && service.store.get::<Image>(&id).await?.is_none() {
        return Err(Fault::not_found(format!("Image {id} not found.")));
    }
    Ok(Reply::empty(204))
}

/// All images, out of what the header says.
pub async fn clear(service: Arc<Service>, call: Call) -> Result<Reply> {
    allowed(&call)?;
    service.cached()?;
    let (cached, queued) = match call.header(TARGET).unwrap_or("").to_ascii_lowercase().as_str() {
        "" => (true, true),
        "cache" => (true, false),
        "queue" => (false, true),
        _ => return Err(Fault::invalid(format!("If provided '{TARGET}' must be 'cache', 'queue' or empty string."))),
    };
    let clear = move |folder: &Folder| {
        for image in folder.queued()?.iter().filter(|_| queued) {
            folder.unqueue(image)?;
        }
        for entry in folder.entries()?.iter().filter(|_| cached) {
            folder.remove(&entry.image, None)?;
        }
        Ok(())
    };
    service.at_cache(clear).await?;
    Ok(Reply::empty(204))
}

/// A copy is whole or is not there, so that nothing has to be cleaned.
pub async fn clean(service: Arc<Service>, call: Call) -> Result<Reply> {
    allowed(&call)?;
    service.cached()?;
    Ok(Reply::empty(200))
}

pub async fn prune(service: Arc<Service>, call: Call) -> Result<Reply> {
    allowed(&call)?;
    let (files, bytes) = service.at_cache(|folder| folder.prune(None)).await?;
    Reply::json(200, &json!({"total_files_pruned": files, "total_bytes_pruned": bytes}))
}

/// Of Glance's central cache, which knows the caches of all machines.
pub async fn nodes(service: Arc<Service>, call: Call) -> Result<Reply> {
    allowed(&call)?;
    service.cached()?;
    Err(Fault::conflict("Centralized caching is not enabled"))
}
