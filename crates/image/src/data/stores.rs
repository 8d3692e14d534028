//! The stores: folders that hold the files of images, each under the same name in all that have it, and places that
//! hold objects.

use super::files::{Files, Found};
use super::objects::rbd::{Rbd, RbdOptions};
use super::objects::s3::{S3, S3Options};
use super::objects::{self, Objects};
use crate::document::{Contents, LOCAL, WEB};
use base::{Env, Fault, ImageId, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most characters of a description.
const DESCRIPTION_CHARS: usize = 255;

/// A store as the settings name it.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub place: PlaceOptions,
    /// For whoever asks which stores there are.
    pub description: Option<String>,
    /// Bytes are read from the store that weighs most, of those that have them.
    pub weight: i64,
}

#[derive(Clone)]
pub enum PlaceOptions {
    Folder(PathBuf),
    S3(S3Options),
    Rbd(RbdOptions),
    /// A driver that is open already.
    Driver(Arc<dyn Objects>),
}

impl std::fmt::Debug for PlaceOptions {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PlaceOptions::Folder(path) => to.debug_tuple("Folder").field(path).finish(),
            PlaceOptions::S3(options) => to.debug_tuple("S3").field(options).finish(),
            PlaceOptions::Rbd(options) => to.debug_tuple("Rbd").field(options).finish(),
            PlaceOptions::Driver(driver) => to.debug_tuple("Driver").field(&driver.kind()).finish(),
        }
    }
}

impl PlaceOptions {
    /// None for a folder.
    ///
    /// # Errors
    /// Invalid for settings that cannot be right.
    pub fn driver(&self, env: &Env) -> Result<Option<Arc<dyn Objects>>> {
        Ok(match self {
            PlaceOptions::Folder(_) => None,
            PlaceOptions::S3(options) => Some(Arc::new(S3::new(options, env.clone())?)),
            PlaceOptions::Rbd(options) => Some(Arc::new(Rbd::new(options)?)),
            PlaceOptions::Driver(driver) => Some(driver.clone()),
        })
    }
}

impl From<PlaceOptions> for StoreOptions {
    fn from(place: PlaceOptions) -> StoreOptions {
        StoreOptions { place, description: None, weight: 0 }
    }
}

impl From<PathBuf> for StoreOptions {
    fn from(folder: PathBuf) -> StoreOptions {
        PlaceOptions::Folder(folder).into()
    }
}

impl<'de> Deserialize<'de> for StoreOptions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<StoreOptions, D::Error> {
        from.deserialize_any(Setting)
    }
}

/// The path of a folder, or a table with a `type`.
struct Setting;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Typed {
    File(FolderOptions),
    S3(S3Options),
    Rbd(RbdOptions),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FolderOptions {
    path: PathBuf,
}

impl<'de> Visitor<'de> for Setting {
    type Value = StoreOptions;

    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("the path of a folder, or a table with the type file, s3 or rbd")
    }

    fn visit_str<E>(self, path: &str) -> Result<StoreOptions, E> {
        Ok(PathBuf::from(path).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StoreOptions, A::Error> {
        use serde::de::Error;
        let mut table = serde_json::Map::deserialize(MapAccessDeserializer::new(map))?;
        let weight = table.remove("weight").map(serde_json::from_value).transpose().map_err(A::Error::custom)?;
        let description: Option<String> =
            table.remove("description").map(serde_json::from_value).transpose().map_err(A::Error::custom)?;
        let place = match serde_json::from_value(table.into()).map_err(A::Error::custom)? {
            Typed::File(options) => PlaceOptions::Folder(options.path),
            Typed::S3(options) => PlaceOptions::S3(options),
            Typed::Rbd(options) => PlaceOptions::Rbd(options),
        };
        let description = description.map(|text| text.chars().take(DESCRIPTION_CHARS).collect());
        Ok(StoreOptions { place, description, weight: weight.unwrap_or_default() })
    }
}

/// Where a store keeps its bytes.
#[derive(Clone)]
pub enum Place {
    Folder(Files),
    Remote(Arc<dyn Objects>),
}

/// A place with the id by which clients know it.
#[derive(Clone)]
pub struct Store {
    pub id: String,
    pub place: Place,
    pub description: String,
    pub weight: i64,
}

impl Store {
    pub fn files(&self) -> Option<&Files> {
        match &self.place {
            Place::Folder(files) => Some(files),
            Place::Remote(_) => None,
        }
    }

    pub fn objects(&self) -> Option<&Arc<dyn Objects>> {
        match &self.place {
            Place::Folder(_) => None,
            Place::Remote(objects) => Some(objects),
        }
    }

    /// Glance's word for what it is.
    pub fn kind(&self) -> &'static str {
        self.objects().map_or("file", |objects| objects.kind())
    }

    /// What the place says, with the name of the store.
    pub fn said<T>(&self, answer: objects::Result<T>) -> Result<T> {
        answer.map_err(|error| error.of(&self.id))
    }
}

/// Never empty: the first is the service's own folder.
#[derive(Clone)]
pub struct Stores {
    all: Vec<Store>,
    default: String,
    files: Files,
}

impl Stores {
    /// # Errors
    /// Unavailable when a folder cannot be made; Invalid for settings that cannot be right.
    pub fn open(
        local: &Path,
        others: &BTreeMap<String, StoreOptions>,
        default: Option<&str>,
        env: &Env,
    ) -> Result<Stores> {
        let files = Files::open(local)?;
        let usual = || "Files of the cloud".to_owned();
        let place = Place::Folder(files.clone());
        let mut all = vec![Store { id: LOCAL.to_owned(), place, description: usual(), weight: 0 }];
        for (id, options) in others {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            if id == LOCAL || id == WEB || id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
                return Err(Fault::invalid(format!("'{id}' is no name for a store of images.")));
            }
            let place = match (&options.place, options.place.driver(env)?) {
                (_, Some(driver)) => Place::Remote(driver),
                (PlaceOptions::Folder(folder), None) => Place::Folder(Files::open(folder)?),
                (_, None) => return Err(Fault::bug("a store that is neither a folder nor has a driver")),
            };
            let description = options.description.clone().unwrap_or_else(|| match &place {
                Place::Folder(_) => usual(),
                Place::Remote(_) => "Objects of the cloud".to_owned(),
            });
            all.push(Store { id: id.clone(), place, description, weight: options.weight });
        }
        let default = default.unwrap_or(LOCAL).to_owned();
        if !all.iter().any(|store| store.id == default) {
            return Err(Fault::invalid(format!("The default store of images '{default}' is none of [image_stores].")));
        }
        Ok(Stores { all, default, files })
    }

    /// The service's own folder: where bytes come in.
    pub fn local(&self) -> &Store {
        &self.all[0]
    }

    /// The folder through which bytes come into a store.
    pub fn intake<'a>(&'a self, store: &'a Store) -> &'a Files {
        store.files().unwrap_or(&self.files)
    }

    /// Where bytes go that nobody names a store for.
    pub fn default(&self) -> &str {
        &self.default
    }

    pub fn get(&self, id: &str) -> Option<&Store> {
        self.all.iter().find(|store| store.id == id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Store> {
        self.all.iter()
    }

    pub fn ids(&self) -> Vec<String> {
        self.all.iter().map(|store| store.id.clone()).collect()
    }

    /// The stores that have the bytes, the one to read from first: by weight, and a folder before others.
    pub fn of(&self, contents: &Contents) -> Vec<Store> {
        let mut found: Vec<Store> = contents.stores.iter().filter_map(|id| self.get(id)).cloned().collect();
        found.sort_by_key(|store| (Reverse(store.weight), store.objects().is_some()));
        found
    }

    /// True while a process holds the transfer, wherever it goes.
    pub fn is_held(&self, image: &ImageId, nonce: &str) -> bool {
        self.all.iter().filter_map(Store::files).any(|files| files.is_held(image, nonce))
    }

    /// Removes the names by content that no image has.
    pub fn sweep_contents(&self) {
        for store in &self.all {
            if let Some(Err(fault)) = store.files().map(Files::sweep_contents) {
                tracing::warn!(store = store.id, "names by content are left to the next sweep: {}", fault.chain());
            }
        }
    }

    /// Every file of every folder that follows the naming.
    pub fn list(&self) -> Result<Vec<(String, Found)>> {
        let mut all = Vec::new();
        for store in &self.all {
            let Some(files) = store.files() else { continue };
            all.extend(files.list()?.into_iter().map(|found| (store.id.clone(), found)));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_path_or_a_table() {
        let read = |text: &str| serde_json::from_str::<StoreOptions>(text);
        let folder = read(r#""/srv/images""#).unwrap();
        assert!(matches!(folder.place, PlaceOptions::Folder(path) if path == Path::new("/srv/images")));
        let rbd = read(r#"{"type": "rbd", "pool": "images", "weight": 7, "description": "disks"}"#).unwrap();
        assert!(matches!(rbd.place, PlaceOptions::Rbd(RbdOptions { pool, .. }) if pool == "images"));
        assert_eq!((rbd.weight, rbd.description.as_deref()), (7, Some("disks")));
        for (text, said) in [
            ("7", "the path of a folder, or a table"),
            (r#"{"type": "tape"}"#, "unknown variant `tape`"),
            (r#"{"type": "rbd"}"#, "missing field `pool`"),
            (r#"{"type": "rbd", "pool": "p", "pol": 1}"#, "unknown field `pol`"),
            (r#"{"type": "file", "path": "/x", "weight": "heavy"}"#, "invalid type"),
        ] {
            let refused = read(text).unwrap_err().to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }
}
