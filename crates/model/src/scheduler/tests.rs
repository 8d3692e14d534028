//! The decision and its explanation, on clouds by hand and at random.

use super::*;
use expect_test::expect;
use proptest::prelude::*;

fn host(name: &str, free_memory: u64) -> Host {
    Host {
        name: name.into(),
        availability_zone: "nova".into(),
        alive: true,
        enabled: true,
        vcpus: Room { used: 0, capacity: 8 },
        memory_mib: Room { used: 0, capacity: free_memory },
        disk_gib: Room { used: 0, capacity: 100 },
    }
}

fn need(memory_mib: u64) -> Request {
    Request { vcpus: 1, memory_mib, disk_gib: 1, ..Request::default() }
}

#[test]
fn the_emptiest_fitting_host_is_chosen_and_the_decision_says_so() {
    let hosts = [host("a", 100), host("b", 300), host("c", 300)];
    assert_eq!(choose(&need(50), &hosts).unwrap().as_str(), "b");
    let said = |request: &Request| decide(request, &hosts).unwrap().sentence();
    expect![[
        r#"3 of 3 hosts fitted, and b had the most free memory: 300 MiB, with 8 vCPUs; the next best, c, had 300 MiB."#
    ]]
    .assert_eq(&said(&need(50)));
    let only = Request { host: Some("a".into()), ..need(50) };
    assert_eq!(said(&only), "a was asked for by name, and fitted.");
    let not_b = Request { avoid: vec!["b".into()], ..need(50) };
    expect![
        "2 of 3 hosts fitted, and c had the most free memory: 300 MiB, with 8 vCPUs; the next best, a, had 100 MiB."
    ]
    .assert_eq(&said(&not_b));
}

#[test]
fn a_refusal_holds_the_table_and_owners_read_counts_only() {
    let down = Host { alive: false, ..host("a", 10) };
    let disabled = Host { enabled: false, ..host("b", 1000) };
    let elsewhere = Host { availability_zone: "east".into(), ..host("c", 1000) };
    let request = Request { availability_zone: Some("nova".into()), ..need(500) };
    let explained = choose(&request, &[down, disabled, elsewhere]).unwrap_err();
    expect![[r#"
        a: host up FAIL; host enabled ok; availability zone ok; vCPUs ok (1 needed, 8 of 8 free); memory (MiB) FAIL (500 needed, 10 of 10 free); disk (GiB) ok (1 needed, 100 of 100 free)
        b: host up ok; host enabled FAIL; availability zone ok; vCPUs ok (1 needed, 8 of 8 free); memory (MiB) ok (500 needed, 1000 of 1000 free); disk (GiB) ok (1 needed, 100 of 100 free)
        c: host up ok; host enabled ok; availability zone FAIL; vCPUs ok (1 needed, 8 of 8 free); memory (MiB) ok (500 needed, 1000 of 1000 free); disk (GiB) ok (1 needed, 100 of 100 free)
        nearest: b
        would fit: with host b enabled"#]]
    .assert_eq(&explained.table());
    expect!["Of 3 hosts, so many fail at: host up 1, host enabled 1, availability zone 1, memory (MiB) 1. It would fit without asking for that availability zone."]
        .assert_eq(&explained.summary());
    assert_eq!(choose::<Host>(&need(1), &[]).unwrap_err().summary(), "The cloud has no hosts.");
    let same = choose(&need(500), &[host("x", 1), host("y", 2)]).unwrap_err();
    expect!["Of 2 hosts, so many fail at: memory (MiB) 2. It would fit with a flavor of 498 MiB of memory less."]
        .assert_eq(&same.summary());
}

/// The changes that are named, beside what they are for.
#[test]
fn the_smallest_change_is_named() {
    let full = Host { vcpus: Room { used: 8, capacity: 8 }, ..host("full", 1000) };
    let half = Host { memory_mib: Room { used: 600, capacity: 1000 }, ..host("half", 0) };
    let overfull = Host { vcpus: Room { used: 9, capacity: 8 }, ..host("over", 1000) };
    let zoned = |zone: &str| Request { availability_zone: Some(zone.into()), ..need(1) };
    let named = Request { host: Some("full".into()), ..need(1) };
    let cases: [(&str, Request, Vec<Host>, Option<&str>, &str); 6] = [
        ("no host", need(5), vec![], None, "with another host that has 1 vCPU, 5 MiB of memory, 1 GiB of disk free"),
        (
            "too large for all",
            need(2000),
            vec![full.clone()],
            None,
            "with another host that has 1 vCPU, 2000 MiB of memory, 1 GiB of disk free",
        ),
        (
            "full",
            need(500),
            vec![full.clone(), half],
            Some("with a flavor of 100 MiB of memory less"),
            "with a flavor of 100 MiB of memory less",
        ),
        ("no processor", need(1), vec![overfull], None, "with 2 vCPUs freed on host over"),
        (
            "zone",
            zoned("east"),
            vec![host("a", 9)],
            Some("without asking for that availability zone"),
            "without asking for that availability zone",
        ),
        (
            "named",
            named,
            vec![full, host("a", 9)],
            Some("without asking for that host"),
            "without asking for that host",
        ),
    ];
    for (name, request, hosts, of_request, of_all) in cases {
        let explained = choose(&request, &hosts).unwrap_err();
        assert_eq!(explained.of_request.map(|it| it.to_string()).as_deref(), of_request, "{name}");
        assert_eq!(explained.of_all.unwrap().to_string(), of_all, "{name}");
    }
}

#[test]
fn a_disabled_host_takes_what_names_it() {
    let disabled = Host { enabled: false, ..host("b", 1000) };
    assert!(choose(&need(1), std::slice::from_ref(&disabled)).is_err());
    assert!(choose(&Request { host: Some("b".into()), ..need(1) }, &[disabled]).is_ok());
}

/// Does what a change says.
fn apply(change: &Change, request: &mut Request, hosts: &mut Vec<Host>) {
    let less =
        |room: &mut Room, amount: u64| room.used = room.used.checked_sub(amount).expect("no more is freed than used");
    for step in &change.steps {
        match step {
            Step::WithoutNamedHost => request.host = None,
            Step::WithoutVolumes => request.volumes = None,
            Step::WithoutZone => request.availability_zone = None,
            Step::SmallerFlavor { vcpus, memory_mib, disk_gib } => {
                request.vcpus -= vcpus;
                request.memory_mib -= memory_mib;
                request.disk_gib -= disk_gib;
                assert!(request.vcpus > 0 && request.memory_mib > 0);
            }
            Step::HostUp { host } => of(hosts, host).alive = true,
            Step::HostEnabled { host } => of(hosts, host).enabled = true,
            Step::Free { host, vcpus, memory_mib, disk_gib } => {
                let host = of(hosts, host);
                less(&mut host.vcpus, *vcpus);
                less(&mut host.memory_mib, *memory_mib);
                less(&mut host.disk_gib, *disk_gib);
            }
            Step::AnotherHost { zone, vcpus, memory_mib, disk_gib } => {
                let room = |capacity: &u64| Room { used: 0, capacity: *capacity };
                hosts.push(Host {
                    availability_zone: zone.clone().unwrap_or_else(|| "nova".into()),
                    vcpus: room(vcpus),
                    memory_mib: room(memory_mib),
                    disk_gib: room(disk_gib),
                    ..host("another", 0)
                });
            }
        }
    }
}

fn of<'a>(hosts: &'a mut [Host], name: &HostName) -> &'a mut Host {
    hosts.iter_mut().find(|host| host.name == *name).expect("a host of the cloud is named")
}

fn a_room() -> impl Strategy<Value = Room> {
    (0u64..12, 0u64..12).prop_map(|(used, capacity)| Room { used, capacity })
}

fn a_host() -> impl Strategy<Value = Host> {
    (any::<bool>(), 0u8..4, a_room(), a_room(), a_room(), any::<bool>()).prop_map(
        |(alive, on, vcpus, memory, disk, east)| Host {
            name: HostName::default(),
            availability_zone: if east { "east".into() } else { "nova".into() },
            alive,
            enabled: on > 0,
            vcpus,
            memory_mib: memory,
            disk_gib: disk,
        },
    )
}

fn a_request() -> impl Strategy<Value = Request> {
    let zone =
        proptest::option::of(prop_oneof![Just("nova".to_owned()), Just("east".to_owned()), Just("west".to_owned())]);
    let named = proptest::option::weighted(0.2, 0usize..6);
    let avoid = proptest::collection::vec(0usize..6, 0..3);
    let volumes = proptest::option::weighted(0.3, proptest::collection::btree_set(0usize..6, 0..3));
    let room = (1u64..10, 1u64..10, 0u64..10);
    (room, zone, named, avoid, volumes).prop_map(|((vcpus, memory_mib, disk_gib), zone, named, avoid, volumes)| {
        Request {
            vcpus,
            memory_mib,
            disk_gib,
            availability_zone: zone,
            host: named.map(|n| HostName::new(format!("h{n}"))),
            avoid: avoid.into_iter().map(|n| HostName::new(format!("h{n}"))).collect(),
            volumes: volumes.map(|hosts| hosts.into_iter().map(|n| HostName::new(format!("h{n}"))).collect()),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_chosen_fits_and_what_is_named_would_fit(request in a_request(), mut hosts in proptest::collection::vec(a_host(), 0..6)) {
        for (n, host) in hosts.iter_mut().enumerate() {
            host.name = HostName::new(format!("h{n}"));
        }
        let row_fits = |host: &Host| checks(&request, host).iter().all(|check| check.pass);
        match decide(&request, &hosts) {
            Ok(decision) => {
                prop_assert!(row_fits(hosts.iter().find(|host| host.name == decision.host).unwrap()));
                prop_assert_eq!(decision.fitting as usize, hosts.iter().filter(|host| row_fits(host)).count());
            }
            Err(explained) => {
                prop_assert_eq!(explained.rows.len(), hosts.len());
                prop_assert!(explained.rows.iter().all(|row| row.failed().next().is_some()));
                for change in explained.of_request.iter().chain(&explained.of_all) {
                    let (mut request, mut hosts) = (request.clone(), hosts.clone());
                    apply(change, &mut request, &mut hosts);
                    prop_assert!(choose(&request, &hosts).is_ok(), "{change}");
                }
                // Nothing that is named to an owner is larger than it must be.
                if let Some(Step::SmallerFlavor { vcpus, memory_mib, disk_gib }) = explained.of_request.as_ref().and_then(|change| change.steps.last()) {
                    let change = explained.of_request.as_ref().unwrap();
                    for (v, m, d) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
                        if *vcpus < v || *memory_mib < m || *disk_gib < d {
                            continue;
                        }
                        let mut lesser = change.clone();
                        lesser.steps.pop();
                        lesser.steps.push(Step::SmallerFlavor { vcpus: vcpus - v, memory_mib: memory_mib - m, disk_gib: disk_gib - d });
                        let (mut request, mut hosts) = (request.clone(), hosts.clone());
                        apply(&lesser, &mut request, &mut hosts);
                        prop_assert!(choose(&request, &hosts).is_err(), "{lesser} instead of {change}");
                    }
                }
                let names: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
                let summary = explained.summary();
                prop_assert!(!names.iter().any(|name| summary.contains(name)), "{summary}");
            }
        }
    }
}
