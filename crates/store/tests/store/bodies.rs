//! Documents, keys, transactions. Each body gets an empty store.

use crate::Place;
use crate::things::*;
use base::{Fault, FaultKind};
use store::{Difference, Document, Error, Query, Rev, Usage};

pub async fn creates_and_finds_again(place: Place) {
    let store = place.open().await;
    let created = write(&store, "create", |tx| {
        let port = tx.create(&Port::new("a", "p", "one"))?;
        assert_eq!((port.rev, port.updated), (tx.rev(), tx.now()));
        Ok(tx.rev())
    })
    .await;
    assert_eq!((created.value, created.rev, store.rev()), (Rev(1), Rev(1), Rev(1)));
    let port = store.get::<Port>("a").await.unwrap().unwrap();
    assert_eq!((&port.doc, port.rev), (&Port::new("a", "p", "one"), Rev(1)));
    let named = store.get_unique::<Port>("name", ["p", "one"]).await.unwrap();
    assert_eq!(named.as_ref(), Some(&port));
    for query in [Query::all(), Query::index("host", "h1"), Query::project("p")] {
        assert_eq!(store.list::<Port>(query).await.unwrap(), std::slice::from_ref(&port));
    }
    for query in [Query::index("host", "h2"), Query::index("other", "h1"), Query::project("q"), Query::project("")] {
        assert_eq!(store.list::<Port>(query.clone()).await.unwrap(), [], "{query:?}");
        assert_eq!(store.read(move |reader| Ok(reader.count::<Port>(query.clone())?)).await.unwrap(), 0);
    }
    assert_eq!(store.read_few(|reader| Ok(reader.snapshot_rev()?)).await.unwrap(), Rev(1));
}

pub async fn errors_name_what_is_wrong(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    write(&store, "errors", |tx| {
        let id = |id: &str| id.to_owned();
        let kind = "port";
        let taken = Error::Taken { kind, name: "name", value: "p/one".into() };
        assert_eq!(tx.create(&Port::new("b", "p", "one")), Err(taken));
        assert_eq!(tx.create(&Port::new("a", "p", "two")), Err(Error::Exists { kind, id: id("a") }));
        assert_eq!(tx.update(&Port::new("c", "p", "two")), Err(Error::NotFound { kind, id: id("c") }));
        assert_eq!(tx.delete::<Port>("c"), Err(Error::NotFound { kind, id: id("c") }));
        assert_eq!(tx.need::<Port>("c"), Err(Error::NotFound { kind, id: id("c") }));
        assert_eq!(tx.list::<Port>(Query::all().after("c")), Err(Error::Marker { kind, id: id("c") }));
        Ok(())
    })
    .await;
    assert_eq!(store.rev(), Rev(1), "refusals change nothing");
    let fault = store.write(cause("x"), |tx| Ok(tx.create(&Port::new("b", "p", "one"))?)).await.unwrap_err();
    assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::Conflict, "Port with name 'p/one' exists already."));
    assert!(matches!(Error::of(&fault), Some(Error::Taken { .. })));
}

pub async fn unchanged_documents_leave_no_trace(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    let mut watch = store.watch();
    let same = write(&store, "same", |tx| Ok(tx.update(&Port::new("a", "p", "one"))?)).await;
    assert_eq!((same.value, same.rev, store.rev()), (false, Rev(1), Rev(1)));
    let back = write(&store, "there and back", |tx| {
        tx.modify::<Port>("a", |port| port.host = "h2".into())?;
        tx.create(&Port::new("b", "p", "two"))?;
        tx.delete::<Port>("b")?;
        tx.modify::<Port>("a", |port| port.host = "h1".into())?;
        Ok(())
    });
    assert_eq!(back.await.rev, Rev(1));
    assert_eq!(store.history("port", "a", 10).await.unwrap().len(), 1);
    assert!(watch.try_next().is_none());
}

pub async fn unique_keys_pass_from_hand_to_hand(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one"), Port::new("b", "p", "two")]).await;
    write(&store, "swap", |tx| {
        tx.update(&Port::new("a", "p", "three"))?;
        tx.update(&Port::new("b", "p", "one"))?;
        tx.update(&Port::new("a", "p", "two"))?;
        assert_eq!(tx.get_unique::<Port>("name", ["p", "three"])?, None);
        assert_eq!(tx.get_unique::<Port>("name", ["p", "one"])?.unwrap().id, "b");
        Ok(())
    })
    .await;
    assert_eq!(store.get_unique::<Port>("name", ["p", "one"]).await.unwrap().unwrap().id, "b");
    assert_eq!(store.get_unique::<Port>("name", ["p", "two"]).await.unwrap().unwrap().id, "a");
    write(&store, "inherit", |tx| {
        tx.delete::<Port>("a")?;
        tx.create(&Port::new("c", "p", "two"))?;
        Ok(())
    })
    .await;
    assert_eq!(store.get_unique::<Port>("name", ["p", "two"]).await.unwrap().unwrap().id, "c");
    assert!(store.write(cause("x"), |tx| Ok(tx.update(&Port::new("b", "p", "two"))?)).await.is_err());
}

pub async fn a_stale_revision_is_a_conflict(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    write(&store, "move", |tx| Ok(tx.modify::<Port>("a", |port| port.host = "h2".into())?)).await;
    let stale = store.write(cause("stale"), |tx| Ok(tx.expect_rev::<Port>("a", Rev(1))?)).await.unwrap_err();
    assert_eq!((stale.kind, &*stale.message), (FaultKind::Conflict, "The port a has been changed by someone else."));
    write(&store, "fresh", |tx| Ok(tx.expect_rev::<Port>("a", Rev(2))?)).await;
}

pub async fn nul_and_overlong_values_are_refused(place: Place) {
    let store = place.open().await;
    let long = "x".repeat(1600);
    for port in [
        Port::new("a\0", "p", "n"),
        Port::new("", "p", "n"),
        Port::new("a", "p\0", "n"),
        Port::new("a", "p", "n\0"),
        Port { secret: "\0".into(), ..Port::new("a", "p", "n") },
        Port::new("a", "p", &long),
        Port::new("a", "p", "n").on(&long),
        Port::new(&long, "p", "n"),
        Port { secret: "x".repeat(5 << 20), ..Port::new("a", "p", "n") },
    ] {
        let fault = store.write(cause("x"), move |tx| Ok(tx.create(&port)?)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Invalid, "{}", fault.chain());
    }
    let fault = store.write(cause("x\0"), |_| Ok(())).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid);
    let fault = store.write(cause("x"), |tx| Ok(tx.charge("p\0", "r", 1, None)?)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid);
    let fault = store.write(cause("x"), |tx| Ok(tx.set_meta("p\0", 1)?)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid);
    // What cannot be kept is not found.
    assert_eq!(store.get::<Port>("a\0").await.unwrap(), None);
    assert_eq!(store.get_unique::<Port>("name", ["p", "n\0"]).await.unwrap(), None);
    assert_eq!(store.list::<Port>(Query::project("p\0")).await.unwrap(), []);
    assert_eq!(store.list::<Port>(Query::index("host", "\0")).await.unwrap(), []);
    assert_eq!(store.read(|reader| Ok(reader.usage("p\0", "r")?)).await.unwrap(), Usage::default());
    let backslash = Port::new("\\u0000", "p", "back\\u0000slash");
    create(&store, vec![backslash.clone()]).await;
    assert_eq!(store.get::<Port>("\\u0000").await.unwrap().unwrap().doc, backslash);
}

pub async fn secrets_stay_in_the_document(place: Place) {
    let store = place.open().await;
    let mut watch = store.watch();
    let rev = create(&store, vec![Port::new("a", "p", "one")]).await;
    assert_eq!(store.get::<Port>("a").await.unwrap().unwrap().secret, "hidden");
    let redacted = Port::new("a", "p", "one").redacted();
    let Some(store::Event::Revision(revision)) = watch.try_next() else { panic!("a revision") };
    assert_eq!(revision.changes[0].document::<Port>().unwrap().unwrap().doc, redacted);
    assert_eq!(store.changes(Rev(0), 10).await.unwrap(), revision.changes);
    let past = store.get_as_of::<Port>("a", store::AsOf::Rev(rev)).await.unwrap().unwrap();
    assert_eq!(past.doc, redacted);
    let version = store.history("port", "a", 1).await.unwrap().remove(0);
    assert!(!version.body.unwrap().contains("hidden"));
    let (_, differences) = store.dry_run(cause("dry"), |tx| Ok(tx.delete::<Port>("a")?)).await.unwrap();
    assert!(!format!("{differences:?}").contains("hidden"), "{differences:?}");
}

pub async fn a_dry_run_tells_and_leaves_nothing(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one"), Port::new("b", "p", "two")]).await;
    let mut watch = store.watch();
    let (value, differences) = store
        .dry_run(cause("dry"), |tx| {
            tx.modify::<Port>("a", |port| port.host = "h2".into())?;
            tx.delete::<Port>("b")?;
            tx.create(&Port::new("c", "p", "two"))?;
            tx.charge("p", "ports", 2, None)?;
            Ok(tx.rev())
        })
        .await
        .unwrap();
    assert_eq!(value, Rev(2));
    let host = |body: &Option<serde_json::Value>| body.as_ref().map(|body| body["host"].as_str().unwrap().to_owned());
    let seen: Vec<_> = differences
        .iter()
        .map(|difference| match difference {
            Difference::Document { kind, id, before, after, .. } => {
                format!("{kind} {id} {:?} {:?}", host(before), host(after))
            }
            Difference::Ledger { scope, resource, before, after } => {
                format!("{scope} {resource} {before:?} {}", after.used)
            }
        })
        .collect();
    assert_eq!(
        seen,
        [r#"port a Some("h1") Some("h2")"#, r#"port b Some("h1") None"#, r#"port c None Some("h1")"#, "p ports None 2",]
    );
    assert_eq!(ids(&store.list::<Port>(Query::all()).await.unwrap()), ["a", "b"]);
    assert_eq!(store.read(|reader| Ok(reader.usage("p", "ports")?.used)).await.unwrap(), 0);
    assert_eq!((store.rev(), watch.try_next().is_none()), (Rev(1), true));
    let refused = store.dry_run(cause("dry"), |tx| Ok(tx.create(&Port::new("d", "p", "one"))?)).await;
    assert_eq!(refused.unwrap_err().kind, FaultKind::Conflict);
    assert_eq!(create(&store, vec![Port::new("d", "p", "three")]).await, Rev(2));
}

/// Forty good jobs and forty bad ones at once: panics, taken keys, refused quotas, faults after changes.
pub async fn a_bad_job_leaves_the_others_whole(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("first", "p", "first")]).await;
    let jobs = (0..80).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let job = store.write(cause("job"), move |tx| {
                tx.create(&Port::new(&format!("{n}-x"), "p", &format!("{n}-x")))?;
                tx.charge("p", "ports", 2, Some(1_000))?;
                match n % 8 {
                    1 => panic!("job {n} was told to"),
                    3 => drop(tx.create(&Port::new(&format!("{n}-z"), "p", "first"))?),
                    5 => drop(tx.charge("p", "ports", 10_000, Some(1_000))?),
                    7 => return Err(Fault::invalid("no")),
                    _ => {}
                }
                tx.create(&Port::new(&format!("{n}-y"), "p", &format!("{n}-y")))?;
                Ok(())
            });
            (n, job.await)
        })
    });
    for job in futures::future::join_all(jobs).await {
        let (n, result) = job.unwrap();
        let kind = result.err().map(|fault| fault.kind);
        let expected =
            [None, Some(FaultKind::Bug), None, Some(FaultKind::Conflict), None, Some(FaultKind::Quota), None];
        assert_eq!(kind, expected.get(n % 8).copied().unwrap_or(Some(FaultKind::Invalid)), "{n}");
    }
    let ports = store.list::<Port>(Query::all()).await.unwrap();
    let mut left: Vec<String> = ids(&ports).into_iter().map(String::from).collect();
    left.sort();
    let mut expected: Vec<String> = (0..80).step_by(2).flat_map(|n| [format!("{n}-x"), format!("{n}-y")]).collect();
    expected.push("first".into());
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(store.read(|reader| Ok(reader.usage("p", "ports")?.used)).await.unwrap(), 80);
    assert_eq!(store.rev(), Rev(41));
}

/// A clock that stands still and ids in no order: the order is that of creation all the same.
pub async fn lists_keep_the_order_of_creation(place: Place) {
    let (env, _) = base::Env::seeded(1);
    let store = store::Store::open(place.options.clone(), env).await.unwrap();
    let names = ["m", "c", "x", "a", "q", "b", "z", "d"];
    create(&store, names[..5].iter().map(|id| Port::new(id, "p", id)).collect()).await;
    create(&store, names[5..].iter().map(|id| Port::new(id, "p", id)).collect()).await;
    write(&store, "touch", |tx| Ok(tx.modify::<Port>("c", |port| port.secret = "new".into())?)).await;
    for query in [Query::all(), Query::project("p"), Query::index("host", "h1")] {
        assert_eq!(ids(&store.list::<Port>(query.clone()).await.unwrap()), names, "{query:?}");
        let mut pages = Vec::new();
        let mut page = query.clone().reverse().limit(3);
        loop {
            let found = store.list::<Port>(page.clone()).await.unwrap();
            let Some(last) = found.last() else { break };
            page = page.after(last.id());
            pages.extend(found);
        }
        assert!(ids(&pages).into_iter().rev().eq(names), "{query:?}");
        let rest = store.list::<Port>(query.after("q").limit(2)).await.unwrap();
        assert_eq!(ids(&rest), ["b", "z"]);
    }
}

pub async fn reopening_changes_nothing(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    write(&store, "meta", |tx| {
        tx.set_meta("cloud", 7)?;
        assert_eq!(tx.meta("cloud")?, Some(7));
        Ok(())
    })
    .await;
    let before = store.get::<Port>("a").await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.rev(), Rev(2));
    assert_eq!(store.get::<Port>("a").await.unwrap(), before);
    assert_eq!(store.read(|reader| Ok((reader.meta("cloud")?, reader.meta("other")?))).await.unwrap(), (Some(7), None));
    assert_eq!(create(&store, vec![Port::new("b", "p", "two")]).await, Rev(3));
}

/// Readers see what was moved on one side or the other, never on both or neither.
pub async fn snapshots_never_tear(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one").on("0"), Port::new("b", "p", "two").on("100")]).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 1..=100 {
                write(&store, "move", move |tx| {
                    tx.modify::<Port>("a", |port| port.host = n.to_string())?;
                    tx.modify::<Port>("b", |port| port.host = (100 - n).to_string())?;
                    Ok(())
                })
                .await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut reads = 0;
    while !writer.is_finished() || reads < 10 {
        let sum = store.read(|reader| {
            let host = |port: store::Stored<Port>| port.host.parse::<i64>().unwrap();
            Ok(host(reader.need("a")?) + host(reader.need("b")?))
        });
        assert_eq!(sum.await.unwrap(), 100);
        reads += 1;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}
