//! Ending transfers whose process died, and removing bytes that belong to nobody.

use super::files::Found;
use super::remote;
use super::stores::Stores;
use super::transfer::{late, requeue};
use crate::document::Image;
use crate::{Service, quota};
use async_trait::async_trait;
use base::{ImageId, Result};
use engine::{Outcome, Reconciler};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Cause, Change, Query};

/// A transfer that runs is looked at again after so long.
const AGAIN_MS: u64 = 5_000;

/// The loop that brings the folder to what the documents say.
pub struct Sweeper(pub Arc<Service>);

#[async_trait]
impl Reconciler for Sweeper {
    fn name(&self) -> &'static str {
        "images"
    }

    fn concerns(&self, change: &Change) -> Option<String> {
        (change.kind == <Image as store::Document>::KIND).then(|| change.id.to_string())
    }

    async fn pending(&self) -> Result<Vec<String>> {
        self.0.untidy().await
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        Ok(match self.0.tidy(&ImageId::from(id)).await? {
            true => Outcome::Settled,
            false => Outcome::Again { after_ms: AGAIN_MS },
        })
    }
}

impl Service {
    /// Images with a transfer, and images that files are named after, or objects that they do not have.
    async fn untidy(self: &Arc<Self>) -> Result<Vec<String>> {
        self.brought.sweep(self.env.now());
        let transfers = self.store.read(|reader| Ok(reader.list::<Image>(Query::index("transfer", "yes"))?)).await?;
        let mut ids: BTreeSet<String> = transfers.into_iter().map(|image| image.doc.id.to_string()).collect();
        let listed = self.list_files(|stores| {
            stores.sweep_contents();
            stores.list()
        });
        ids.extend(listed.await?.into_iter().map(|(_, found)| found.image.to_string()));
        ids.extend(self.loosely_named().await?);
        if let Some(cache) = &self.cache {
            let folder = cache.folder.clone();
            let entries = self.beside(move || folder.entries()).await?;
            ids.extend(entries.into_iter().map(|entry| entry.image.to_string()));
            self.fill_cache().await;
        }
        Ok(ids.into_iter().collect())
    }

    /// Brings one image's document and files in accord. False while a transfer of it runs.
    pub async fn tidy(&self, id: &ImageId) -> Result<bool> {
        // The folder is read before the document: a file that a commit names in between is seen as named.
        let files = self.list_files(Stores::list).await?;
        let mut image = self.store.get::<Image>(id).await?;
        if let Some(nonce) = image.as_ref().and_then(|image| image.transfer.clone()) {
            let since = image.as_ref().and_then(|image| image.transfer_since);
            let passing = since.map(|since| self.passing(since)).filter(|passing| passing.is_overdue(self.env.now()));
            let why = match (self.stores.is_held(id, &nonce), passing) {
                (true, None) => return Ok(false),
                // Whoever still holds the file finds at its end that nobody waits for it.
                (true, Some(passing)) => late(&passing),
                (false, _) => "The process that took in its bytes ended. Upload them again.".to_owned(),
            };
            tracing::info!(image = %id, "a transfer ends, and the image is queued again: {why}");
            requeue(self, Cause::new("nubo", "", "images:sweep"), id.clone(), nonce, why).await?;
            image = self.store.get::<Image>(id).await?;
        }
        if image.as_ref().is_some_and(|image| image.importing.is_some() || image.copying.is_some()) {
            // Whoever looks at jobs ends those that are late; an image that came back from the trash has none.
            self.end_orphan(id).await?;
            image = self.store.get::<Image>(id).await?;
        }
        self.uncache(id, image.as_ref().and_then(|image| image.contents.as_ref())).await?;
        let owned = self.owned(id).await?;
        let unowned = |store: &str, name: &str| !owned.contains(&(store.to_owned(), name.to_owned()));
        for (store, found) in files.iter().filter(|(store, it)| it.image == *id && unowned(store, &it.name)) {
            // A transfer that ended since the documents were read has named its file and let go of it.
            if self.owned(id).await?.contains(&(store.clone(), found.name.clone())) {
                continue;
            }
            let files = self.stores.get(store).and_then(|store| store.files());
            let removed = files.map(|files| files.remove_unheld(&found.name)).transpose()?;
            if removed == Some(false) {
                return Ok(false);
            }
        }
        self.disown(id).await
    }

    /// An image that waits for an import whose job is gone waits no longer.
    async fn end_orphan(&self, id: &ImageId) -> Result<()> {
        let (id, quota) = (id.clone(), self.options.quota.clone());
        let ended = self.store.write(Cause::new("nubo", "", "images:sweep"), move |tx| {
            let Some(before) = tx.get::<Image>(&id)?.map(|image| image.doc) else { return Ok(()) };
            if (before.importing.is_none() && before.copying.is_none()) || !engine::job::Job::about(tx, &id)?.is_empty()
            {
                return Ok(());
            }
            let mut image = before.clone();
            if let Some(copying) = image.copying.take() {
                image.not_copied = copying.to;
            }
            if image.importing.take().is_some() {
                image.staged = None;
                image.fail_transfer("The import ended with the deletion of the image. Import again.");
            }
            quota::settle(tx, &quota, Some(&before), Some(&image))?;
            tx.update(&image)?;
            Ok(())
        });
        ended.await.map(drop)
    }

    async fn owned(&self, id: &ImageId) -> Result<BTreeSet<(String, String)>> {
        let id = id.clone();
        self.store.read_few(move |reader| remote::owned(reader, &id)).await
    }

    /// Removes the bytes of an image that is gone. A failure is left to the loop.
    pub async fn reclaim(&self, id: &ImageId) {
        if let Err(fault) = self.tidy(id).await {
            tracing::warn!(image = %id, "an image's files are left to the sweeper: {}", fault.chain());
        }
    }

    async fn list_files(&self, list: fn(&Stores) -> Result<Vec<(String, Found)>>) -> Result<Vec<(String, Found)>> {
        let stores = self.stores.clone();
        self.beside(move || list(&stores)).await
    }
}
