//! What documents say of stores that are no folders, against what lies there: for `nubo fsck`.
//!
//! Nothing is removed here. An object without a document may be what is left of a store that was put back to an older
//! copy: it goes when a person says so, and then as all objects go.

use super::objects::{Objects, is_key};
use super::stores::Store;
use crate::Service;
use crate::document::{Image, Object, ObjectState};
use base::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Cause, Document, Query};

/// Until a store has named all that it has.
const LISTING: Duration = Duration::from_secs(20);

/// A disagreement. `id` is STORE/KEY, or the store's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pub id: String,
    pub name: Option<String>,
    pub what: String,
    /// What [`Service::give_up`] does.
    pub cure: Option<String>,
    /// Why nothing is done, and what a person can do.
    pub stuck: Option<String>,
}

impl Service {
    /// Asks every store that is no folder what it has.
    pub async fn strays(&self) -> Result<Vec<Stray>> {
        let mut found = self.of_unknown_stores().await?;
        for store in self.stores.iter() {
            if let Some(objects) = store.objects() {
                found.extend(self.strays_of(store, objects).await?);
            }
        }
        Ok(found)
    }

    async fn strays_of(&self, store: &Store, objects: &Arc<dyn Objects>) -> Result<Vec<Stray>> {
        // What is put while it is listed is in the documents after, what is removed meanwhile in those before.
        let before = self.documents(&store.id).await?;
        let listed = match tokio::time::timeout(LISTING, objects.list()).await {
            Ok(listed) => store.said(listed),
            Err(_) => {
                let message = format!("The image store '{}' does not list its objects in time.", store.id);
                Err(base::Fault::unavailable(message))
            }
        };
        let listed: BTreeSet<String> = match listed {
            Ok(listed) => listed.into_iter().collect(),
            Err(fault) => return Ok(vec![silent(store, &fault.message)]),
        };
        let after = self.documents(&store.id).await?;
        let there = |object: &Object| object.state == ObjectState::There;
        let mut found = Vec::new();
        for (key, object) in after.iter().filter(|(_, object)| there(object)) {
            if before.get(key).is_some_and(there) && !listed.contains(key) {
                found.push(self.lost(object).await?);
            }
        }
        let unknown = |key: &&String| !before.contains_key(*key) && !after.contains_key(*key);
        found.extend(listed.iter().filter(unknown).map(|key| Stray {
            id: format!("{}/{key}", store.id),
            name: None,
            what: format!("it lies in the image store '{}' and has no owner", store.id),
            cure: Some("remove it from the store".to_owned()),
            stuck: None,
        }));
        Ok(found)
    }

    async fn lost(&self, object: &Object) -> Result<Stray> {
        let image = object.names.first().and_then(|name| name.get(..36)).unwrap_or_default();
        let name = self.store.get::<Image>(image).await?.and_then(|image| image.doc.name.clone());
        let elsewhere = self.stores.ids().join(", ");
        Ok(Stray {
            id: object.id().to_owned(),
            name: Some(format!("of image {}", name.unwrap_or_else(|| image.to_owned()))),
            what: format!("it is not in the image store '{}'", object.store),
            cure: None,
            stuck: Some(format!(
                "take the copy away (DELETE /v2/stores/{}/{image}) and copy the image anew where another of \
                 {elsewhere} has it; else upload it again",
                object.store
            )),
        })
    }

    /// Objects of stores that are no longer in the settings.
    async fn of_unknown_stores(&self) -> Result<Vec<Stray>> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for object in self.store.list::<Object>(Query::all()).await? {
            if self.stores.get(&object.store).is_none_or(|store| store.objects().is_none()) {
                *counts.entry(object.store.clone()).or_default() += 1;
            }
        }
        let told = counts.into_iter().map(|(store, count)| Stray {
            what: format!("the image store '{store}' is not in the settings, and {count} objects are in it"),
            id: store,
            name: None,
            cure: None,
            stuck: Some("put it back into [image_stores] of nubo.toml".to_owned()),
        });
        Ok(told.collect())
    }

    async fn documents(&self, store: &str) -> Result<BTreeMap<String, Object>> {
        let all = self.store.list::<Object>(Query::all()).await?.into_iter().map(|stored| stored.doc);
        Ok(all.filter(|object| object.store == store).map(|object| (object.key.clone(), object)).collect())
    }

    /// Makes an object without a document one that leaves: the sweeper removes it. False where it has one, or where
    /// this names none.
    pub async fn give_up(&self, id: &str) -> Result<bool> {
        let is_remote = |store: &str| self.stores.get(store).is_some_and(|store| store.objects().is_some());
        let parts = id.split_once('/').filter(|(store, key)| is_key(key) && is_remote(store));
        let Some((store, key)) = parts else { return Ok(false) };
        let mut object = Object::arriving(store, key.to_owned(), &key[..128], 0, String::new());
        object.leave();
        let written = self.store.write(Cause::new("nubo", "", "images:fsck"), move |tx| {
            if tx.get::<Object>(object.id())?.is_some() {
                return Ok(false);
            }
            tx.create(&object)?;
            Ok(true)
        });
        Ok(written.await?.value)
    }
}

fn silent(store: &Store, why: &str) -> Stray {
    Stray {
        id: store.id.clone(),
        name: None,
        what: format!("what it has cannot be compared: {why}"),
        cure: None,
        stuck: Some("look after the store, then compare again".to_owned()),
    }
}
