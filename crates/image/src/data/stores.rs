//! The stores: folders that hold the files of images, each under the same name in all stores that have it.

use super::files::{Files, Found};
use crate::document::{Contents, LOCAL, WEB};
use base::{Fault, ImageId, Result};
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};

/// A folder with the id by which clients know it.
#[derive(Clone, Debug)]
pub struct Store {
    pub id: String,
    pub files: Files,
}

/// Never empty: the first is the service's own folder.
#[derive(Clone, Debug)]
pub struct Stores(Vec<Store>);

impl Stores {
    /// # Errors
    /// Unavailable when a folder cannot be made; Invalid for an id that no client could name.
    pub fn open(local: &Path, others: &BTreeMap<String, PathBuf>) -> Result<Stores> {
        let mut stores = vec![Store { id: LOCAL.to_owned(), files: Files::open(local)? }];
        for (id, folder) in others {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            if id == LOCAL || id == WEB || id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
                return Err(Fault::invalid(format!("'{id}' is no name for a store of images.")));
            }
            stores.push(Store { id: id.clone(), files: Files::open(folder)? });
        }
        Ok(Stores(stores))
    }

    pub fn local(&self) -> &Store {
        &self.0[0]
    }

    pub fn get(&self, id: &str) -> Option<&Store> {
        self.0.iter().find(|store| store.id == id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Store> {
        self.0.iter()
    }

    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|store| store.id.clone()).collect()
    }

    /// Opens the first copy that is there.
    ///
    /// # Errors
    /// Bug when none is: a document named them.
    pub fn read(&self, contents: &Contents) -> Result<File> {
        let mut missing = Fault::bug(format!("image file {} is in no store that is known", contents.file));
        for store in contents.stores.iter().filter_map(|id| self.get(id)) {
            match store.files.read(&contents.file) {
                Ok(file) => return Ok(file),
                Err(fault) => missing = fault,
            }
        }
        Err(missing)
    }

    /// The first copy whose bytes are those that were accepted. Reads all of it.
    ///
    /// # Errors
    /// Unavailable where no copy is whole.
    pub fn read_verified(&self, contents: &Contents) -> Result<File> {
        let mut why = Vec::new();
        for store in contents.stores.iter().filter_map(|id| self.get(id)) {
            match store.files.read(&contents.file).and_then(|file| verified(file, contents)) {
                Ok(Some(file)) => return Ok(file),
                Ok(None) => why.push(format!("the copy in '{}' has other bytes than were accepted", store.id)),
                Err(fault) => {
                    tracing::error!(file = contents.file, store = store.id, "{}", fault.chain());
                    why.push(format!("the copy in '{}' cannot be read", store.id));
                }
            }
        }
        Err(Fault::unavailable(format!("The image is damaged: {}. Upload it again.", why.join(", "))))
    }

    /// True while a process holds the transfer, wherever it goes.
    pub fn is_held(&self, image: &ImageId, nonce: &str) -> bool {
        self.0.iter().any(|store| store.files.is_held(image, nonce))
    }

    /// Removes the names by content that no image has.
    pub fn sweep_contents(&self) {
        for store in &self.0 {
            if let Err(fault) = store.files.sweep_contents() {
                tracing::warn!(store = store.id, "names by content are left to the next sweep: {}", fault.chain());
            }
        }
    }

    /// Every file of every store that follows the naming.
    pub fn list(&self) -> Result<Vec<(String, Found)>> {
        let mut all = Vec::new();
        for store in &self.0 {
            all.extend(store.files.list()?.into_iter().map(|found| (store.id.clone(), found)));
        }
        Ok(all)
    }
}

/// The file at its beginning again, if its SHA-512 is that of the contents.
fn verified(mut file: File, contents: &Contents) -> Result<Option<File>> {
    let failed = |error| Fault::unavailable("The image service cannot read an image.").because(error);
    let mut digest = Sha512::new();
    std::io::copy(&mut file, &mut digest).map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok(Some(file).filter(|_| super::transfer::hex(&digest.finalize()) == contents.sha512))
}
