//! A server's state, as a table.

use super::*;

fn seen(generation: u64, power: Option<Power>, rest: Power) -> Option<Observed> {
    Some(Observed { generation, power, rest, ..Observed::default() })
}

fn line(facts: Facts) -> String {
    let state = state(&facts);
    format!("{} {} {} {}", state.status, state.vm_state, state.task_state.unwrap_or("-"), state.power_state)
}

#[test]
fn a_server_is_shown_as_nova_shows_it() {
    use Power::*;
    let build = Facts { verb_generation: 1, ..Facts::default() };
    let placed = Facts { scheduled: true, ..build };
    let up = Facts { launched: true, ports_up: true, observed: seen(1, Some(Running), Running), ..placed };
    let ask = |desired, verb| Facts { desired, verb, verb_generation: 2, ..up };
    let table: &[(&str, Facts, &str)] = &[
        ("just accepted", build, "BUILD building scheduling 0"),
        ("no host", Facts { unschedulable: true, ..build }, "ERROR error - 0"),
        ("a host", placed, "BUILD building spawning 0"),
        ("booting", Facts { observed: seen(0, None, Stopped), ..placed }, "BUILD building spawning 0"),
        (
            "running, not wired",
            Facts { observed: seen(1, Some(Running), Running), ..placed },
            "BUILD building spawning 1",
        ),
        ("running and wired", Facts { launched: false, ..up }, "ACTIVE active - 1"),
        ("a port lost later", Facts { ports_up: false, ..up }, "ACTIVE active - 1"),
        (
            "gave up at first",
            Facts {
                observed: Some(Observed { gave_up: true, generation: 1, power: Some(Stopped), ..Observed::default() }),
                ..placed
            },
            "ERROR error - 0",
        ),
        ("stopping", ask(Stopped, Verb::Stop), "ACTIVE active powering-off 1"),
        (
            "stopped",
            Facts { observed: seen(2, Some(Stopped), Stopped), ..ask(Stopped, Verb::Stop) },
            "SHUTOFF stopped - 4",
        ),
        (
            "starting",
            Facts { observed: seen(1, Some(Stopped), Stopped), ..ask(Running, Verb::Start) },
            "SHUTOFF stopped powering-on 4",
        ),
        ("soft reboot", Facts { soft_reboots: 1, ..ask(Running, Verb::SoftReboot) }, "REBOOT active rebooting 1"),
        (
            "hard reboot",
            Facts { hard_reboots: 1, ..ask(Running, Verb::HardReboot) },
            "HARD_REBOOT active rebooting_hard 1",
        ),
        (
            "generation reached but not the reboot",
            Facts { hard_reboots: 1, observed: seen(2, Some(Running), Running), ..ask(Running, Verb::HardReboot) },
            "HARD_REBOOT active rebooting_hard 1",
        ),
        (
            "reboot on its way",
            Facts { hard_reboots: 1, observed: seen(1, None, Running), ..ask(Running, Verb::HardReboot) },
            "HARD_REBOOT active rebooting_hard 0",
        ),
        ("pausing", ask(Paused, Verb::Pause), "ACTIVE active pausing 1"),
        ("paused", Facts { observed: seen(2, Some(Paused), Paused), ..ask(Paused, Verb::Pause) }, "PAUSED paused - 3"),
        (
            "unpausing",
            Facts { observed: seen(1, Some(Paused), Paused), ..ask(Running, Verb::Unpause) },
            "PAUSED paused unpausing 3",
        ),
        (
            "suspended",
            Facts { observed: seen(2, Some(Suspended), Suspended), ..ask(Suspended, Verb::Suspend) },
            "SUSPENDED suspended - 4",
        ),
        (
            "stopped by itself, noticed",
            Facts { observed: seen(1, Some(Stopped), Stopped), ..ask(Stopped, Verb::PowerSync) },
            "SHUTOFF stopped - 4",
        ),
        ("an error by hand", Facts { forced_error: true, ..up }, "ERROR error - 1"),
        ("deleting", ask(Absent, Verb::Delete), "ACTIVE active deleting 1"),
        ("deleting before it ran", Facts { launched: false, ..ask(Absent, Verb::Delete) }, "BUILD building deleting 1"),
        (
            "deleting what found no host",
            Facts { unschedulable: true, desired: Absent, verb: Verb::Delete, verb_generation: 2, ..build },
            "ERROR error deleting 0",
        ),
        ("spawning for too long", Facts { overdue: true, ..placed }, "ERROR error - 0"),
        ("late, and right after all", Facts { overdue: true, launched: false, ..up }, "ACTIVE active - 1"),
        ("stopping for too long", Facts { overdue: true, ..ask(Stopped, Verb::Stop) }, "ERROR error - 1"),
        (
            "stopped in the end",
            Facts { overdue: true, observed: seen(2, Some(Stopped), Stopped), ..ask(Stopped, Verb::Stop) },
            "SHUTOFF stopped - 4",
        ),
        ("deleting for too long", Facts { overdue: true, ..ask(Absent, Verb::Delete) }, "ERROR error deleting 1"),
    ];
    for (what, facts, expected) in table {
        assert_eq!(line(*facts), *expected, "{what}");
    }
}

#[test]
fn an_old_fault_does_not_outlive_the_next_verb() {
    let gave_up = Observed {
        gave_up: true,
        generation: 1,
        power: Some(Power::Stopped),
        rest: Power::Stopped,
        ..Observed::default()
    };
    let facts =
        Facts { launched: true, scheduled: true, verb_generation: 1, observed: Some(gave_up), ..Facts::default() };
    assert_eq!(state(&facts).status, "ERROR");
    let again = Facts { verb: Verb::HardReboot, verb_generation: 2, hard_reboots: 1, ..facts };
    assert_eq!(state(&again).status, "HARD_REBOOT");
}

#[test]
fn verbs_start_only_from_their_states() {
    let active = State { status: "ACTIVE", vm_state: "active", task_state: None, power_state: 1, shows_fault: false };
    let busy = State { task_state: Some("powering-off"), ..active };
    let off = State { vm_state: "stopped", ..active };
    assert_eq!(guard(Verb::Stop).refusal(&active), None);
    assert_eq!(guard(Verb::Stop).refusal(&off), Some(("vm_state", "stopped")));
    assert_eq!(guard(Verb::Stop).refusal(&busy), Some(("task_state", "powering-off")));
    assert_eq!(guard(Verb::Start).refusal(&active), Some(("vm_state", "active")));
    assert_eq!(guard(Verb::HardReboot).refusal(&off), None);
    assert_eq!(guard(Verb::SoftReboot).refusal(&off), Some(("vm_state", "stopped")));
    let rebooting = State { task_state: Some("rebooting"), ..active };
    assert_eq!(guard(Verb::HardReboot).refusal(&rebooting), None);
}
