//! Which documents a list asks for.

use crate::reader::no_key;
use crate::sql::{self, Sql, Value, values};

/// A list in the order of creation. Without a limit it returns everything that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub(crate) scope: Scope,
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) reverse: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    Project(String),
    Index(&'static str, String),
}

impl Query {
    /// Every document of the kind.
    pub fn all() -> Query {
        Query { scope: Scope::All, after: None, limit: None, reverse: false }
    }

    /// Those whose `project_id` is this. The empty project has none: ask for all, or declare an index.
    pub fn project(project_id: impl Into<String>) -> Query {
        Query { scope: Scope::Project(project_id.into()), ..Query::all() }
    }

    /// Those that declared this value for this index in [`crate::Document::keys`].
    pub fn index(name: &'static str, value: impl Into<String>) -> Query {
        Query { scope: Scope::Index(name, value.into()), ..Query::all() }
    }

    /// Only what comes after the document with this id; [`crate::Error::Marker`] when there is no such document.
    pub fn after(mut self, id: impl Into<String>) -> Query {
        self.after = Some(id.into());
        self
    }

    /// At most this many.
    pub fn limit(mut self, limit: usize) -> Query {
        self.limit = Some(limit);
        self
    }

    /// Newest first.
    pub fn reverse(mut self) -> Query {
        self.reverse = true;
        self
    }

    /// The statement that finds the rows of this kind after a place in their order, and its values; none where nothing
    /// can be found.
    pub(crate) fn statement<'a>(
        &'a self,
        kind: &'static str,
        (created, id): &'a (i64, String),
        most: i64,
    ) -> Option<(&'static Sql, Vec<Value<'a>>)> {
        let way = usize::from(self.reverse);
        Some(match &self.scope {
            Scope::Project(value) | Scope::Index(_, value) if no_key(value) => return None,
            Scope::All => (&sql::LIST_ALL[way], values![kind, *created, id, most]),
            Scope::Project(project) => (&sql::LIST_PROJECT[way], values![kind, project, *created, id, most]),
            Scope::Index(name, value) => (&sql::LIST_INDEX[way], values![kind, *name, value, *created, id, most]),
        })
    }

    /// Before the first row.
    pub(crate) fn beginning(&self) -> (i64, String) {
        (if self.reverse { i64::MAX } else { i64::MIN }, String::new())
    }

    /// The most rows that are wanted.
    pub(crate) fn most(&self) -> i64 {
        self.limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
    }
}
