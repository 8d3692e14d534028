//! What can go wrong in the store, as closures see it, and how that looks to a user.

use base::Fault;

/// A refusal or failure of the store. Turns into a [`Fault`] with `?`; [`Error::of`] finds it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{kind} {id} does not exist")]
    NotFound { kind: &'static str, id: String },
    #[error("{kind} {id} exists already")]
    Exists { kind: &'static str, id: String },
    /// A unique key belongs to another document. `value` is the key's parts joined by `/`.
    #[error("{kind} with {name} {value:?} exists already")]
    Taken { kind: &'static str, name: &'static str, value: String },
    /// What the caller relied upon is no longer so.
    #[error("{0}")]
    Conflict(String),
    #[error("quota of {resource} in {scope}: {asked} asked, {used} of {limit} used")]
    Quota { scope: String, resource: String, used: i64, limit: i64, asked: i64 },
    /// The document that a page should start after does not exist.
    #[error("marker {id} names no {kind}")]
    Marker { kind: &'static str, id: String },
    /// A value cannot be kept: U+0000, or too long.
    #[error("{0}")]
    Invalid(String),
    /// The history before revision `oldest` has been trimmed.
    #[error("revision {asked} lies before the oldest that is kept, {oldest}")]
    Gone { asked: u64, oldest: u64 },
    /// A moment before the first revision that is kept, or in the future: revisions and times of both ends.
    #[error("{asked} lies outside of what history holds")]
    Outside { asked: String, oldest: (u64, String), newest: (u64, String) },
    /// The engine does not answer, or refuses for a reason of its own (disk full, connection lost).
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The connection broke during COMMIT, and nothing tells whether it happened. Read before trying again.
    #[error("it is unknown whether the change was kept: {0}")]
    Unknown(String),
    /// What lies in the database contradicts itself or the program.
    #[error("the store contradicts itself: {0}")]
    Corrupt(String),
    /// The engine cannot do this.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// The store's error inside a fault, if that is where the fault came from.
    pub fn of(fault: &Fault) -> Option<&Error> {
        fault.source.as_deref()?.downcast_ref::<Error>()
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let fault = match &error {
            Error::NotFound { kind, id } => Fault::not_found(format!("{} {id} could not be found.", title(kind))),
            Error::Exists { kind, id } => Fault::conflict(format!("{} {id} exists already.", title(kind))),
            Error::Taken { kind, name, value } => {
                Fault::conflict(format!("{} with {name} '{value}' exists already.", title(kind)))
            }
            Error::Conflict(what) => Fault::conflict(format!("{what}.")),
            Error::Quota { resource, used, limit, asked, .. } => Fault::quota(format!(
                "Quota exceeded for {resource}: Requested {asked}, but already used {used} of {limit} {resource}."
            )),
            Error::Marker { id, .. } => Fault::invalid(format!("marker [{id}] not found")),
            Error::Invalid(what) => Fault::invalid(format!("{what}.")),
            Error::Gone { asked, oldest } => Fault::gone(format!(
                "Revision {asked} is no longer kept; the oldest that can be asked for is {oldest}."
            )),
            Error::Outside { asked, oldest, newest } => Fault::invalid(format!(
                "as_of={asked} is not in the history, which holds rev:{} to rev:{} and {} to {}.",
                oldest.0, newest.0, oldest.1, newest.1
            )),
            Error::Unavailable(_) => Fault::unavailable("The store cannot be reached right now. Please try again."),
            Error::Unknown(_) => Fault::unavailable(
                "The connection to the store broke while the change was being kept. Please look before trying again.",
            ),
            Error::Corrupt(_) => Fault::bug("corrupt"),
            Error::Unsupported(what) => Fault::not_implemented(format!("{what}.")),
        };
        fault.because(error)
    }
}

/// `security_group` becomes `Security group`.
fn title(kind: &str) -> String {
    let spaced = kind.replace('_', " ");
    let mut chars = spaced.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_reads_names_and_the_log_reads_causes() {
        let fault = Fault::from(Error::NotFound { kind: "security_group", id: "x".into() });
        assert_eq!(fault.message, "Security group x could not be found.");
        assert_eq!(Error::of(&fault), Some(&Error::NotFound { kind: "security_group", id: "x".into() }));
        let fault = Fault::from(Error::Corrupt("page 7".into()));
        assert!(!fault.message.contains("page 7"));
        assert!(fault.chain().contains("page 7"));
    }
}
