//! Why something is as it is: what each service says of its own objects.

use base::{Result, Timestamp};
use model::deadline::Passing;
use serde::Serialize;
use serde_json::{Map, Value};
use store::Reader;

/// Who asks. Owners read causes, counts and cures; names of hosts, and what belongs to others, are for administrators.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    pub project_id: Option<String>,
    pub admin: bool,
}

impl Asking {
    pub fn may_see(&self, project: &str) -> bool {
        self.admin || (!project.is_empty() && self.project_id.as_deref() == Some(project))
    }
}

/// What an object that is on its way waits for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waiting {
    pub waiting_on: String,
    /// The commit that began it.
    #[serde(serialize_with = "iso")]
    pub since: Timestamp,
    /// After it the object goes to ERROR with a fault; none: it may wait as long as it likes.
    #[serde(serialize_with = "maybe_iso")]
    pub deadline: Option<Timestamp>,
    /// Fruitless attempts so far, as of their last doubling.
    pub attempts: u32,
    pub last_error: Option<String>,
}

impl Waiting {
    /// Of something that has a deadline.
    pub fn of(passing: &Passing, waiting_on: impl Into<String>, attempts: u32, last_error: Option<String>) -> Waiting {
        let (since, deadline) = (passing.since, Some(passing.deadline));
        Waiting { waiting_on: waiting_on.into(), since, deadline, attempts, last_error }
    }

    /// In one sentence.
    pub fn sentence(&self) -> String {
        let mut text = format!("It waits for {} since {}", self.waiting_on, self.since.iso_seconds());
        if let Some(deadline) = self.deadline {
            text.push_str(&format!(", until {} at most", deadline.iso_seconds()));
        }
        text.push('.');
        if self.attempts > 0 {
            text.push_str(&format!(" Fruitless attempts: {}.", self.attempts));
        }
        if let Some(error) = &self.last_error {
            text.push_str(&format!(" The last error: {error}"));
        }
        text
    }
}

/// An object, explained.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    pub kind: &'static str,
    pub id: String,
    /// As the service's own API shows it.
    pub state: String,
    /// In a sentence or two: why it is in this state, and what would change that.
    pub why: String,
    /// None: nothing is pending.
    #[serde(flatten)]
    pub waiting: Option<Waiting>,
    /// What else is worth knowing, by name.
    pub details: Map<String, Value>,
}

pub trait Explain: Send + Sync {
    /// The kinds of objects that this service explains.
    fn kinds(&self) -> &'static [&'static str];

    /// None where there is no such object, and where the asker may not know of it.
    fn explain(&self, reader: &mut Reader, asking: &Asking, kind: &str, id: &str) -> Result<Option<Explanation>>;
}

fn iso<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&at.iso_seconds())
}

fn maybe_iso<S: serde::Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    at.map(Timestamp::iso_seconds).serialize(to)
}
