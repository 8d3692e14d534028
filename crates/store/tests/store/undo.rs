//! The trash, and taking a request back.

use crate::Place;
use crate::things::*;
use base::{Fault, FaultKind, Timestamp};
use serde::{Deserialize, Serialize};
use store::{Cause, Costs, Document, Keys, Needs, Query, Store, Trash, Tx, UndoPlan, Undone};

/// Hangs on a port, costs something, counts its changes, and may be named by others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Address {
    id: String,
    port: String,
    value: String,
    note: String,
    revision: u64,
}

impl Document for Address {
    const KIND: &'static str = "address";
    const COUNTERS: &'static [&'static str] = &["revision"];
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        "p"
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("port", &self.port);
        keys.unique("value", [&self.value]);
    }
    fn needs(&self, needs: &mut Needs) {
        needs.on::<Port>(&self.port);
    }
    fn costs(&self, costs: &mut Costs) {
        costs.add("p", "addresses", 1);
    }
    fn restored(&mut self, _now: Timestamp, replaced: Option<&Self>) {
        self.revision += u64::from(replaced.is_some());
    }
    fn undone(tx: &mut Tx, before: Option<&Self>, after: Option<&Self>) -> Result<(), Fault> {
        if before.is_some_and(|before| before.note == "keep") && after.is_none() {
            return Err(Fault::conflict("This address is kept."));
        }
        let count = tx.count::<Address>(Query::all())?;
        tx.put(&Progress { id: "addresses".into(), percent: count as u32 })?;
        Ok(())
    }
}

/// Never rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    id: String,
    secret: String,
}

impl Document for Key {
    const KIND: &'static str = "key";
    const TRASH: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
}

fn address(id: &str, port: &str, value: &str) -> Address {
    Address { id: id.into(), port: port.into(), value: value.into(), note: String::new(), revision: 1 }
}

async fn open(place: &Place) -> Store {
    let mut place = place.clone();
    place.options = place.options.kind::<Port>().kind::<Address>().kind::<Key>();
    place.options.trash_ms = 3_600_000;
    let store = place.open().await;
    write(&store, "fill", |tx| {
        tx.create(&Port::new("a", "p", "one"))?;
        tx.create(&address("x", "a", "10.0.0.1"))?;
        tx.create(&address("y", "a", "10.0.0.2"))?;
        tx.create(&Port::new("b", "p", "two"))?;
        tx.create(&Key { id: "k".into(), secret: "hush".into() })?;
        tx.charge("p", "addresses", 2, Some(2))?;
        Ok(())
    })
    .await;
    store
}

async fn delete_all(store: &Store) {
    write(store, "delete", |tx| {
        tx.delete::<Address>("x")?;
        tx.delete::<Address>("y")?;
        tx.delete::<Port>("a")?;
        tx.delete::<Key>("k")?;
        tx.charge("p", "addresses", -2, None)?;
        Ok(())
    })
    .await;
}

/// Services that know one limit and own no kind.
struct Two;

impl store::UndoServices for Two {
    fn limit(&mut self, _: &mut store::Reader, _: &str, _: &str) -> Result<Option<i64>, Fault> {
        Ok(Some(2))
    }
    fn held(
        &mut self,
        _: &mut store::Reader,
        _: &str,
        _: &str,
        _: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Option<store::Held>, Fault> {
        Ok(None)
    }
    fn remove(&mut self, _: &mut store::Tx, kind: &str, id: &str) -> Result<(), Fault> {
        Err(Fault::bug(format!("{kind} {id} is of no service")))
    }
}

/// Undoes, and returns the plan; nothing is done where something collides, unless `partial`.
async fn undo(store: &Store, what: &str, partial: bool) -> Result<UndoPlan, Fault> {
    let (id, by) = (format!("req-{what}"), Cause::new("tester", format!("req-undo-{what}"), "undo"));
    let inner = by.clone();
    let done = store.write(by, move |tx| {
        let plan = tx.plan_undo(&id, &mut Two)?;
        let plan = plan.ok_or_else(|| Fault::not_found("no such request"))?;
        if plan.short.is_empty() && (partial || plan.collisions.is_empty()) {
            tx.undo(&plan, &inner.request_id, &mut Two)?;
        }
        Ok(plan)
    });
    done.await.map(|done| done.value)
}

async fn addresses(store: &Store) -> Vec<store::Stored<Address>> {
    store.list::<Address>(Query::all()).await.unwrap()
}

async fn used(store: &Store) -> i64 {
    store.read(|reader| Ok(reader.usage("p", "addresses")?.used)).await.unwrap()
}

pub async fn what_a_request_deleted_comes_back_exactly(place: Place) {
    let store = open(&place).await;
    let (ports, before) = (store.list::<Port>(Query::project("p")).await.unwrap(), addresses(&store).await);
    delete_all(&store).await;
    assert!(addresses(&store).await.is_empty());
    assert_eq!(used(&store).await, 0);
    let trash = store.list::<Trash>(Query::project("p")).await.unwrap();
    let held: Vec<&str> = trash[0].documents.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(held, ["address", "address", "port"], "the key rests nowhere");
    assert!(!format!("{trash:?}").contains("hush"));
    let plan = undo(&store, "delete", false).await.unwrap();
    assert_eq!((plan.steps.len(), plan.left), (3, vec![("key".into(), "k".into())]));
    let after = store.list::<Port>(Query::project("p")).await.unwrap();
    let times = |list: &[store::Stored<Port>]| {
        list.iter().map(|it| (it.doc.clone(), it.created, it.updated)).collect::<Vec<_>>()
    };
    assert_eq!(times(&after), times(&ports), "with its secret, in its old place");
    let then = store.list_as_of::<Port>(Query::project("p"), store::AsOf::Rev(store.rev())).await.unwrap();
    let bare = |list: &[store::Stored<Port>]| list.iter().map(|it| (it.created, it.updated)).collect::<Vec<_>>();
    assert_eq!(bare(&then), bare(&ports), "and so history has it");
    assert_eq!(
        addresses(&store).await.into_iter().map(|it| it.doc).collect::<Vec<_>>(),
        before.into_iter().map(|it| it.doc).collect::<Vec<_>>()
    );
    assert_eq!(used(&store).await, 2);
    assert_eq!(store.get::<Progress>("addresses").await.unwrap().unwrap().percent, 2, "what follows from it");
    assert!(store.list::<Trash>(Query::all()).await.unwrap().is_empty());
    let again = undo(&store, "delete", true).await.unwrap_err();
    assert_eq!(again.kind, FaultKind::Conflict);
    assert!(again.message.contains("req-undo-delete"), "{}", again.message);
    assert_eq!(undo(&store, "never", false).await.unwrap_err().kind, FaultKind::NotFound);
}

pub async fn a_collision_is_named_and_the_rest_can_come_back(place: Place) {
    let store = open(&place).await;
    delete_all(&store).await;
    write(&store, "take", |tx| {
        tx.create(&address("z", "b", "10.0.0.1"))?;
        tx.charge("p", "addresses", 1, Some(2))?;
        Ok(())
    })
    .await;
    let plan = undo(&store, "delete", false).await.unwrap();
    assert_eq!(plan.collisions.len(), 1);
    assert_eq!(plan.collisions[0].reason, "its value 10.0.0.1 is taken by address z");
    assert_eq!(plan.collisions[0].with, Some(("address".into(), "z".into())));
    assert_eq!(addresses(&store).await.len(), 1, "nothing was done");
    let plan = undo(&store, "delete", true).await.unwrap();
    assert_eq!(plan.steps.len(), 2);
    assert_eq!(used(&store).await, 2, "what did not come back is not charged");
    let rest = store.list::<Trash>(Query::index("object", "address/x")).await.unwrap();
    assert_eq!(rest[0].documents.len(), 1);
    // Once the address is free, the rest follows.
    write(&store, "free", |tx| {
        tx.skip_trash();
        tx.delete::<Address>("z")?;
        tx.charge("p", "addresses", -1, None)?;
        Ok(())
    })
    .await;
    assert_eq!(undo(&store, "delete", false).await.unwrap().steps.len(), 1);
    assert_eq!((addresses(&store).await.len(), used(&store).await), (2, 2));
    assert!(store.get::<Undone>("req-delete").await.unwrap().unwrap().whole);
}

pub async fn what_lacks_its_parent_or_its_quota_stays(place: Place) {
    let store = open(&place).await;
    write(&store, "child", |tx| {
        tx.delete::<Address>("x")?;
        tx.charge("p", "addresses", -1, None)?;
        Ok(())
    })
    .await;
    write(&store, "parent", |tx| {
        tx.delete::<Address>("y")?;
        tx.delete::<Port>("a")?;
        Ok(())
    })
    .await;
    let plan = undo(&store, "child", true).await.unwrap();
    assert_eq!(plan.collisions[0].reason, "its port a is gone");
    assert_eq!(undo(&store, "parent", false).await.unwrap().collisions, []);
    write(&store, "more", |tx| Ok(tx.charge("p", "addresses", 1, Some(2))?)).await;
    let plan = undo(&store, "child", true).await.unwrap();
    assert_eq!(plan.short[0].reason, "1 addresses are asked for, and 2 of 2 are used");
    assert!(store.get::<Address>("x").await.unwrap().is_none());
}

pub async fn changes_go_back_field_by_field(place: Place) {
    let store = open(&place).await;
    write(&store, "edit", |tx| {
        tx.modify::<Address>("x", |it| (it.note, it.value, it.revision) = ("new".into(), "10.0.0.9".into(), 2))?;
        tx.modify::<Port>("b", |port| port.secret = "other".into())?;
        Ok(())
    })
    .await;
    write(&store, "since", |tx| Ok(tx.modify::<Address>("x", |it| (it.port, it.revision) = ("b".into(), 3))?)).await;
    let plan = undo(&store, "edit", false).await.unwrap();
    assert_eq!(plan.steps[0].fields, ["note", "value"]);
    assert_eq!(plan.steps.len(), 1, "secrets are not in history, and so do not go back");
    let now = store.get::<Address>("x").await.unwrap().unwrap().doc;
    assert_eq!((now.note.as_str(), now.value.as_str(), now.port.as_str(), now.revision), ("", "10.0.0.1", "b", 4));
    write(&store, "first", |tx| Ok(tx.modify::<Address>("x", |it| it.note = "one".into())?)).await;
    write(&store, "second", |tx| Ok(tx.modify::<Address>("x", |it| it.note = "two".into())?)).await;
    assert_eq!(undo(&store, "first", false).await.unwrap().collisions[0].reason, "changed since: note");
}

pub async fn what_was_made_goes_unless_it_has_changed(place: Place) {
    let store = open(&place).await;
    for (name, value) in [("one", "10.1.0.1"), ("two", "10.1.0.2"), ("three", "10.1.0.3")] {
        write(&store, name, move |tx| {
            let note = if name == "three" { "keep" } else { "" };
            tx.create(&Address { note: note.into(), ..address(name, "b", value) })?;
            tx.charge("p", "addresses", 1, None)?;
            Ok(())
        })
        .await;
    }
    write(&store, "touch", |tx| Ok(tx.modify::<Address>("two", |it| it.note = "used".into())?)).await;
    assert_eq!(undo(&store, "one", false).await.unwrap().steps[0].what, "deleted");
    assert_eq!((store.get::<Address>("one").await.unwrap(), used(&store).await), (None, 4));
    let plan = undo(&store, "two", false).await.unwrap();
    assert!(plan.collisions[0].reason.starts_with("it has changed since"));
    let refused = undo(&store, "three", false).await.unwrap_err();
    assert_eq!((refused.kind, used(&store).await), (FaultKind::Conflict, 4), "a kind refuses, and nothing was done");
}

pub async fn what_has_gone_since_is_not_given_back_twice(place: Place) {
    let store = open(&place).await;
    write(&store, "both", |tx| {
        tx.create(&address("one", "b", "10.1.0.1"))?;
        tx.create(&address("two", "b", "10.1.0.2"))?;
        Ok(tx.charge("p", "addresses", 2, None).map(drop)?)
    })
    .await;
    write(&store, "gone", |tx| {
        tx.delete::<Address>("one")?;
        Ok(tx.charge("p", "addresses", -1, None).map(drop)?)
    })
    .await;
    assert_eq!(used(&store).await, 3);
    assert_eq!(undo(&store, "both", false).await.unwrap().steps.len(), 1);
    assert_eq!((store.get::<Address>("two").await.unwrap(), used(&store).await), (None, 2));
}

pub async fn that_a_request_was_undone_is_known_as_long_as_its_history(place: Place) {
    let store = open(&place).await;
    for name in ["one", "two"] {
        let value = format!("10.1.1.{}", name.len() + usize::from(name == "two"));
        write(&store, name, move |tx| Ok(tx.create(&address(name, "b", &value)).map(drop)?)).await;
    }
    undo(&store, "one", false).await.unwrap();
    let kept = store.rev();
    write(&store, "last", |tx| Ok(tx.create(&address("last", "b", "10.1.1.9")).map(drop)?)).await;
    undo(&store, "last", false).await.unwrap();
    assert_eq!(store.list::<store::Undone>(Query::all()).await.unwrap().len(), 2);
    store.trim_history(kept).await.unwrap();
    let left: Vec<String> =
        store.list::<store::Undone>(Query::all()).await.unwrap().iter().map(|it| it.id.clone()).collect();
    assert_eq!(left, ["req-last"]);
    assert_eq!(undo(&store, "one", false).await.unwrap_err().kind, FaultKind::NotFound);
    assert_eq!(undo(&store, "last", false).await.unwrap_err().kind, FaultKind::Conflict);
}

pub async fn what_skips_the_trash_does_not_rest(place: Place) {
    let store = open(&place).await;
    write(&store, "force", |tx| {
        tx.skip_trash();
        Ok(tx.delete::<Address>("x")?)
    })
    .await;
    store.write(Cause::new("nubo", "", "loop"), |tx| Ok(tx.delete::<Address>("y")?)).await.unwrap();
    assert!(store.list::<Trash>(Query::all()).await.unwrap().is_empty());
    let plan = undo(&store, "force", true).await.unwrap();
    assert_eq!(plan.collisions[0].reason, "it no longer rests in the trash");
    // More than one trash document can hold.
    write(&store, "many", |tx| {
        (0..1000).try_for_each(|n| {
            tx.create(&Port::new(&format!("m{n}"), "p", &format!("{n}"))).map(drop).map_err(Fault::from)
        })
    })
    .await;
    write(&store, "gone", |tx| {
        (0..1000).try_for_each(|n| tx.delete::<Port>(&format!("m{n}")).map(drop).map_err(Fault::from))
    })
    .await;
    assert!(store.list::<Trash>(Query::index("request", "req-gone")).await.unwrap().len() > 1);
    assert_eq!(undo(&store, "gone", false).await.unwrap().steps.len(), 1000);
    assert_eq!(store.list::<Port>(Query::all()).await.unwrap().len(), 1002);
}
