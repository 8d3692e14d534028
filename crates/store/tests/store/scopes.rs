//! A request's scope: dry runs of several writes, and what reads between them see.

use crate::Place;
use crate::things::*;
use base::{Fault, FaultKind};
use std::sync::Arc;
use store::scope::{self, Along, Plan};
use store::{AsOf, Cause, Difference, Event, Follower, Query, Rev, Scope, Tx};

fn dry() -> (Plan, Scope) {
    let plan = Plan::new();
    (plan.clone(), Scope { dry: Some(plan), ..Scope::default() })
}

pub async fn a_dry_scope_sees_its_own_changes_and_leaves_nothing(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one"), Port::new("b", "p", "two")]).await;
    let mut watch = store.watch();
    let (plan, dry) = dry();
    let inside = async {
        assert!(scope::is_dry());
        let first = store.write(cause("dry"), |tx| {
            tx.charge("p", "ports", 1, Some(3))?;
            Ok(tx.create(&Port::new("c", "p", "three"))?)
        });
        assert_eq!(first.await.unwrap().rev, Rev(2));
        assert_eq!(store.get::<Port>("c").await.unwrap().unwrap().secret, "hidden");
        assert_eq!(store.get_unique::<Port>("name", ["p", "three"]).await.unwrap().unwrap().id, "c");
        assert_eq!(ids(&store.list::<Port>(Query::project("p")).await.unwrap()), ["a", "b", "c"]);
        let second = store.write(cause("dry"), |tx| {
            tx.delete::<Port>("a")?;
            tx.charge("p", "ports", 1, Some(3))?;
            tx.modify::<Port>("c", |port| port.host = "h9".into())?;
            Ok(tx.count::<Port>(Query::all())?)
        });
        assert_eq!(second.await.unwrap().value, 2);
        let refused = store.write(cause("dry"), |tx| Ok(tx.create(&Port::new("d", "p", "three"))?)).await;
        assert_eq!(refused.unwrap_err().kind, FaultKind::Conflict);
        assert_eq!(ids(&store.list::<Port>(Query::all()).await.unwrap()), ["b", "c"]);
        assert_eq!(store.read(|reader| Ok(reader.usage("p", "ports")?.used)).await.unwrap(), 2);
    };
    scope::run(dry, inside).await;
    assert!(!scope::is_dry());
    let seen: Vec<String> = plan.differences().iter().map(shown).collect();
    assert_eq!(seen, ["+port c h9", "-port a", "p ports 0 to 2"]);
    assert!(!format!("{:?}", plan.differences()).contains("hidden"));
    assert_eq!((store.rev(), watch.try_next().is_none()), (Rev(1), true));
    assert_eq!(ids(&store.list::<Port>(Query::all()).await.unwrap()), ["a", "b"]);
    assert_eq!(store.read(|reader| Ok(reader.usage("p", "ports")?.used)).await.unwrap(), 0);
}

fn shown(difference: &Difference) -> String {
    match difference {
        Difference::Document { kind, id, before, after, .. } => match (before, after) {
            (None, Some(after)) => format!("+{kind} {id} {}", after["host"].as_str().unwrap()),
            (Some(_), None) => format!("-{kind} {id}"),
            _ => format!("~{kind} {id}"),
        },
        Difference::Ledger { scope, resource, before, after } => {
            format!("{scope} {resource} {} to {}", before.unwrap_or_default().used, after.used)
        }
    }
}

/// Between two writes of a dry run others go on.
pub async fn a_dry_scope_goes_on_while_others_write(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    let (plan, dry) = dry();
    let inside = async {
        store.write(cause("dry"), |tx| Ok(tx.modify::<Port>("a", |port| port.host = "h2".into())?)).await.unwrap();
        // As another request does it: outside the scope.
        let other = store.clone();
        let outside = tokio::spawn(async move {
            let write = other.write(cause("real"), |tx| Ok(tx.modify::<Port>("a", |port| port.host = "h3".into())?));
            write.await.unwrap();
        });
        outside.await.unwrap();
        store.write(cause("dry"), |tx| Ok(tx.create(&Port::new("b", "p", "two"))?)).await.unwrap();
    };
    scope::run(dry, inside).await;
    assert_eq!(plan.differences().len(), 2);
    assert_eq!(store.get::<Port>("a").await.unwrap().unwrap().host, "h3");
    assert_eq!(store.get::<Port>("b").await.unwrap(), None);
}

pub async fn what_serves_everybody_is_read_outside_the_scope(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    let mut follower = Follower::<Port>::new(&store);
    let (_, dry) = dry();
    let inside = async {
        store.write(cause("dry"), |tx| Ok(tx.create(&Port::new("b", "p", "two"))?)).await.unwrap();
        assert_eq!(follower.catch_up().await.unwrap().len(), 1);
    };
    scope::run(dry, inside).await;
}

pub async fn the_past_cannot_be_written(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "one")]).await;
    let past = Scope { as_of: Some(AsOf::Rev(Rev(1))), ..Scope::default() };
    let write = scope::run(past, store.write(cause("late"), |tx| Ok(tx.delete::<Port>("a")?)));
    assert_eq!(write.await.unwrap_err().kind, FaultKind::Invalid);
    assert_eq!(store.rev(), Rev(1));
}

/// Notes what each write has touched in a port of its own.
struct Notes;

impl Along for Notes {
    fn write(&self, tx: &mut Tx) -> store::Result<()> {
        let ids: Vec<String> = tx.touched().iter().map(|touched| touched.id.clone()).collect();
        if ids.contains(&"bad".to_owned()) {
            return Err(Fault::conflict("No."));
        }
        let name = ids.join("+");
        Ok(tx.create(&Port::new(&format!("note-{name}"), "notes", &name)).map(drop)?)
    }
}

pub async fn what_is_written_along_is_one_commit_with_the_change(place: Place) {
    let store = place.open().await;
    let mut watch = store.watch();
    let along = Scope { along: Some(Arc::new(Notes)), ..Scope::default() };
    let inside = async {
        let two = store.write(cause("two"), |tx| {
            tx.create(&Port::new("a", "p", "one"))?;
            Ok(tx.create(&Port::new("b", "p", "two"))?)
        });
        two.await.unwrap();
        // A write that changes nothing takes nothing along.
        store.write(cause("none"), |tx| Ok(tx.get::<Port>("a")?)).await.unwrap();
        let bad = store.write(cause("bad"), |tx| Ok(tx.create(&Port::new("bad", "p", "three"))?)).await;
        assert_eq!(bad.unwrap_err().kind, FaultKind::Conflict);
    };
    scope::run(along, inside).await;
    let Some(Event::Revision(revision)) = watch.try_next() else { panic!("a revision") };
    let changed: Vec<_> = revision.changes.iter().map(|change| change.id.as_str()).collect();
    assert_eq!(changed, ["a", "b", "note-a+b"]);
    assert!(watch.try_next().is_none());
    let outside = store.write(Cause::default(), |tx| Ok(tx.create(&Port::new("bad", "p", "three"))?));
    outside.await.unwrap();
    assert_eq!(ids(&store.list::<Port>(Query::all()).await.unwrap()), ["a", "b", "note-a+b", "bad"]);
}
