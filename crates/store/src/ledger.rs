//! The ledger: how much of a resource a scope uses, and its own limit if it has one.

use crate::Error;
use crate::document::join;
use serde::{Deserialize, Serialize};

/// Under which kind history keeps the versions of ledger rows. No document's kind can be this: kinds are words.
pub(crate) const KIND: &str = "#ledger";

/// A ledger row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Never below 0. May lie above a limit that was lowered later.
    pub used: i64,
    /// The row's own limit: negative is unlimited, `None` means that the resource's default holds.
    pub limit: Option<i64>,
}

impl Usage {
    /// Whether `delta` more may be used, and if not, the limit that stands against it. Giving back is always allowed.
    pub(crate) fn refused(&self, delta: i64, default_limit: Option<i64>) -> Option<i64> {
        let limit = self.limit.or(default_limit).filter(|limit| *limit >= 0)?;
        (delta > 0 && self.used.saturating_add(delta) > limit).then_some(limit)
    }
}

/// A ledger row as a commit left it, for history.
pub(crate) struct Past {
    pub id: String,
    /// `None` where the row says nothing any more.
    pub body: Option<String>,
}

impl Past {
    pub fn new(scope: &str, resource: &str, usage: Usage) -> Result<Past, Error> {
        let body = (usage != Usage::default()).then(|| serde_json::to_string(&usage)).transpose();
        let body = body.map_err(|error| Error::Corrupt(format!("a ledger row cannot be serialized: {error}")))?;
        Ok(Past { id: id(scope, resource), body })
    }
}

/// Under which id history keeps a row.
pub(crate) fn id(scope: &str, resource: &str) -> String {
    join([scope, resource])
}

/// The scope of a row that history keeps under this id.
pub(crate) fn scope_of(id: &str) -> String {
    let (mut scope, mut chars) = (String::new(), id.chars());
    while let Some(c) = chars.next().filter(|c| *c != '/') {
        // What is escaped stands for itself.
        scope.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    scope
}

/// What a body of history says.
pub(crate) fn parse(body: Option<&str>) -> Result<Usage, Error> {
    let Some(body) = body else { return Ok(Usage::default()) };
    serde_json::from_str(body).map_err(|error| Error::Corrupt(format!("a ledger row of the past: {error}")))
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn a_row_of_history_names_its_scope() {
        for scope in ["host:a", "p/q", "back\\slash", "\\/", ""] {
            assert_eq!(super::scope_of(&super::id(scope, "VCPU")), scope);
        }
    }

    #[test]
    fn own_limit_then_default_then_none() {
        for (own, default, delta, refused) in [
            (None, None, 1_000_000, None),
            (None, Some(10), 2, None),
            (None, Some(10), 3, Some(10)),
            (Some(9), Some(100), 2, Some(9)),
            (Some(-1), Some(1), 99, None),
            (Some(0), None, -3, None),
            (Some(0), None, 0, None),
            (Some(i64::MAX), None, i64::MAX, None),
        ] {
            let usage = Usage { used: 8, limit: own };
            assert_eq!(usage.refused(delta, default), refused, "{own:?} {default:?} {delta}");
        }
    }
}
