//! What a simulated host promises, from outside.

use agent_api::*;
use base::{Env, ServerId};
use simhost::{Options, SimHost, Trouble};

fn spec(id: &str, generation: u64, power: DesiredPower) -> GuestSpec {
    GuestSpec {
        id: id.into(),
        generation,
        power,
        power_generation: generation,
        at_once: false,
        soft_reboots: 0,
        hard_reboots: 0,
        vcpus: 1,
        memory_mib: 64,
        root: Some(RootDisk {
            image: "image".into(),
            format: DiskFormat::Qcow2,
            sha512: String::new(),
            image_bytes: 1,
            size_gib: 1,
            flat: false,
        }),
        volumes: Vec::new(),
        nics: Vec::new(),
        on_crash: OnCrash::Stop,
        config_drive: false,
        metadata: InstanceMetadata { name: id.into(), hostname: id.into(), ..InstanceMetadata::default() },
    }
}

fn put(spec: GuestSpec) -> ViewDelta {
    ViewDelta { version: 1, whole: false, put: vec![ViewObject::Guest(spec)], remove: Vec::new() }
}

fn host() -> (SimHost, std::sync::Arc<base::clock::ManualClock>) {
    let (env, clock) = Env::seeded(7);
    (SimHost::new(env, Options::new("sim-1")), clock)
}

fn only(report: Report) -> GuestObserved {
    assert_eq!(report.guests.len(), 1, "{report:?}");
    report.guests.into_iter().next().unwrap()
}

#[test]
fn a_guest_runs_at_once_and_is_reported_once() {
    let (host, _clock) = host();
    host.apply_now(put(spec("a", 1, DesiredPower::Running)));
    let seen = only(host.observe_now(false));
    assert_eq!((seen.power, seen.generation), (ObservedPower::Running, 1));
    assert!(host.observe_now(false).is_empty());
    assert_eq!(host.observe_now(true).guests.len(), 1);
}

#[test]
fn a_lower_generation_is_refused() {
    let (host, _clock) = host();
    host.apply_now(put(spec("a", 5, DesiredPower::Stopped)));
    host.apply_now(put(spec("a", 4, DesiredPower::Running)));
    assert_eq!(only(host.observe_now(true)).power, ObservedPower::Stopped);
}

#[test]
fn a_reboot_is_done_once_for_each_count() {
    let (host, clock) = host();
    host.apply_now(put(spec("a", 1, DesiredPower::Running)));
    let first = only(host.observe_now(false)).started_at;
    clock.advance_ms(1000);
    let again = GuestSpec { hard_reboots: 1, ..spec("a", 2, DesiredPower::Running) };
    host.apply_now(put(again.clone()));
    let second = only(host.observe_now(false));
    assert!(second.started_at > first && second.hard_reboots == 1);
    host.apply_now(put(again));
    assert!(host.observe_now(false).is_empty());
}

#[test]
fn a_delay_passes_on_the_clock_that_was_handed_in() {
    let (host, clock) = host();
    host.set_delay_ms(500);
    host.apply_now(put(spec("a", 1, DesiredPower::Running)));
    assert_eq!(only(host.observe_now(false)).power, ObservedPower::Building);
    clock.advance_ms(499);
    host.tick();
    assert!(host.observe_now(false).is_empty());
    clock.advance_ms(1);
    host.tick();
    assert_eq!(only(host.observe_now(false)).power, ObservedPower::Running);
}

#[test]
fn a_failed_start_is_given_up_until_the_generation_rises() {
    let (host, _clock) = host();
    host.fail_starts(1, Trouble { message: "no memory".into(), retried: false });
    host.apply_now(put(spec("a", 1, DesiredPower::Running)));
    let seen = only(host.observe_now(false));
    assert_eq!((seen.power, seen.generation), (ObservedPower::Stopped, 1));
    assert_eq!(seen.fault.unwrap().message, "no memory");
    host.tick();
    assert!(host.observe_now(false).is_empty());
    host.apply_now(put(spec("a", 2, DesiredPower::Running)));
    let seen = only(host.observe_now(false));
    assert_eq!((seen.power, seen.fault), (ObservedPower::Running, None));
}

#[test]
fn a_retried_start_succeeds_later_and_says_the_fault_meanwhile() {
    let (host, _clock) = host();
    host.fail_starts(1, Trouble { message: "busy".into(), retried: true });
    host.apply_now(put(spec("a", 1, DesiredPower::Running)));
    assert_eq!(host.guests()[0].generation, 0);
    assert!(host.guests()[0].fault.is_some());
    host.tick();
    assert_eq!(host.guests()[0].power, ObservedPower::Running);
}

#[test]
fn a_crash_follows_the_spec() {
    let (host, _clock) = host();
    host.apply_now(put(spec("a", 1, DesiredPower::Running)));
    host.apply_now(put(GuestSpec { on_crash: OnCrash::Restart, ..spec("b", 1, DesiredPower::Running) }));
    for id in ["a", "b"] {
        assert!(host.crash_guest(&ServerId::from(id), "killed: signal 9"));
    }
    let guests = host.guests();
    assert_eq!(guests[0].stopped_by_itself.as_deref(), Some("killed: signal 9"));
    assert_eq!((guests[0].power, guests[1].power), (ObservedPower::Stopped, ObservedPower::Running));
    // Something else of it changes: it stays as it stopped, until its power is asked for.
    host.apply_now(put(GuestSpec { power_generation: 1, ..spec("a", 2, DesiredPower::Running) }));
    let seen = host.guests().remove(0);
    assert_eq!((seen.power, seen.generation), (ObservedPower::Stopped, 2));
    assert_eq!(seen.stopped_by_itself.as_deref(), Some("killed: signal 9"));
    host.apply_now(put(spec("a", 3, DesiredPower::Stopped)));
    assert_eq!(host.guests()[0].stopped_by_itself, None);
}

#[test]
fn an_absent_guest_is_answered_and_forgotten_when_the_view_drops_it() {
    let (host, _clock) = host();
    host.apply_now(put(spec("ghost", 3, DesiredPower::Absent)));
    let seen = only(host.observe_now(false));
    assert_eq!((seen.power, seen.generation), (ObservedPower::Absent, 3));
    host.apply_now(ViewDelta { remove: vec![(ViewKind::Guest, "ghost".into())], ..ViewDelta::default() });
    assert!(host.guests().is_empty());
}

#[test]
fn a_whole_view_leaves_unknown_guests_and_replaces_the_rest() {
    let (host, _clock) = host();
    host.apply_now(put(spec("a", 1, DesiredPower::Running)));
    host.apply_now(ViewDelta { put: vec![ViewObject::Port(port("p", "a"))], ..ViewDelta::default() });
    assert_eq!(host.observe_now(false).ports, vec![PortObserved { id: "p".into(), up: true, fault: None }]);
    host.apply_now(ViewDelta { whole: true, ..ViewDelta::default() });
    assert_eq!((host.guests().len(), host.objects().len()), (1, 0));
}

fn port(id: &str, server: &str) -> PortSpec {
    PortSpec {
        id: id.into(),
        network: "n".into(),
        server: Some(server.into()),
        mac: "fa:16:3e:00:00:01".into(),
        fixed_ips: Vec::new(),
        admin_state_up: true,
        port_security: true,
        security_groups: Vec::new(),
        allowed_address_pairs: Vec::new(),
        hostname: None,
        extra_dhcp_opts: Vec::new(),
    }
}

#[tokio::test]
async fn observe_waits_for_a_change_and_consoles_answer() {
    use tokio::io::AsyncReadExt;
    let (host, _clock) = host();
    let host = std::sync::Arc::new(host);
    let waiting = tokio::spawn({
        let host = host.clone();
        async move { host.observe(false).await }
    });
    tokio::task::yield_now().await;
    host.apply(put(spec("a", 1, DesiredPower::Running))).await.unwrap();
    assert_eq!(only(waiting.await.unwrap()).power, ObservedPower::Running);
    let id = ServerId::from("a");
    let log = host.console_log(&id, 7).await.unwrap();
    assert_eq!(log, b"login:\n");
    let mut console = host.console(&id, false).await.unwrap();
    let mut greeting = [0; 12];
    console.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");
    assert!(host.console(&ServerId::from("b"), true).await.is_err());
}

#[test]
fn a_killed_agent_leaves_its_guests_running_and_a_power_cut_does_not() {
    let (host, clock) = host();
    host.apply_now(put(spec("a", 1, DesiredPower::Running)));
    host.apply_now(put(spec("b", 1, DesiredPower::Stopped)));
    let (env, started) = (Env { clock: clock.clone(), ..Env::seeded(8).0 }, host.guests()[0].started_at);
    let mut machine = host.machine();
    let (boot_id, session) = (host.inventory().boot_id, host.inventory().session);
    drop(host);
    clock.advance_ms(1000);
    let host = SimHost::start(env.clone(), Options::new("sim-1"), machine.clone());
    assert_eq!(host.inventory().boot_id, boot_id);
    assert_ne!(host.inventory().session, session);
    assert_eq!((host.guests()[0].power, host.guests()[0].started_at), (ObservedPower::Running, started));
    machine.power_cut(&env);
    assert!(machine.guests().iter().all(|guest| guest.power == ObservedPower::Stopped), "{machine:?}");
    let host = SimHost::start(env, Options::new("sim-1"), machine);
    assert_ne!(host.inventory().boot_id, boot_id);
    host.tick();
    assert_eq!(host.guests()[0].power, ObservedPower::Running);
    assert!(host.guests()[0].started_at > started);
    assert_eq!(host.guests()[1].power, ObservedPower::Stopped);
}
