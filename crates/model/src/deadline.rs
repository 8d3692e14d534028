//! How long an operation may take before what waits for it goes to ERROR and says why.
//!
//! One rule for every kind of object: what has left its resting state at `since` is [`Passing`], until its operation's
//! deadline; afterwards it is overdue, shown in the error state of its API with a [`Passing::fault`], and still tried.

use crate::server::Verb;
use base::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Build,
    Start,
    Stop,
    Reboot,
    Pause,
    Suspend,
    Resume,
    Delete,
    /// An upload or a staging of an image, or the making of one of a server's disk.
    Image,
    /// A router getting its host and coming up there.
    Router,
    /// A floating address becoming reachable.
    FloatingIp,
    /// A port being wired on its host.
    Port,
    /// A volume being made or extended, or a snapshot of one being made.
    Volume,
}

/// An operation with the name of its setting, its default in seconds, and its name as the beginning of a sentence.
///
/// The defaults are wide: they are for what hangs, not for what is slow, such as a large image on its way to a host or
/// a memory written to disk.
const TABLE: [(Operation, &str, u32, &str); 13] = [
    (Operation::Build, "build", 30 * 60, "Building the server"),
    (Operation::Start, "start", 10 * 60, "Starting the server"),
    (Operation::Stop, "stop", 10 * 60, "Stopping the server"),
    (Operation::Reboot, "reboot", 10 * 60, "Rebooting the server"),
    (Operation::Pause, "pause", 10 * 60, "Pausing the server"),
    (Operation::Suspend, "suspend", 30 * 60, "Suspending the server"),
    (Operation::Resume, "resume", 30 * 60, "Resuming the server"),
    (Operation::Delete, "delete", 10 * 60, "Deleting the server"),
    (Operation::Image, "image", 24 * 3600, "Taking in the image"),
    (Operation::Router, "router", 10 * 60, "Bringing up the router"),
    (Operation::FloatingIp, "floating_ip", 10 * 60, "Bringing up the floating address"),
    (Operation::Port, "port", 10 * 60, "Wiring the port"),
    (Operation::Volume, "volume", 30 * 60, "Making the volume"),
];

/// The shortest and the longest deadline that may be set, in seconds.
const RANGE: std::ops::RangeInclusive<u32> = 1..=30 * 24 * 3600;

impl Operation {
    pub fn of(verb: Verb) -> Operation {
        match verb {
            Verb::Create => Operation::Build,
            Verb::Start => Operation::Start,
            Verb::Stop | Verb::PowerSync => Operation::Stop,
            Verb::SoftReboot | Verb::HardReboot => Operation::Reboot,
            Verb::Pause | Verb::Unpause => Operation::Pause,
            Verb::Suspend => Operation::Suspend,
            Verb::Resume => Operation::Resume,
            Verb::Delete => Operation::Delete,
        }
    }

    /// As the beginning of a sentence.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].3
    }
}

/// Seconds for each operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines([u32; TABLE.len()]);

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines(TABLE.map(|(_, _, seconds, _)| seconds))
    }
}

impl Deadlines {
    pub fn seconds(&self, operation: Operation) -> i64 {
        i64::from(self.0[operation as usize])
    }

    /// The names of the settings with their values, in the order of the table.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, u32)> {
        TABLE.iter().zip(self.0).map(|((_, name, _, _), seconds)| (*name, seconds))
    }

    /// Sets one by its name. A refusal says what would be right.
    pub fn set(&mut self, name: &str, seconds: u32) -> Result<(), String> {
        let Some(at) = TABLE.iter().position(|(_, known, _, _)| *known == name) else {
            let names: Vec<&str> = TABLE.iter().map(|(_, name, _, _)| *name).collect();
            return Err(format!("there is no deadline '{name:.64}'; there are {}", names.join(", ")));
        };
        if !RANGE.contains(&seconds) {
            return Err(format!("a deadline lasts {} to {} seconds, not {seconds}", RANGE.start(), RANGE.end()));
        }
        self.0[at] = seconds;
        Ok(())
    }

    /// Sets several.
    pub fn set_all(&mut self, named: &BTreeMap<String, u32>) -> Result<(), String> {
        named.iter().try_for_each(|(name, seconds)| self.set(name, *seconds))
    }

    /// Sets what a text such as `build=1800,port=60` names.
    pub fn read(&mut self, text: &str) -> Result<(), String> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let pair = part.split_once('=').and_then(|(name, s)| Some((name.trim(), s.trim().parse().ok()?)));
            let (name, seconds) = pair.ok_or_else(|| format!("'{part:.64}' is not NAME=SECONDS"))?;
            self.set(name, seconds)?;
        }
        Ok(())
    }

    /// What has been on its way since then.
    pub fn passing(&self, operation: Operation, since: Timestamp) -> Passing {
        let limit_s = self.seconds(operation);
        Passing { operation, since, deadline: since.plus_s(limit_s), limit_s }
    }
}

/// As [`Deadlines::read`] takes it.
impl std::fmt::Display for Deadlines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.settings().map(|(name, seconds)| format!("{name}={seconds}")).collect();
        f.write_str(&all.join(","))
    }
}

/// Something that has left its resting state and not reached the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    pub operation: Operation,
    pub since: Timestamp,
    pub deadline: Timestamp,
    limit_s: i64,
}

impl Passing {
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.deadline <= now
    }

    /// Cause and cure, once it is overdue: it "waits for" `on`.
    pub fn fault(&self, on: &str, last_error: Option<&str>, cure: &str) -> String {
        let limit = span(self.limit_s);
        let waits = waits(on, last_error);
        format!("{} took longer than {limit}: {waits} {cure}", self.operation.name())
    }
}

/// What is waited for, as a sentence without its beginning.
pub fn waits(on: &str, last_error: Option<&str>) -> String {
    let error = last_error.map(|error| format!(" The last error was: {error}"));
    format!("it waits for {on}.{}", error.unwrap_or_default())
}

/// A span as people say it.
pub fn span(seconds: i64) -> String {
    match seconds {
        s if s >= 7200 && s % 3600 == 0 => format!("{} hours", s / 3600),
        s if s >= 120 && s % 60 == 0 => format!("{} minutes", s / 60),
        1 => "1 second".to_owned(),
        s => format!("{s} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_stands_at_its_place_in_the_table() {
        for (at, (operation, name, seconds, _)) in TABLE.iter().enumerate() {
            assert_eq!(*operation as usize, at, "{name}");
            assert!(RANGE.contains(seconds), "{name}");
        }
    }

    #[test]
    fn what_is_set_holds_and_what_is_left_out_has_its_default() {
        let mut set = Deadlines::default();
        set.read("build=60, port=7").unwrap();
        let of = |operation| set.seconds(operation);
        assert_eq!((of(Operation::of(Verb::Create)), of(Operation::Port), of(Operation::Delete)), (60, 7, 600));
        let mut again = Deadlines::default();
        again.read(&set.to_string()).unwrap();
        assert_eq!(again, set);
        for (text, said) in [
            ("bild=60", "there is no deadline 'bild'; there are build, start, "),
            ("build=0", "a deadline lasts 1 to 2592000 seconds, not 0"),
            ("build", "'build' is not NAME=SECONDS"),
            ("build=-1", "'build=-1' is not NAME=SECONDS"),
        ] {
            let refused = set.read(text).unwrap_err();
            assert!(refused.starts_with(said), "{text}: {refused}");
        }
    }

    #[test]
    fn a_fault_says_what_took_how_long_why_and_what_helps() {
        let passing = Deadlines::default().passing(Operation::Port, Timestamp(0));
        let at = |s: i64| Timestamp(0).plus_s(s);
        assert_eq!((passing.is_overdue(at(599)), passing.is_overdue(at(600))), (false, true));
        assert_eq!(
            passing.fault("its host to wire it", Some("no tap."), "Wait."),
            "Wiring the port took longer than 10 minutes: it waits for its host to wire it. The last error was: no tap. \
             Wait."
        );
        let said: Vec<String> = [1, 45, 90, 600, 86_400].into_iter().map(span).collect();
        assert_eq!(said, ["1 second", "45 seconds", "90 seconds", "10 minutes", "24 hours"]);
    }
}
