//! How long an operation may take before what waits for it goes to ERROR and says why.

use crate::server::Verb;
use serde::{Deserialize, Serialize};

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
    /// An upload, a staging or an import of an image.
    ImageTransfer,
    /// A router getting its host and coming up there.
    RouterPlace,
    /// A floating address becoming reachable.
    FloatingAddress,
    /// A port being wired on its host.
    PortWire,
}

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
        match self {
            Operation::Build => "Building the server",
            Operation::Start => "Starting the server",
            Operation::Stop => "Stopping the server",
            Operation::Reboot => "Rebooting the server",
            Operation::Pause => "Pausing the server",
            Operation::Suspend => "Suspending the server",
            Operation::Resume => "Resuming the server",
            Operation::Delete => "Deleting the server",
            Operation::ImageTransfer => "Taking in the image",
            Operation::RouterPlace => "Bringing up the router",
            Operation::FloatingAddress => "Bringing up the floating address",
            Operation::PortWire => "Wiring the port",
        }
    }
}

/// Seconds for each operation. The defaults are wide: they are for what hangs, not for what is slow, such as a large
/// image on its way to a host or a memory written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    pub build_s: u32,
    pub power_s: u32,
    pub reboot_s: u32,
    pub suspend_s: u32,
    pub delete_s: u32,
    pub image_s: u32,
    pub network_s: u32,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            build_s: 30 * 60,
            power_s: 10 * 60,
            reboot_s: 10 * 60,
            suspend_s: 30 * 60,
            delete_s: 10 * 60,
            image_s: 24 * 3600,
            network_s: 10 * 60,
        }
    }
}

impl Deadlines {
    pub fn seconds(&self, operation: Operation) -> i64 {
        i64::from(match operation {
            Operation::Build => self.build_s,
            Operation::Start | Operation::Stop | Operation::Pause => self.power_s,
            Operation::Reboot => self.reboot_s,
            Operation::Suspend | Operation::Resume => self.suspend_s,
            Operation::Delete => self.delete_s,
            Operation::ImageTransfer => self.image_s,
            Operation::RouterPlace | Operation::FloatingAddress | Operation::PortWire => self.network_s,
        })
    }
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
    fn every_verb_has_a_limit_and_what_is_left_out_has_its_default() {
        let set: Deadlines = serde_json::from_str(r#"{"build_s": 60}"#).unwrap();
        assert_eq!((set.seconds(Operation::of(Verb::Create)), set.seconds(Operation::of(Verb::Delete))), (60, 600));
        assert!(serde_json::from_str::<Deadlines>(r#"{"bild_s": 60}"#).is_err());
        let said: Vec<String> = [1, 45, 90, 600, 86_400].into_iter().map(span).collect();
        assert_eq!(said, ["1 second", "45 seconds", "90 seconds", "10 minutes", "24 hours"]);
    }
}
