//! Beside documents: ledger, watch, past, leases, status. Each body gets an empty store.

use crate::Place;
use crate::things::*;
use base::{Env, FaultKind};
use store::{AsOf, Change, Charge, Error, Event, Follower, Query, Rev, Store, Usage, Watch};

pub async fn charges_stop_at_the_limit(place: Place) {
    let store = place.open().await;
    write(&store, "charge", |tx| {
        assert_eq!(tx.charge("p", "cores", 4, Some(10))?.used, 4);
        assert_eq!(tx.charge("p", "cores", 6, Some(10))?.used, 10);
        let (scope, resource) = ("p".into(), "cores".into());
        let refused = Error::Quota { scope, resource, used: 10, limit: 10, asked: 1 };
        assert_eq!(tx.charge("p", "cores", 1, Some(10)), Err(refused));
        assert_eq!(tx.usage("p", "cores")?, Usage { used: 10, limit: None });
        Ok(())
    })
    .await;
    let refused = store.write(cause("more"), |tx| Ok(tx.charge("p", "cores", 1, Some(10))?)).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Quota);
    assert_eq!(refused.message, "Quota exceeded for cores: Requested 1, but already used 10 of 10 cores.");
    write(&store, "back", |tx| Ok(tx.charge("p", "cores", -3, Some(10))?)).await;
    assert_eq!(store.read(|reader| Ok(reader.usage("p", "cores")?.used)).await.unwrap(), 7);
}

pub async fn the_ledger_knows_own_default_and_no_limits(place: Place) {
    let store = place.open().await;
    write(&store, "limits", |tx| {
        tx.set_limit("p", "cores", Some(5))?;
        assert!(tx.charge("p", "cores", 6, Some(100)).is_err());
        tx.set_limit("p", "ram", Some(-1))?;
        tx.charge("p", "ram", 1 << 40, Some(100))?;
        tx.charge("p", "disk", 1 << 40, None)?;
        Ok(())
    })
    .await;
    write(&store, "later", |tx| {
        tx.charge("p", "cores", 5, None)?;
        tx.set_limit("p", "cores", Some(2))?;
        assert!(tx.charge("p", "cores", 1, None).is_err(), "above a limit that was lowered");
        tx.charge("p", "cores", -1, None)?;
        tx.set_limit("p", "cores", None)?;
        assert!(tx.charge("p", "cores", 7, Some(10)).is_err());
        tx.charge("p", "cores", 6, Some(10))?;
        assert_eq!(tx.charge("p", "disk", -(1 << 41), None)?.used, 0, "never below nothing");
        Ok(())
    })
    .await;
    let usages = store.read(|reader| Ok(reader.list_usage("p")?)).await.unwrap();
    let usages: Vec<_> = usages.iter().map(|(name, usage)| (name.as_str(), usage.used, usage.limit)).collect();
    assert_eq!(usages, [("cores", 10, None), ("disk", 0, None), ("ram", 1 << 40, Some(-1))]);
    assert!(store.read(|reader| Ok(reader.list_usage("q")?)).await.unwrap().is_empty());
}

pub async fn several_charges_are_all_or_none(place: Place) {
    let store = place.open().await;
    let charge = |resource, delta| Charge { resource, delta, default_limit: Some(10) };
    write(&store, "charge", move |tx| {
        tx.charge("p", "cores", 3, None)?;
        let refused =
            tx.charge_all("p", &[charge("ram", 1), charge("cores", 4), charge("cores", 4), charge("disk", 1)]);
        let (scope, resource) = ("p".into(), "cores".into());
        assert_eq!(refused, Err(Error::Quota { scope, resource, used: 7, limit: 10, asked: 4 }));
        assert_eq!((tx.usage("p", "ram")?.used, tx.usage("p", "cores")?.used, tx.usage("p", "disk")?.used), (0, 3, 0));
        tx.charge_all("p", &[charge("ram", 1), charge("cores", 4), charge("cores", 3)])?;
        Ok(())
    })
    .await;
    let usages = store.read(|reader| Ok(reader.list_usage("p")?)).await.unwrap();
    let usages: Vec<_> = usages.iter().map(|(name, usage)| (name.as_str(), usage.used)).collect();
    assert_eq!(usages[..1], [("cores", 10)]);
    assert_eq!(usages[usages.len() - 1], ("ram", 1));
}

pub async fn two_hundred_charges_against_fifty(place: Place) {
    let store = place.open().await;
    let jobs = (0..200).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let job = store.write(cause("create"), move |tx| {
                tx.charge("p", "servers", 1, Some(50))?;
                Ok(tx.create(&Port::new(&n.to_string(), "p", &n.to_string()))?)
            });
            job.await.map_err(|fault| fault.kind)
        })
    });
    let results: Vec<_> = futures::future::join_all(jobs).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 50);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(FaultKind::Quota))));
    assert_eq!(store.list::<Port>(Query::all()).await.unwrap().len(), 50);
    assert_eq!(store.read(|reader| Ok(reader.usage("p", "servers")?.used)).await.unwrap(), 50);
}

fn drain(watch: &mut Watch) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some(event) = watch.try_next() {
        match event {
            Event::Revision(revision) => changes.extend(revision.changes.iter().cloned()),
            Event::Lost => panic!("nothing was lost"),
        }
    }
    changes
}

pub async fn the_watch_misses_nothing(place: Place) {
    let store = place.open().await;
    let mut watch = store.watch();
    let jobs = (0..16).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                let ports = (0..3).map(|part| format!("{task}-{n}-{part}")).map(|id| Port::new(&id, "p", &id));
                create(&store, ports.collect()).await;
            }
        })
    });
    for job in futures::future::join_all(jobs).await {
        job.unwrap();
    }
    let mut seen = Vec::new();
    for rev in 1..=320 {
        let Some(Event::Revision(revision)) = watch.next().await else { panic!("a revision") };
        assert_eq!((revision.rev, revision.changes.len()), (Rev(rev), 3));
        seen.extend(revision.changes.iter().cloned());
    }
    assert!(watch.try_next().is_none());
    assert_eq!(store.changes(Rev(0), 10_000).await.unwrap(), seen, "history tells the same");
}

#[tokio::test]
async fn a_slow_watcher_is_told_that_it_lost() {
    let store = Store::open(store::Options::memory(), env()).await.unwrap();
    let (mut slow, mut quick) = (store.watch(), store.watch());
    for n in 0..4_200u32 {
        write(&store, "tick", move |tx| Ok(tx.put(&Progress { id: "a".into(), percent: n })?)).await;
        assert!(matches!(quick.try_next(), Some(Event::Revision(_))));
    }
    assert!(matches!(slow.next().await, Some(Event::Lost)));
    let rest = drain(&mut slow);
    assert_eq!((rest.len(), rest.last().unwrap().rev), (4_096, store.rev()), "and goes on with what is left");
}

pub async fn another_process_shows_as_lost(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let mut watch = one.watch();
    create(&one, vec![Port::new("a", "p", "a")]).await;
    create(&other, vec![Port::new("b", "p", "b")]).await;
    create(&one, vec![Port::new("c", "p", "c")]).await;
    assert!(matches!(watch.try_next(), Some(Event::Revision(revision)) if revision.rev == Rev(1)));
    assert!(matches!(watch.try_next(), Some(Event::Lost)));
    assert!(matches!(watch.try_next(), Some(Event::Revision(revision)) if revision.rev == Rev(3)));
    assert_eq!(one.list::<Port>(Query::all()).await.unwrap().len(), 3);
}

/// Whoever believes to know the newest revision, and does not, begins anew: nobody hears of it, and no number is wrong.
pub async fn processes_that_write_in_turns_keep_one_count(place: Place) {
    let stores = [place.open().await, place.open().await];
    let mut revs = Vec::new();
    let turn = async |store: &Store, id: String| {
        let done = write(store, "turn", move |tx| {
            tx.charge("p", "ports", 1, None)?;
            Ok((tx.create(&Port::new(&id, "p", &id))?.rev, tx.rev()))
        });
        let done = done.await;
        assert_eq!(done.value, (done.rev, done.rev), "what a closure was told is what was committed");
        done.rev.0
    };
    for n in 0..40 {
        // Runs of different length, so that each is behind and each is not.
        revs.push(turn(&stores[usize::from(n % 5 < 2)], n.to_string()).await);
    }
    let both = ["a", "b"].into_iter().zip(&stores).map(async |(name, store)| {
        for n in 0..20 {
            turn(store, format!("{name}{n}")).await;
        }
    });
    futures::future::join_all(both).await;
    assert_eq!(revs, (1..=40).collect::<Vec<u64>>());
    for store in &stores {
        assert_eq!(store.read(|reader| Ok(reader.usage("p", "ports")?.used)).await.unwrap(), 80);
        assert_eq!(store.list::<Port>(Query::all()).await.unwrap().len(), 80);
    }
    let changes = stores[0].changes(Rev(0), 1000).await.unwrap();
    assert_eq!(changes.iter().map(|change| change.rev.0).collect::<Vec<_>>(), (1..=80).collect::<Vec<u64>>());
}

pub async fn a_follower_stays_equal_to_the_store(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "a"), Port::new("b", "p", "b")]).await;
    let mut follower = Follower::<Port>::new(&store);
    // Between the watch and the first read.
    create(&store, vec![Port::new("c", "p", "c")]).await;
    let equal = async |follower: &mut Follower<Port>, store: &Store| {
        let followed: Vec<_> = follower.catch_up().await.unwrap().values().cloned().collect();
        let mut kept = store.list::<Port>(Query::all()).await.unwrap();
        kept.sort_by(|a, b| a.id.cmp(&b.id));
        kept.iter_mut().for_each(|port| port.doc = port.doc.clone().redacted());
        assert_eq!(followed, kept);
    };
    equal(&mut follower, &store).await;
    write(&store, "more", |tx| {
        tx.delete::<Port>("a")?;
        tx.modify::<Port>("b", |port| port.host = "h2".into())?;
        tx.create(&Progress { id: "x".into(), percent: 1 })?;
        Ok(tx.create(&Port::new("d", "p", "d"))?)
    })
    .await;
    assert!(follower.changed().await);
    equal(&mut follower, &store).await;
    let other = place.open().await;
    create(&other, vec![Port::new("e", "p", "e")]).await;
    create(&store, vec![Port::new("f", "p", "f")]).await;
    equal(&mut follower, &store).await;
    assert_eq!(follower.docs().len(), 5);
}

pub async fn kinds_without_history_show_only_in_the_watch(place: Place) {
    let store = place.open().await;
    let mut watch = store.watch();
    let rev = write(&store, "both", |tx| {
        tx.create(&Progress { id: "x".into(), percent: 1 })?;
        Ok(tx.create(&Port::new("a", "p", "a"))?)
    });
    let rev = rev.await.rev;
    let seen = drain(&mut watch);
    assert_eq!(seen.iter().map(|change| &*change.kind).collect::<Vec<_>>(), ["progress", "port"]);
    let kept = store.changes(Rev(0), 10).await.unwrap();
    assert_eq!(kept, seen[1..]);
    assert!(store.history("progress", "x", 9).await.unwrap().is_empty());
    let refused = store.get_as_of::<Progress>("x", AsOf::Rev(rev)).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::NotImplemented);
}

pub async fn the_past_is_found_by_time_and_project(place: Place) {
    let (env, clock) = Env::seeded(3);
    let store = Store::open(place.options.clone(), env.clone()).await.unwrap();
    let mut times = vec![env.now()];
    let mut step = async |what: &'static str, project: Option<&'static str>| {
        clock.advance_ms(1_000);
        write(&store, what, move |tx| match project {
            None => tx.delete::<Port>("a").map(drop).map_err(Into::into),
            Some(project) => Ok(tx.put(&Port::new("a", project, what)).map(drop)?),
        })
        .await;
        times.push(env.now());
        // Commits without history lie between.
        write(&store, "tick", |tx| Ok(tx.charge("p", "ticks", 1, None)?)).await;
    };
    step("one", Some("p")).await;
    step("two", Some("q")).await;
    step("three", None).await;
    step("four", Some("p")).await;
    let expected = [None, Some(("p", "one")), Some(("q", "two")), None, Some(("p", "four"))];
    for (time, expected) in times.into_iter().zip(expected) {
        for at in [time, time.plus_ms(999)] {
            let port = store.get_as_of::<Port>("a", AsOf::Time(at)).await.unwrap();
            let found = port.as_ref().map(|port| (port.project_id.as_str(), port.name.as_str()));
            assert_eq!(found, expected, "{at:?}");
            for project in ["p", "q"] {
                let list = store.list_as_of::<Port>(Query::project(project), AsOf::Time(at)).await.unwrap();
                assert_eq!(list.len(), usize::from(expected.is_some_and(|(p, _)| p == project)), "{project} {at:?}");
            }
        }
    }
    let versions = store.history("port", "a", 10).await.unwrap();
    let versions: Vec<_> = versions.iter().map(|v| (v.rev.0, v.what.as_str(), v.body.is_some())).collect();
    assert_eq!(versions, [(7, "four", true), (5, "three", false), (3, "two", true), (1, "one", true)]);
    let first = store.history("port", "a", 10).await.unwrap().pop().unwrap();
    assert_eq!((first.actor.as_str(), first.request_id.as_str()), ("tester", "req-one"));
    let revs: Vec<_> = store.changes(Rev(0), 99).await.unwrap().iter().map(|change| change.rev.0).collect();
    assert_eq!(revs, [1, 3, 5, 7], "a change of hands is one change");
}

pub async fn changes_are_cut_at_revisions(place: Place) {
    let store = place.open().await;
    for (n, size) in [1, 5, 2, 3, 7, 1].into_iter().enumerate() {
        let ports = (0..size).map(|part| format!("{n}-{part}")).map(|id| Port::new(&id, "p", &id));
        create(&store, ports.collect()).await;
    }
    for limit in 1..=20 {
        let (mut since, mut revs) = (Rev(0), Vec::new());
        loop {
            let page = store.changes(since, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit || page.iter().all(|change| change.rev == last.rev), "{limit}");
            since = last.rev;
            revs.extend(page.iter().map(|change| change.rev.0));
        }
        assert_eq!(revs, [1, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 6], "{limit}");
    }
    assert!(store.changes(Rev(u64::MAX), 1).await.unwrap().is_empty());
}

pub async fn trimming_keeps_what_later_times_need(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("still", "p", "still"), Port::new("gone", "p", "gone")]).await;
    for n in 2..=5 {
        write(&store, "move", move |tx| {
            tx.put(&Port::new("often", "p", "often").on(&n.to_string()))?;
            Ok(())
        })
        .await;
    }
    write(&store, "delete", |tx| Ok(tx.delete::<Port>("gone")?)).await;
    create(&store, vec![Port::new("new", "p", "new")]).await;
    let mut before = Vec::new();
    for rev in 6..=7 {
        before.push(store.list_as_of::<Port>(Query::project("p"), AsOf::Rev(Rev(rev))).await.unwrap());
    }
    let trimmed = store.trim_history(Rev(6)).await.unwrap();
    // Left are "still" (1), the newest "often" (5) and "new" (7); "gone" and its deletion went.
    assert_eq!((trimmed.rows, trimmed.oldest), (5, Rev(6)));
    for (rev, before) in (6..=7).zip(before) {
        assert_eq!(store.list_as_of::<Port>(Query::project("p"), AsOf::Rev(Rev(rev))).await.unwrap(), before);
    }
    let gone = store.list_as_of::<Port>(Query::all(), AsOf::Rev(Rev(5))).await.unwrap_err();
    assert_eq!(Error::of(&gone), Some(&Error::Gone { asked: 5, oldest: 6 }));
    assert_eq!(store.changes(Rev(5), 9).await.unwrap_err().kind, FaultKind::Gone);
    assert_eq!(store.changes(Rev(6), 9).await.unwrap().len(), 1);
    assert_eq!(store.trim_history(Rev(2)).await.unwrap().rows, 0, "never goes back");
    assert_eq!(store.info().await.unwrap().oldest, Rev(6));
}

pub async fn what_moved_since_a_revision_is_known_by_name(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    let names = |moved: &store::Moved| {
        let ports: Vec<_> = moved.ids::<Port>().map(str::to_owned).collect();
        (ports, moved.scopes("host:").map(str::to_owned).collect::<Vec<_>>())
    };
    let since = store.rev();
    write(&store, "charge", |tx| {
        tx.charge("host:x/y", "cores", 1, None)?;
        tx.charge("project:p", "cores", 1, None)?;
        Ok(())
    })
    .await;
    create(&store, vec![Port::new("b", "p", "two")]).await;
    write(&store, "own", move |tx| {
        tx.charge("host:z", "cores", 1, None)?;
        tx.delete::<Port>("a")?;
        let committed = tx.moved_since(since, 10)?.expect("few rows");
        assert_eq!(names(&committed), (vec!["b".to_owned()], vec!["x/y".to_owned()]));
        assert_eq!(names(&tx.own_moves()), (vec!["a".to_owned()], vec!["z".to_owned()]));
        assert!(tx.moved_since(since, 2)?.is_none(), "three rows");
        Ok(())
    })
    .await;
    let now = store.rev();
    store.trim_history(now).await.unwrap();
    assert!(store.read(move |reader| Ok(reader.moved_since(since, 10)?)).await.unwrap().is_none(), "trimmed");
}

pub async fn leases_pass_when_they_run_out(place: Place) {
    let (env, clock) = Env::seeded(5);
    let store = Store::open(place.options.clone(), env).await.unwrap();
    assert!(store.lease_acquire("sweeper", "one", 1_000).await.unwrap());
    assert!(store.lease_acquire("sweeper", "one", 1_000).await.unwrap(), "renewed");
    assert!(!store.lease_acquire("sweeper", "two", 1_000).await.unwrap());
    clock.advance_ms(1_000);
    assert!(store.lease_acquire("sweeper", "two", 1_000).await.unwrap());
    store.lease_release("sweeper", "one").await.unwrap();
    assert!(!store.lease_acquire("sweeper", "one", 1_000).await.unwrap());
    store.lease_release("sweeper", "two").await.unwrap();
    assert!(store.lease_acquire("sweeper", "one", 1_000).await.unwrap());
    assert_eq!(store.rev(), Rev(0), "leases are no revisions");
}

pub async fn status_and_backup(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    let info = store.info().await.unwrap();
    assert!(info.size_bytes > 10_000 && info.rev == Rev(1), "{info:?}");
    assert!(info.version.starts_with(|c: char| c.is_ascii_digit()), "{info:?}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's a backup.db");
    if info.engine == "postgresql" {
        assert_eq!(store.vacuum_into(&path).await.unwrap_err().kind, FaultKind::NotImplemented);
        return;
    }
    store.vacuum_into(&path).await.unwrap();
    create(&store, vec![Port::new("b", "p", "two")]).await;
    let copy = Store::open(store::Options::new(format!("sqlite:{}", path.display())), env()).await.unwrap();
    assert_eq!(ids(&copy.list::<Port>(Query::all()).await.unwrap()), ["a"]);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(store.vacuum_into(&path).await.unwrap_err().kind, FaultKind::Conflict, "never overwrites");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(store.file().unwrap()).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}
