//! What to do next for a guest: a pure decision over its spec, its ledger and its process.

use crate::ledger::Done;
use agent_api::{DesiredPower, GuestSpec, ObservedPower, OnCrash};
use base::Timestamp;
use qemu::RunState;

/// What is known of a guest at one moment.
pub struct World<'a> {
    pub spec: &'a GuestSpec,
    pub done: &'a Done,
    /// The state of its process; none: there is no process.
    pub run: Option<RunState>,
    /// Its ports are in their networks.
    pub wired: bool,
    pub boot_id: &'a str,
    pub now: Timestamp,
    pub soft_deadline_ms: i64,
}

/// The next step. All of them may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do: it is as it shall be, or as it stopped by itself.
    Rest(ObservedPower),
    /// Something is on its way; look again soon.
    Wait,
    /// Make the process, from saved memory where there is some.
    Start,
    /// Bring its ports into their networks.
    Wire,
    /// Let it run: from here on its end is noticed.
    Continue,
    Pause,
    /// Write its memory into a file.
    Save,
    PressPower,
    /// It has switched itself off, to be switched on again at once.
    SoftRebooted,
    /// End the process because that was asked for.
    End,
    /// It ended by itself, and stays so.
    Ended(Why),
    /// It crashed, and is to be started again.
    Crashed,
    /// Remove everything.
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Powered itself off.
    Guest,
    /// Its process is gone; the exit status, if anybody has it, says why.
    Process,
    /// The process is there, the machine in it cannot go on.
    Broken,
}

pub fn next(world: &World<'_>) -> Step {
    let World { spec, done, run, .. } = world;
    match (spec.power, run) {
        (DesiredPower::Absent, None) => Step::Remove,
        (DesiredPower::Absent, Some(_)) => Step::End,
        // Begun by this agent or by one that was killed: what asked for it may no longer show in the spec.
        (_, Some(_)) if done.ending => Step::End,
        (DesiredPower::Stopped, None) => Step::Rest(ObservedPower::Stopped),
        (DesiredPower::Stopped, Some(RunState::Running)) if !spec.at_once => power_off(world),
        (DesiredPower::Stopped, Some(_)) => Step::End,
        (DesiredPower::Suspended, None) if done.memory_saved => Step::Rest(ObservedPower::Suspended),
        (DesiredPower::Suspended, None) if done.alive.is_some() && !done.ending => Step::Ended(Why::Process),
        (DesiredPower::Suspended, None) => Step::Rest(ObservedPower::Stopped),
        (DesiredPower::Suspended, Some(run)) => suspend(world, *run),
        (DesiredPower::Running | DesiredPower::Paused, None) => without_process(world),
        (DesiredPower::Running | DesiredPower::Paused, Some(run)) => with_process(world, *run),
    }
}

/// How long ago the button was pressed, unless that is so old that it tells nothing any more.
fn pressed_ms_ago(world: &World<'_>) -> Option<i64> {
    let ago = world.now.ms_since(world.done.power_pressed_at?);
    (ago < world.soft_deadline_ms + world.soft_deadline_ms.max(30_000)).then_some(ago)
}

/// Presses the button, waits, and ends the process when the guest does not listen.
fn power_off(world: &World<'_>) -> Step {
    match pressed_ms_ago(world) {
        None => Step::PressPower,
        Some(ago) if ago >= world.soft_deadline_ms => Step::End,
        Some(_) => Step::Wait,
    }
}

fn suspend(world: &World<'_>, run: RunState) -> Step {
    match run {
        _ if world.done.memory_saved && run == RunState::Saved => Step::End,
        RunState::Running => Step::Pause,
        RunState::Paused | RunState::Saved => Step::Save,
        RunState::Incoming => Step::Wait,
        RunState::Shutdown => Step::Ended(Why::Guest),
        RunState::DiskError | RunState::Crashed => Step::Ended(Why::Broken),
    }
}

fn without_process(world: &World<'_>) -> Step {
    let World { spec, done, .. } = world;
    if done.stopped_by_itself.as_ref().is_some_and(|it| spec.power_generation <= it.generation) {
        return Step::Rest(ObservedPower::Stopped);
    }
    match &done.alive {
        // Never started, or ended because that was asked for.
        None => Step::Start,
        Some(_) if done.ending => Step::Start,
        // The host was rebooted under it: it comes back.
        Some(alive) if alive.boot_id != world.boot_id => Step::Start,
        // It ended while it was to be rebooted: how the first half came about makes no difference.
        Some(_) if spec.hard_reboots > done.hard_reboots || spec.soft_reboots > done.soft_reboots => Step::Start,
        Some(_) if spec.on_crash == OnCrash::Restart => Step::Crashed,
        Some(_) => Step::Ended(Why::Process),
    }
}

fn with_process(world: &World<'_>, run: RunState) -> Step {
    let World { spec, done, .. } = world;
    // A machine that was not let go yet has nothing to reboot.
    if spec.hard_reboots > done.hard_reboots && done.alive.is_some() {
        return Step::End;
    }
    let soft = spec.soft_reboots > done.soft_reboots && done.alive.is_some();
    match run {
        RunState::Incoming => Step::Wait,
        RunState::Shutdown if soft => Step::SoftRebooted,
        // Asked to stop, and to start again before it had stopped.
        RunState::Shutdown if pressed_ms_ago(world).is_some() => Step::End,
        RunState::Shutdown => Step::Ended(Why::Guest),
        RunState::Crashed if spec.on_crash == OnCrash::Restart => Step::Crashed,
        RunState::Crashed => Step::Ended(Why::Broken),
        _ if !world.wired => Step::Wire,
        RunState::Running if soft => power_off(world),
        // A guest that does not run hears no button.
        _ if soft => Step::End,
        RunState::Running if spec.power == DesiredPower::Paused => Step::Pause,
        RunState::Running if done.alive.is_none() => Step::Continue,
        RunState::Running => Step::Rest(ObservedPower::Running),
        RunState::Paused if spec.power == DesiredPower::Paused => Step::Rest(ObservedPower::Paused),
        RunState::Paused | RunState::Saved | RunState::DiskError => Step::Continue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::tests::spec;
    use crate::ledger::{Alive, StoppedByItself};
    use expect_test::{Expect, expect};

    #[derive(Clone)]
    struct Case {
        spec: GuestSpec,
        done: Done,
        wired: bool,
        now: Timestamp,
    }

    fn case(power: DesiredPower) -> Case {
        let mut spec = spec("5f2b0a6e-0001-4000-8000-000000000001");
        (spec.power, spec.generation, spec.power_generation) = (power, 5, 4);
        let alive = Some(Alive { pid: 1, start_ticks: 1, boot_id: "this boot".into() });
        Case { spec, done: Done { alive, ..Done::default() }, wired: true, now: Timestamp(1_000_000_000) }
    }

    impl Case {
        fn with(mut self, change: impl FnOnce(&mut Case)) -> Case {
            change(&mut self);
            self
        }
    }

    /// The step for each state of the process.
    fn check(case: Case, expected: Expect) {
        use RunState::*;
        let runs = [
            None,
            Some(Running),
            Some(Paused),
            Some(Incoming),
            Some(Saved),
            Some(Shutdown),
            Some(DiskError),
            Some(Crashed),
        ];
        let mut shown = String::new();
        for run in runs {
            let step = next(&World {
                spec: &case.spec,
                done: &case.done,
                run,
                wired: case.wired,
                boot_id: "this boot",
                now: case.now,
                soft_deadline_ms: 60_000,
            });
            let name = run.map_or("none".into(), |run| format!("{run:?}"));
            shown += &format!("{name:<10} {step:?}\n");
        }
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_guest_that_shall_run() {
        check(
            case(DesiredPower::Running),
            expect![[r#"
            none       Ended(Process)
            Running    Rest(Running)
            Paused     Continue
            Incoming   Wait
            Saved      Continue
            Shutdown   Ended(Guest)
            DiskError  Continue
            Crashed    Ended(Broken)
        "#]],
        );
    }

    #[test]
    fn a_guest_that_was_never_started() {
        check(
            case(DesiredPower::Running).with(|it| it.done.alive = None),
            expect![[r#"
            none       Start
            Running    Continue
            Paused     Continue
            Incoming   Wait
            Saved      Continue
            Shutdown   Ended(Guest)
            DiskError  Continue
            Crashed    Ended(Broken)
        "#]],
        );
    }

    #[test]
    fn an_adopted_guest_is_wired_first() {
        check(
            case(DesiredPower::Running).with(|it| it.wired = false),
            expect![[r#"
            none       Ended(Process)
            Running    Wire
            Paused     Wire
            Incoming   Wait
            Saved      Wire
            Shutdown   Ended(Guest)
            DiskError  Wire
            Crashed    Ended(Broken)
        "#]],
        );
    }

    #[test]
    fn a_guest_that_restarts_after_a_crash() {
        check(
            case(DesiredPower::Running).with(|it| it.spec.on_crash = OnCrash::Restart),
            expect![[r#"
            none       Crashed
            Running    Rest(Running)
            Paused     Continue
            Incoming   Wait
            Saved      Continue
            Shutdown   Ended(Guest)
            DiskError  Continue
            Crashed    Crashed
        "#]],
        );
    }

    #[test]
    fn a_guest_after_a_reboot_of_the_host() {
        check(
            case(DesiredPower::Running).with(|it| it.done.alive.as_mut().unwrap().boot_id = "last boot".into()),
            expect![[r#"
                none       Start
                Running    Rest(Running)
                Paused     Continue
                Incoming   Wait
                Saved      Continue
                Shutdown   Ended(Guest)
                DiskError  Continue
                Crashed    Ended(Broken)
            "#]],
        );
    }

    #[test]
    fn a_guest_that_stopped_by_itself_waits_until_its_power_is_asked_for() {
        let stopped = |generation| {
            case(DesiredPower::Running).with(|it| {
                it.done.alive = None;
                it.done.stopped_by_itself = Some(StoppedByItself { generation, reason: "guest".into() });
            })
        };
        check(
            stopped(4),
            expect![[r#"
            none       Rest(Stopped)
            Running    Continue
            Paused     Continue
            Incoming   Wait
            Saved      Continue
            Shutdown   Ended(Guest)
            DiskError  Continue
            Crashed    Ended(Broken)
        "#]],
        );
        check(
            stopped(3),
            expect![[r#"
            none       Start
            Running    Continue
            Paused     Continue
            Incoming   Wait
            Saved      Continue
            Shutdown   Ended(Guest)
            DiskError  Continue
            Crashed    Ended(Broken)
        "#]],
        );
    }

    #[test]
    fn a_hard_reboot() {
        check(
            case(DesiredPower::Running).with(|it| it.spec.hard_reboots = 1),
            expect![[r#"
                none       Start
                Running    End
                Paused     End
                Incoming   End
                Saved      End
                Shutdown   End
                DiskError  End
                Crashed    End
            "#]],
        );
    }

    #[test]
    fn a_reboot_whose_first_half_was_cut_off_is_gone_on_with() {
        let ending = |power| {
            case(power).with(|it| {
                it.spec.hard_reboots = 1;
                it.done.ending = true;
            })
        };
        check(
            ending(DesiredPower::Running),
            expect![[r#"
            none       Start
            Running    End
            Paused     End
            Incoming   End
            Saved      End
            Shutdown   End
            DiskError  End
            Crashed    End
        "#]],
        );
        check(
            ending(DesiredPower::Suspended),
            expect![[r#"
            none       Rest(Stopped)
            Running    End
            Paused     End
            Incoming   End
            Saved      End
            Shutdown   End
            DiskError  End
            Crashed    End
        "#]],
        );
    }

    #[test]
    fn a_soft_reboot() {
        check(
            case(DesiredPower::Running).with(|it| it.spec.soft_reboots = 1),
            expect![[r#"
                none       Start
                Running    PressPower
                Paused     End
                Incoming   Wait
                Saved      End
                Shutdown   SoftRebooted
                DiskError  End
                Crashed    Ended(Broken)
            "#]],
        );
    }

    #[test]
    fn a_soft_reboot_that_the_guest_does_not_hear() {
        check(
            case(DesiredPower::Running).with(|it| {
                it.spec.soft_reboots = 1;
                it.done.power_pressed_at = Some(it.now.plus_s(-61));
            }),
            expect![[r#"
                none       Start
                Running    End
                Paused     End
                Incoming   Wait
                Saved      End
                Shutdown   SoftRebooted
                DiskError  End
                Crashed    Ended(Broken)
            "#]],
        );
    }

    #[test]
    fn a_guest_that_shall_stop() {
        check(
            case(DesiredPower::Stopped),
            expect![[r#"
            none       Rest(Stopped)
            Running    PressPower
            Paused     End
            Incoming   End
            Saved      End
            Shutdown   End
            DiskError  End
            Crashed    End
        "#]],
        );
    }

    #[test]
    fn a_guest_that_shall_stop_and_was_told_so() {
        check(
            case(DesiredPower::Stopped).with(|it| it.done.power_pressed_at = Some(it.now.plus_s(-5))),
            expect![[r#"
            none       Rest(Stopped)
            Running    Wait
            Paused     End
            Incoming   End
            Saved      End
            Shutdown   End
            DiskError  End
            Crashed    End
        "#]],
        );
    }

    #[test]
    fn a_guest_started_again_before_it_had_stopped() {
        check(
            case(DesiredPower::Running).with(|it| it.done.power_pressed_at = Some(it.now.plus_s(-5))),
            expect![[r#"
            none       Ended(Process)
            Running    Rest(Running)
            Paused     Continue
            Incoming   Wait
            Saved      Continue
            Shutdown   End
            DiskError  Continue
            Crashed    Ended(Broken)
        "#]],
        );
    }

    #[test]
    fn a_guest_that_shall_pause() {
        check(
            case(DesiredPower::Paused),
            expect![[r#"
            none       Ended(Process)
            Running    Pause
            Paused     Rest(Paused)
            Incoming   Wait
            Saved      Continue
            Shutdown   Ended(Guest)
            DiskError  Continue
            Crashed    Ended(Broken)
        "#]],
        );
    }

    #[test]
    fn a_guest_that_shall_be_suspended() {
        check(
            case(DesiredPower::Suspended),
            expect![[r#"
            none       Ended(Process)
            Running    Pause
            Paused     Save
            Incoming   Wait
            Saved      Save
            Shutdown   Ended(Guest)
            DiskError  Ended(Broken)
            Crashed    Ended(Broken)
        "#]],
        );
        check(
            case(DesiredPower::Suspended).with(|it| it.done.memory_saved = true),
            expect![[r#"
            none       Rest(Suspended)
            Running    Pause
            Paused     Save
            Incoming   Wait
            Saved      End
            Shutdown   Ended(Guest)
            DiskError  Ended(Broken)
            Crashed    Ended(Broken)
        "#]],
        );
    }

    #[test]
    fn a_guest_that_shall_go() {
        check(
            case(DesiredPower::Absent),
            expect![[r#"
            none       Remove
            Running    End
            Paused     End
            Incoming   End
            Saved      End
            Shutdown   End
            DiskError  End
            Crashed    End
        "#]],
        );
    }
}
