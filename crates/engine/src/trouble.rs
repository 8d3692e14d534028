//! What a loop could not settle, written down so that it survives the process and can be shown.
//!
//! A document is written at the first failure in a row and at each doubling of the attempts, and removed when the object
//! settles: what fails for long costs a handful of writes, not one for each attempt. From [`WARN_AFTER`] attempts on it
//! is a warning, which `nubo status` shows.

use base::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use store::{Cause, Document, Keys, Query, Reader, Store};

/// From so many fruitless passes on a person should look. A power of two, since only doublings are written.
pub const WARN_AFTER: u32 = 8;
/// The most bytes of an error that are kept.
const ERROR_BYTES: usize = 2_000;

/// An object that a loop could not settle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// `LOOP/OBJECT`.
    id: String,
    pub reconciler: String,
    /// What the loop calls the object: nearly always its id.
    pub object: String,
    /// Failures in a row, as of the last doubling.
    pub attempts: u32,
    pub since: Timestamp,
    pub last_error: String,
}

impl Document for Trouble {
    const KIND: &'static str = "trouble";
    const HISTORY: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("loop", self.reconciler.as_str());
        keys.index("object", self.object.as_str());
        if self.is_warning() {
            keys.index("warning", "yes");
        }
    }
}

fn key(reconciler: &str, object: &str) -> String {
    format!("{reconciler}/{object}")
}

impl Trouble {
    pub(crate) fn new(reconciler: &str, object: &str, attempts: u32, since: Timestamp, error: &str) -> Trouble {
        let mut end = error.len().min(ERROR_BYTES);
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        Trouble {
            id: key(reconciler, object),
            reconciler: reconciler.to_owned(),
            object: object.to_owned(),
            attempts,
            since,
            // What the store does not take must not keep the failure from being told.
            last_error: error[..end].replace('\0', " "),
        }
    }

    pub fn is_warning(&self) -> bool {
        self.attempts >= WARN_AFTER
    }

    /// What loops have against an object, the longest first.
    pub fn about(reader: &mut Reader, object: &str) -> Result<Vec<Trouble>> {
        let mut known: Vec<Trouble> =
            reader.list::<Trouble>(Query::index("object", object))?.into_iter().map(|stored| stored.doc).collect();
        known.sort_by_key(|trouble| std::cmp::Reverse(trouble.attempts));
        Ok(known)
    }

    /// What a person should look at, at most `most`.
    pub fn warnings(reader: &mut Reader, most: usize) -> Result<Vec<Trouble>> {
        let known = reader.list::<Trouble>(Query::index("warning", "yes").limit(most))?;
        Ok(known.into_iter().map(|stored| stored.doc).collect())
    }

    pub(crate) async fn of(store: &Store, reconciler: &str) -> Result<Vec<Trouble>> {
        let known = store.list::<Trouble>(Query::index("loop", reconciler)).await?;
        Ok(known.into_iter().map(|stored| stored.doc).collect())
    }

    pub(crate) async fn write(self, store: &Store) -> Result<()> {
        store.write(Cause::new("nubo", "", "trouble"), move |tx| Ok(tx.put(&self)?)).await.map(drop)
    }

    /// Removes it inside a transaction, where there is one.
    pub(crate) fn drop_in(tx: &mut store::Tx, reconciler: &str, object: &str) -> Result<()> {
        let id = key(reconciler, object);
        if tx.get::<Trouble>(&id)?.is_some() {
            tx.delete::<Trouble>(&id)?;
        }
        Ok(())
    }

    pub(crate) async fn remove(store: &Store, reconciler: &str, object: &str) -> Result<()> {
        let (reconciler, object) = (reconciler.to_owned(), object.to_owned());
        let remove = move |tx: &mut store::Tx| Trouble::drop_in(tx, &reconciler, &object);
        store.write(Cause::new("nubo", "", "trouble"), remove).await.map(drop)
    }
}
