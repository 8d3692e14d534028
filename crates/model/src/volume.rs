//! The state of a volume and of a snapshot, computed from what they shall be and what was seen of them. Nothing else
//! decides a status.
//!
//! ```text
//!   creating -> available <-> reserved, attaching, detaching, awaiting-transfer -> in-use
//!      |            \-> extending -> available, in-use
//!      +-> error         +-> error_extending   available, in-use <-> uploading (a job makes an image of it)
//!                                             any passing state -- its deadline --> an error, or where it was
//! ```

use serde::{Deserialize, Serialize};

/// The verb behind the newest change of what a volume shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    #[default]
    Create,
    Extend,
}

/// What somebody who is about to attach or detach has asked to be kept for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    #[default]
    None,
    Attaching,
    Detaching,
}

/// How far an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Reserved,
    Attaching,
    Attached,
    Detaching,
}

impl Stage {
    /// As the API of attachments says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Reserved => "reserved",
            Stage::Attaching => "attaching",
            Stage::Attached => "attached",
            Stage::Detaching => "detaching",
        }
    }
}

/// What is known of a volume.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// An administrator has said what it is.
    pub forced: Option<&'a str>,
    pub verb: Verb,
    /// No host could take it.
    pub unplaceable: bool,
    /// Its host has given up.
    pub gave_up: bool,
    /// The verb's deadline has passed. What comes right afterwards is right all the same.
    pub overdue: bool,
    /// The host says that it is what the newest verb asked for.
    pub reached: bool,
    /// A job makes an image of it.
    pub uploading: bool,
    pub hold: Hold,
    pub offered: bool,
    pub stages: &'a [Stage],
}

/// The status as Cinder shows it.
pub fn status<'a>(facts: &Facts<'a>) -> &'a str {
    if let Some(forced) = facts.forced {
        return forced;
    }
    if !facts.reached {
        let failed = facts.unplaceable || facts.gave_up || facts.overdue;
        return match (facts.verb, failed) {
            (Verb::Create, false) => "creating",
            (Verb::Create, true) => "error",
            (Verb::Extend, false) => "extending",
            (Verb::Extend, true) => "error_extending",
        };
    }
    if facts.uploading {
        return "uploading";
    }
    let has = |stage| facts.stages.contains(&stage);
    match facts.hold {
        Hold::Attaching => "attaching",
        Hold::Detaching => "detaching",
        Hold::None if facts.offered => "awaiting-transfer",
        Hold::None if has(Stage::Detaching) => "detaching",
        Hold::None if has(Stage::Attached) => "in-use",
        Hold::None if has(Stage::Attaching) => "attaching",
        Hold::None if has(Stage::Reserved) => "reserved",
        Hold::None => "available",
    }
}

/// The status of a snapshot.
pub fn snapshot_status(forced: Option<&str>, there: bool, gave_up: bool, overdue: bool) -> &str {
    match forced {
        Some(forced) => forced,
        None if there => "available",
        None if gave_up || overdue => "error",
        None => "creating",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_follows_from_what_is_known() {
        use Stage::*;
        let ready = || Facts { reached: true, ..Facts::default() };
        let table: Vec<(Facts, &str)> = vec![
            (Facts::default(), "creating"),
            (Facts { unplaceable: true, ..Facts::default() }, "error"),
            (Facts { overdue: true, ..Facts::default() }, "error"),
            (Facts { overdue: true, ..ready() }, "available"),
            (Facts { verb: Verb::Extend, ..Facts::default() }, "extending"),
            (Facts { verb: Verb::Extend, gave_up: true, ..Facts::default() }, "error_extending"),
            (ready(), "available"),
            (Facts { hold: Hold::Attaching, ..ready() }, "attaching"),
            (Facts { offered: true, ..ready() }, "awaiting-transfer"),
            (Facts { stages: &[Reserved], ..ready() }, "reserved"),
            (Facts { stages: &[Reserved, Attached], ..ready() }, "in-use"),
            (Facts { stages: &[Attached, Detaching], ..ready() }, "detaching"),
            (Facts { stages: &[Attaching], ..ready() }, "attaching"),
            (Facts { hold: Hold::Detaching, stages: &[Attached], ..ready() }, "detaching"),
            (Facts { uploading: true, stages: &[Attached], ..ready() }, "uploading"),
            (Facts { uploading: true, ..Facts::default() }, "creating"),
            (Facts { forced: Some("error"), ..ready() }, "error"),
        ];
        for (facts, expected) in table {
            assert_eq!(status(&facts), expected, "{facts:?}");
        }
        assert_eq!(snapshot_status(None, false, false, false), "creating");
        assert_eq!(snapshot_status(None, true, true, true), "available");
        assert_eq!(snapshot_status(Some("error"), true, false, false), "error");
    }
}
