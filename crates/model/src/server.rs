//! The state of a server, computed from what it shall be and what was seen of it. Nothing else decides a status.
//!
//! ```text
//!   BUILD scheduling -> BUILD spawning -> ACTIVE <-> SHUTOFF, PAUSED, SUSPENDED      (task_state while on the way)
//!          \ no host       \ gave up        \ gave up
//!           +-> ERROR       +-> ERROR        +-> ERROR          any -> deleting -> gone
//!   any passing state -- its deadline --> ERROR -- it comes right after all --> where it was going
//! ```

use serde::{Deserialize, Serialize};

/// The powers that a server can rest in; what is desired, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    #[default]
    Running,
    Stopped,
    Paused,
    Suspended,
    Absent,
}

/// The verb behind the newest change of a server's desired power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    #[default]
    Create,
    Start,
    Stop,
    SoftReboot,
    HardReboot,
    Pause,
    Unpause,
    Suspend,
    Resume,
    Delete,
    /// Not asked for: the guest stopped and the desired state followed.
    PowerSync,
}

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    pub desired: Power,
    pub verb: Verb,
    /// The generation that the verb made.
    pub verb_generation: u64,
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    /// A host has been chosen.
    pub scheduled: bool,
    /// Scheduling has ended without a host.
    pub unschedulable: bool,
    /// An administrator has put it into ERROR.
    pub forced_error: bool,
    /// The verb's deadline has passed. What comes right afterwards is right all the same.
    pub overdue: bool,
    /// Deleted in Nova's soft way.
    pub soft_deleted: bool,
    /// It has been ACTIVE once.
    pub launched: bool,
    /// Every port that is administratively up is wired.
    pub ports_up: bool,
    pub observed: Option<Observed>,
}

/// What a host said last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    pub generation: u64,
    /// None: on its way.
    pub power: Option<Power>,
    /// The last resting power.
    pub rest: Power,
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    /// The host has given up.
    pub gave_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub status: &'static str,
    pub vm_state: &'static str,
    pub task_state: Option<&'static str>,
    /// 0 no state, 1 running, 3 paused, 4 shut down, 6 crashed, 7 suspended.
    pub power_state: u8,
    /// The fault, if one is known, is shown.
    pub shows_fault: bool,
}

/// True once the guest is what the newest verb asked for.
pub fn settled(facts: &Facts) -> bool {
    let Some(observed) = &facts.observed else { return false };
    let reached = observed.generation >= facts.verb_generation
        && observed.power == Some(facts.desired)
        && observed.soft_reboots >= facts.soft_reboots
        && observed.hard_reboots >= facts.hard_reboots;
    // ACTIVE for the first time only with its ports; afterwards a lost port is the port's own status.
    reached && (facts.launched || facts.desired != Power::Running || facts.ports_up)
}

/// Status, vm_state, task_state and power_state, as Nova shows them.
pub fn state(facts: &Facts) -> State {
    let power_state = power_state(facts);
    let gave_up = facts.observed.is_some_and(|it| it.gave_up && it.generation >= facts.verb_generation);
    let late = facts.overdue && !settled(facts);
    if facts.verb == Verb::Delete {
        let vm_state = if facts.unschedulable || late { "error" } else { resting(facts) };
        return named(vm_state, Some("deleting"), power_state);
    }
    if facts.soft_deleted {
        return named("soft-delete", None, power_state);
    }
    if facts.unschedulable || gave_up || facts.forced_error || late {
        return named("error", None, power_state);
    }
    if !facts.launched && !settled(facts) {
        let task = if facts.scheduled { "spawning" } else { "scheduling" };
        return named("building", Some(task), power_state);
    }
    if settled(facts) {
        return named(vm_state(facts.desired), None, power_state);
    }
    named(resting(facts), task_state(facts.verb), power_state)
}

fn power_state(facts: &Facts) -> u8 {
    let Some(power) = facts.observed.and_then(|observed| observed.power) else { return 0 };
    match power {
        Power::Running => 1,
        Power::Paused => 3,
        Power::Stopped if !facts.launched => 0,
        Power::Stopped => 4,
        Power::Suspended => 4,
        Power::Absent => 0,
    }
}

/// What the server was before the verb, as far as it is known.
fn resting(facts: &Facts) -> &'static str {
    match facts.observed {
        Some(observed) if facts.launched => vm_state(observed.rest),
        _ => "building",
    }
}

fn vm_state(power: Power) -> &'static str {
    match power {
        Power::Running => "active",
        Power::Stopped => "stopped",
        Power::Paused => "paused",
        Power::Suspended => "suspended",
        Power::Absent => "deleted",
    }
}

fn task_state(verb: Verb) -> Option<&'static str> {
    match verb {
        Verb::Create => Some("spawning"),
        Verb::Start => Some("powering-on"),
        Verb::Stop => Some("powering-off"),
        Verb::SoftReboot => Some("rebooting"),
        Verb::HardReboot => Some("rebooting_hard"),
        Verb::Pause => Some("pausing"),
        Verb::Unpause => Some("unpausing"),
        Verb::Suspend => Some("suspending"),
        Verb::Resume => Some("resuming"),
        Verb::Delete => Some("deleting"),
        Verb::PowerSync => None,
    }
}

fn named(vm_state: &'static str, task_state: Option<&'static str>, power_state: u8) -> State {
    let status = match (vm_state, task_state) {
        ("active", Some("rebooting")) => "REBOOT",
        ("active" | "stopped" | "paused" | "suspended" | "error", Some("rebooting_hard")) => "HARD_REBOOT",
        ("active", _) => "ACTIVE",
        ("building", _) => "BUILD",
        ("stopped", _) => "SHUTOFF",
        ("paused", _) => "PAUSED",
        ("suspended", _) => "SUSPENDED",
        ("deleted", _) => "DELETED",
        ("soft-delete", _) => "SOFT_DELETED",
        _ => "ERROR",
    };
    State { status, vm_state, task_state, power_state, shows_fault: status == "ERROR" || status == "DELETED" }
}

/// An action of the API that depends on the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// As Nova names it in its refusals.
    pub action: &'static str,
    pub vm_states: &'static [&'static str],
    pub task_states: &'static [&'static str],
}

/// Which states each verb may start from, as Nova's `check_instance_state` has it.
pub fn guard(verb: Verb) -> Guard {
    const NONE: &[&str] = &[];
    const HARD: &[&str] = &["active", "stopped", "paused", "suspended", "error"];
    const REBOOTING: &[&str] = &["rebooting", "rebooting_hard", "pausing", "suspending", "resuming", "unpausing"];
    let (action, vm_states, task_states): (_, &'static [&'static str], _) = match verb {
        Verb::Start => ("start", &["stopped"], NONE),
        Verb::Stop => ("stop", &["active", "error"], NONE),
        Verb::SoftReboot => ("reboot", &["active"], NONE),
        Verb::HardReboot => ("reboot", HARD, REBOOTING),
        Verb::Pause => ("pause", &["active"], NONE),
        Verb::Unpause => ("unpause", &["paused"], NONE),
        Verb::Suspend => ("suspend", &["active"], NONE),
        Verb::Resume => ("resume", &["suspended"], NONE),
        Verb::Create | Verb::Delete | Verb::PowerSync => ("delete", &[], NONE),
    };
    Guard { action, vm_states, task_states }
}

impl Guard {
    /// None where the action may start; else the attribute and the value that forbid it.
    pub fn refusal(&self, state: &State) -> Option<(&'static str, &'static str)> {
        if !self.vm_states.contains(&state.vm_state) {
            return Some(("vm_state", state.vm_state));
        }
        state.task_state.filter(|task| !self.task_states.contains(task)).map(|task| ("task_state", task))
    }
}

#[cfg(test)]
mod tests;
