//! One way to say that something went wrong.
//!
//! A [`Fault`] has a kind from a closed list, a message for the user, and a source for the log. The two never mix:
//! what a user reads names the value that was wrong and what would be right, and holds nothing internal.

use std::borrow::Cow;
use std::sync::Arc;

pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// What a fault means. Each service maps a kind once to its own status code and JSON envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum FaultKind {
    NotFound,
    Conflict,
    Invalid,
    Quota,
    Forbidden,
    Unauthenticated,
    Capacity,
    Unavailable,
    TooLarge,
    NotAcceptable,
    MethodNotAllowed,
    Gone,
    Precondition,
    UnsupportedMedia,
    Range,
    RateLimited,
    NotImplemented,
    Bug,
}

/// A failure that can be shown. `message` is for the user, `source` for the log only.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
    /// A name for the condition where a service's envelope has one, such as Neutron's `NetworkInUse`.
    pub name: Option<Cow<'static, str>>,
    /// A status other than the kind's usual one, where the real service is odd.
    pub status: Option<u16>,
    /// When it makes sense to try again, in seconds from now.
    pub retry_after_s: Option<u64>,
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => { $(
        pub fn $name(message: impl Into<String>) -> Fault { Fault::new(FaultKind::$kind, message) }
    )* };
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault { kind, message: message.into(), name: None, status: None, retry_after_s: None, source: None }
    }

    constructors! {
        not_found => NotFound, conflict => Conflict, invalid => Invalid, quota => Quota, forbidden => Forbidden,
        unauthenticated => Unauthenticated, capacity => Capacity, unavailable => Unavailable, too_large => TooLarge,
        not_acceptable => NotAcceptable, gone => Gone, precondition => Precondition,
        unsupported_media => UnsupportedMedia, not_implemented => NotImplemented,
    }

    /// A broken invariant of ours. The user reads a general sentence; `what` goes to the log.
    pub fn bug(what: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Bug, "An unexpected error prevented the server from fulfilling your request.")
            .because(Plain(what.into()))
    }

    /// Names the condition for envelopes that carry a name, such as `NetworkInUse`.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Fault {
        self.name = Some(name.into());
        self
    }

    /// Sets a status other than the kind's usual one.
    pub fn with_status(mut self, status: u16) -> Fault {
        self.status = Some(status);
        self
    }

    /// Says when it makes sense to try again.
    pub fn retry_after(mut self, seconds: u64) -> Fault {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Attaches what the log should know.
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Fault {
        self.source = Some(Arc::new(source));
        self
    }

    /// The whole chain, for the log.
    pub fn chain(&self) -> String {
        let mut text = format!("{:?}: {}", self.kind, self.message);
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Plain(String);
