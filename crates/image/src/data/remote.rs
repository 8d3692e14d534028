//! Bytes in stores that are no folders: how they get there, whose they are, and how they go.
//!
//! A folder counts the names of a file and frees it with the last one; a place of objects does not. So a document of
//! the kind `image_object` says for each object whose it is, and every step that changes it is a commit:
//!
//! 1. [`Service::arrive`] writes down the object that will be, or joins one that has the bytes; then it puts them.
//! 2. [`settle`] belongs to the commit that names the store in the image: the object is there from then on. Where
//!    another transfer brought the same bytes meanwhile, the image joins its object, and its own goes.
//! 3. [`Service::disown`] takes names away whose image does not have the bytes and whose transfer nobody holds.
//! 4. [`ObjectSweeper`] removes what has no names, first there and then its document.
//!
//! A process may die between any two of them, and may be slower than the one that cleans up behind it: a key is used
//! once, so that whatever comes late meets an object that nobody needs, or none.

use super::Files;
use super::objects::{self, Objects};
use super::stores::Store;
use crate::Service;
use crate::document::{Image, Object, ObjectState};
use async_trait::async_trait;
use base::{Fault, ImageId, Result};
use engine::{Outcome, Reconciler};
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use store::{Cause, Change, Document, Query, Reader, Tx};

/// Objects that are tried for joining, each found to be gone or cut short.
const JOINS: usize = 4;
/// An object whose transfer runs is looked at again after so long.
const AGAIN_MS: u64 = 5_000;

/// What is to be put: the bytes are in a local file that its transfer holds.
pub struct Arrival<'a> {
    pub store: &'a Store,
    pub image: &'a ImageId,
    pub nonce: &'a str,
    pub file: &'a File,
    pub size_bytes: u64,
    pub sha512: &'a str,
}

impl Service {
    /// Puts bytes into a store, unless it has them. The object's id, for [`settle`]; none for a folder.
    ///
    /// `wanted` refuses where nobody waits for them any more. After a failure [`Service::disown`] cleans up.
    pub async fn arrive(
        &self,
        arrival: Arrival<'_>,
        wanted: impl Fn(&mut Tx) -> Result<()> + Clone + Send + Sync + 'static,
    ) -> Result<Option<String>> {
        let Arrival { store, image, nonce, file, size_bytes, sha512 } = arrival;
        let Some(objects) = store.objects() else { return Ok(None) };
        let name = Files::whole(image, nonce);
        for _ in 0..JOINS {
            let new = objects::key(sha512, &self.env.secret_hex(8));
            let new = Object::arriving(&store.id, new, sha512, size_bytes, name.clone());
            let object = self.claim(new, wanted.clone()).await?;
            if object.state == ObjectState::Arriving {
                store.said(objects.put(&object.key, file, size_bytes).await)?;
            }
            if store.said(objects.size(&object.key).await)? == Some(size_bytes) {
                return Ok(Some(object.id().to_owned()));
            }
            if object.state == ObjectState::Arriving {
                break;
            }
            tracing::error!(store = store.id, object = object.key, "the bytes of images are gone or cut short");
            self.distrust(object.id(), Some(name.clone())).await?;
        }
        Err(Fault::unavailable(format!("The image store '{}' did not keep the bytes.", store.id)))
    }

    /// The object that has the bytes with one more name, or else the new one.
    async fn claim(
        &self,
        new: Object,
        wanted: impl Fn(&mut Tx) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Object> {
        let written = self.store.write(Cause::new("nubo", "", "images:put"), move |tx| {
            wanted(tx)?;
            let Some(mut there) = joinable(tx, &new)? else {
                tx.create(&new)?;
                return Ok(new.clone());
            };
            there.names.extend(new.names.clone());
            tx.update(&there)?;
            Ok(there)
        });
        Ok(written.await?.value)
    }

    /// Writes down that an object is not what was put there; one name less, if any.
    pub async fn distrust(&self, id: &str, without: Option<String>) -> Result<()> {
        let id = id.to_owned();
        let written = self.store.write(Cause::new("nubo", "", "images:damage"), move |tx| {
            let Some(mut object) = tx.get::<Object>(&id)?.map(|stored| stored.doc) else { return Ok(()) };
            object.damaged = true;
            if without.as_ref().is_some_and(|name| object.names.remove(name)) && object.names.is_empty() {
                object.leave();
            }
            tx.update(&object)?;
            Ok(())
        });
        written.await.map(drop)
    }

    /// The object that has the bytes of this file, a sound one if there is any.
    pub async fn object(&self, store: &str, file: &str) -> Result<Option<Object>> {
        let (store, file) = (store.to_owned(), file.to_owned());
        let found = self.store.read_few(move |reader| {
            let all = of_image(reader, file.get(..36).unwrap_or_default())?;
            let mine = |object: &Object| {
                object.store == store && object.state == ObjectState::There && object.names.contains(&file)
            };
            Ok(all.into_iter().filter(mine).min_by_key(|object| object.damaged))
        });
        found.await
    }

    /// Images that objects are named after and that do not have them: gone, in the trash, or with a transfer that runs.
    pub async fn loosely_named(&self) -> Result<Vec<String>> {
        let found = self.store.read(|reader| {
            let mut found = BTreeSet::new();
            for object in reader.list::<Object>(Query::all())? {
                for name in &object.names {
                    let Some(id) = name.get(..36).filter(|id| !found.contains(*id)) else { continue };
                    let image = reader.get::<Image>(id)?;
                    let mut files = image.iter().flat_map(|image| image.files());
                    if !files.any(|file| file == (object.store.as_str(), name.as_str())) {
                        found.insert(id.to_owned());
                    }
                }
            }
            Ok(found)
        });
        Ok(found.await?.into_iter().collect())
    }

    /// Takes from objects the names of this image that nothing needs. False where it must be looked at again: a
    /// transfer of one runs, or an object has changed meanwhile.
    pub async fn disown(&self, image: &ImageId) -> Result<bool> {
        let id = image.clone();
        let objects = self.store.read_few(move |reader| Ok(reader.list::<Object>(Query::index("image", id.as_str()))?));
        let mut again = false;
        for seen in objects.await? {
            let names = seen.names.iter().filter(|name| name.starts_with(image.as_str()));
            let (running, idle): (Vec<_>, Vec<_>) = names.cloned().partition(|name| self.is_running(image, name));
            again |= !running.is_empty();
            let (id, rev, image) = (seen.id().to_owned(), seen.rev, image.clone());
            let written = self.store.write(Cause::new("nubo", "", "images:disown"), move |tx| {
                let now = tx.get::<Object>(&id)?.filter(|now| now.rev == rev).map(|stored| stored.doc);
                let Some(mut object) = now else { return Ok(false) };
                let (owned, store) = (owned(tx, &image)?, object.store.clone());
                // Nobody but its transfer needs what was never named.
                let arriving = object.state == ObjectState::Arriving;
                let needed = |name: &String| !arriving && owned.contains(&(store.clone(), name.clone()));
                object.names.retain(|name| !idle.contains(name) || needed(name));
                if object.names.is_empty() {
                    object.leave();
                }
                tx.update(&object)?;
                Ok(true)
            });
            again |= !written.await?.value;
        }
        Ok(!again)
    }

    fn is_running(&self, image: &ImageId, name: &str) -> bool {
        name.get(37..).is_some_and(|nonce| self.stores.is_held(image, nonce))
    }
}

/// In the commit that names a store: what was put is there. Where others were faster, theirs is.
///
/// # Errors
/// Unavailable where the object was given up meanwhile: its transfer has let go of its lock.
pub fn settle(tx: &mut Tx, id: &str, image: &ImageId, nonce: &str) -> Result<()> {
    let name = Files::whole(image, nonce);
    let object = tx.get::<Object>(id)?.map(|stored| stored.doc).filter(|object| object.names.contains(&name));
    let mut object = object.ok_or_else(|| Fault::unavailable("The bytes of the image were given up meanwhile."))?;
    let mut named = object.clone();
    if object.state == ObjectState::Arriving {
        if let Some(mut there) = joinable(tx, &object)? {
            there.names.insert(name.clone());
            tx.update(&there)?;
            object.leave();
            named = there;
        } else {
            object.state = ObjectState::There;
        }
        tx.update(&object)?;
    }
    // An earlier attempt may have left the name with another object.
    for mut other in of_image(tx, image)? {
        if other.store == named.store && other.id() != named.id() && other.names.remove(&name) {
            if other.names.is_empty() {
                other.leave();
            }
            tx.update(&other)?;
        }
    }
    Ok(())
}

/// An object with the same bytes that has room for a name more.
fn joinable(reader: &mut Reader, new: &Object) -> Result<Option<Object>> {
    let bytes = Object::bytes(&new.store, &new.sha512);
    Ok(reader.list::<Object>(Query::index("bytes", bytes).limit(1))?.pop().map(|stored| stored.doc))
}

fn of_image(reader: &mut Reader, image: &str) -> Result<Vec<Object>> {
    let found = reader.list::<Object>(Query::index("image", image))?;
    Ok(found.into_iter().map(|stored| stored.doc).collect())
}

/// The files of an image in their stores, and of all that had its id and rest in the trash: their bytes are still their
/// own.
pub fn owned(reader: &mut Reader, id: &ImageId) -> Result<BTreeSet<(String, String)>> {
    let mut images: Vec<Image> = reader.get::<Image>(id)?.map(|stored| stored.doc).into_iter().collect();
    for trash in reader.all_in_trash::<Image>(id)? {
        let of = |document: &&store::TrashedDocument| document.kind == Image::KIND && document.id == **id;
        for document in trash.doc.documents.iter().filter(of) {
            images.push(document.document::<Image>()?);
        }
    }
    let all = images.iter().flat_map(Image::files);
    Ok(all.map(|(store, file)| (store.to_owned(), file.to_owned())).collect())
}

/// The loop that ends what arrives no more, and removes what leaves.
pub struct ObjectSweeper(pub Arc<Service>);

#[async_trait]
impl Reconciler for ObjectSweeper {
    fn name(&self) -> &'static str {
        "image_objects"
    }

    fn concerns(&self, change: &Change) -> Option<String> {
        (change.kind == Object::KIND && change.body.is_some()).then(|| change.id.clone())
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let untidy = self.0.store.read(|reader| Ok(reader.list::<Object>(Query::index("untidy", "yes"))?)).await?;
        Ok(untidy.into_iter().map(|object| object.id().to_owned()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let service = &self.0;
        let Some(object) = service.store.get::<Object>(id).await?.map(|stored| stored.doc) else {
            return Ok(Outcome::Settled);
        };
        match object.state {
            ObjectState::There => Ok(Outcome::Settled),
            ObjectState::Leaving => self.remove(&object).await,
            ObjectState::Arriving => {
                let images = object.names.iter().filter_map(|name| name.get(..36));
                for image in images {
                    service.disown(&ImageId::from(image)).await?;
                }
                Ok(Outcome::Again { after_ms: AGAIN_MS })
            }
        }
    }
}

impl ObjectSweeper {
    async fn remove(&self, object: &Object) -> Result<Outcome> {
        let store = self.0.stores.get(&object.store);
        let found = store.and_then(|store| Some((store, store.objects()?)));
        let (store, place): (_, &Arc<dyn Objects>) = found.ok_or_else(|| {
            let (store, key) = (&object.store, &object.key);
            Fault::unavailable(format!("The image store '{store}' is not in the settings; its object {key} stays."))
        })?;
        store.said(place.remove(&object.key).await)?;
        let id = object.id().to_owned();
        let written = self.0.store.write(Cause::new("nubo", "", "images:sweep"), move |tx| {
            // Nothing comes back from leaving.
            if tx.get::<Object>(&id)?.is_some() {
                tx.delete::<Object>(&id)?;
            }
            Ok(())
        });
        written.await?;
        Ok(Outcome::Settled)
    }
}
