//! The trash: what requests delete rests whole for a while, so that an undo brings it back exactly.
//!
//! History blanks secrets; the trash does not, and is therefore kept apart: it shows in no history, no dry run and no
//! watch but by its names. A kind that must never rest says so ([`Document::TRASH`]). Who owns what is outside the
//! store (a guest's disk, an image's bytes) asks here whether it may still be wanted.

use crate::document::{ID_BYTES, Keys};
use crate::sql;
use crate::{Cause, Document, Error, Query, Reader, Stored, Tx};
use base::{RequestId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most bytes of one trash document; what a request deletes beyond it lies in further ones.
const PART_BYTES: usize = 3 << 20;
/// The most documents of one trash document: each has an index entry.
const PART_DOCUMENTS: usize = 400;

/// By how much a request changed a row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charged {
    pub scope: String,
    pub resource: String,
    pub delta: i64,
}

/// A deleted document, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashedDocument {
    pub kind: String,
    pub id: String,
    pub project_id: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// As it lay in the store; blank where the trash is watched.
    pub body: String,
}

/// What one transaction of a request has deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trash {
    pub id: String,
    /// Of the document that went first; the others belong to it.
    pub project_id: String,
    pub request_id: RequestId,
    pub actor: String,
    pub what: String,
    pub deleted: Timestamp,
    /// When it is purged.
    pub until: Timestamp,
    pub documents: Vec<TrashedDocument>,
}

impl Document for Trash {
    const KIND: &'static str = "trash";
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("request", self.request_id.as_str());
        for document in &self.documents {
            keys.index("object", object(&document.kind, &document.id));
        }
    }
    fn redact(body: &mut Value) {
        for document in body.get_mut("documents").and_then(Value::as_array_mut).into_iter().flatten() {
            document["body"] = "".into();
        }
    }
}

fn object(kind: &str, id: &str) -> String {
    format!("{kind}/{id}")
}

impl TrashedDocument {
    /// The document itself.
    pub fn document<T: Document>(&self) -> Result<T, Error> {
        crate::document::decode(&self.body)
    }
}

impl Reader {
    /// The trash in which a document rests; none: it was never deleted, came back, or is gone for good.
    pub fn in_trash<T: Document>(&mut self, id: &str) -> Result<Option<Stored<Trash>>, Error> {
        Ok(self.list::<Trash>(Query::index("object", object(T::KIND, id)).limit(1))?.pop())
    }

    /// The same, of all that had this id: an id that clients choose may have been deleted more than once.
    pub fn all_in_trash<T: Document>(&mut self, id: &str) -> Result<Vec<Stored<Trash>>, Error> {
        self.list::<Trash>(Query::index("object", object(T::KIND, id)))
    }
}

impl Tx {
    /// What this transaction deletes is gone for good: the caller asked for that.
    pub fn skip_trash(&mut self) {
        self.at_once = true;
    }

    /// True where what this transaction deletes will rest in the trash.
    pub fn has_trash(&self) -> bool {
        !self.at_once && self.shared.trash_ms > 0
    }

    /// Lays what the transaction deletes into the trash, at its end. Only what a request deletes can be undone.
    pub(crate) fn fill_trash(&mut self, cause: &Cause) -> Result<(), Error> {
        if !self.has_trash() || cause.request_id.as_str().is_empty() {
            return Ok(());
        }
        let gone: Vec<TrashedDocument> = self
            .buffer
            .changed()
            .into_iter()
            .filter(|(_, _, entry)| entry.trash && entry.after.is_none())
            .filter_map(|(kind, id, entry)| {
                let (row, _) = entry.before.as_ref()?;
                let (created, updated) = (Timestamp(row.created), Timestamp(row.updated));
                let (kind, id) = (kind.to_owned(), id.to_owned());
                Some(TrashedDocument {
                    kind,
                    id,
                    project_id: row.project_id.clone(),
                    created,
                    updated,
                    body: row.body.clone(),
                })
            })
            .collect();
        let Some(first) = gone.iter().find(|document| !document.project_id.is_empty()).or(gone.first()) else {
            return Ok(());
        };
        let project_id = first.project_id.clone();
        for documents in parts(gone)? {
            let trash = Trash {
                id: self.uuid(),
                project_id: project_id.clone(),
                request_id: cause.request_id.clone(),
                actor: cause.actor.clone(),
                what: cause.what.clone(),
                deleted: self.now(),
                until: self.now().plus_ms(self.shared.trash_ms),
                documents,
            };
            self.create(&trash)?;
        }
        Ok(())
    }
}

/// Splits what is too much for one document. One that fits into none by itself is left out, and the undo will say so.
fn parts(gone: Vec<TrashedDocument>) -> Result<Vec<Vec<TrashedDocument>>, Error> {
    let (mut parts, mut size) = (vec![Vec::new()], 0);
    for document in gone {
        let bytes = to_text(&document)?.len();
        let indexed = document.kind.len() + document.id.len() + 1 <= ID_BYTES + 64;
        if bytes > PART_BYTES || !indexed {
            tracing::warn!(
                kind = document.kind,
                id = document.id,
                bytes,
                "too large for the trash: no undo brings it back"
            );
            continue;
        }
        let full = |part: &Vec<TrashedDocument>| part.len() >= PART_DOCUMENTS || size + bytes > PART_BYTES;
        if parts.last().is_some_and(full) {
            parts.push(Vec::new());
            size = 0;
        }
        size += bytes;
        parts.last_mut().into_iter().for_each(|part| part.push(document.clone()));
    }
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

pub(crate) fn to_text(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Corrupt(error.to_string()))
}

/// The rows of the ledger that a revision changed.
pub(crate) fn read_charged(text: &str) -> Result<Vec<Charged>, Error> {
    serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("what a request charged: {error}")))
}

/// Rows of [`sql::REQUEST`] that are looked at: a request of more transactions than this is no request.
pub(crate) const REVISIONS: i64 = 1_000;

impl Reader {
    /// The revisions of a request with what each charged, oldest first.
    pub(crate) fn revisions_of(&mut self, request_id: &str) -> Result<Vec<(i64, Vec<Charged>)>, Error> {
        if request_id.is_empty() || request_id.contains('\0') {
            return Ok(Vec::new());
        }
        let rows = self.query(&sql::REQUEST, &sql::given![request_id, REVISIONS])?;
        rows.into_iter().map(|mut row| Ok((row.int(0)?, read_charged(&row.text(1)?)?))).collect()
    }
}
