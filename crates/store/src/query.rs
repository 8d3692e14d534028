//! Which documents a list asks for.

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
}
