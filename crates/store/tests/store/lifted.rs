//! A program of a newer version opens the store of an older one.

use crate::Place;
use crate::things::*;
use serde::{Deserialize, Serialize};
use store::{Document, Error, Keys, Options, Query, Store};

/// The port of a later program: other keys, and another shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NewPort {
    id: String,
    project_id: String,
    label: String,
    host: String,
}

impl Document for NewPort {
    const KIND: &'static str = "port";
    const SCHEMA: u32 = 2;
    const INDEX_VERSION: u32 = 2;

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("label", &self.label);
        keys.unique("host", [&self.host]);
    }
    fn lift(_from: u32, mut body: serde_json::Value) -> Result<serde_json::Value, Error> {
        body["label"] = body["name"].take();
        Ok(body)
    }
}

pub async fn entries_are_rebuilt_for_a_new_index_version(place: Place) {
    let store = place.open().await;
    create(&store, (0..3).map(|n| n.to_string()).map(|n| Port::new(&n, "p", &n).on(&n)).collect()).await;
    drop(store);
    let unregistered = place.open().await;
    let fault = unregistered.list::<NewPort>(Query::all()).await.unwrap_err();
    assert!(fault.chain().contains("register the kind"), "{}", fault.chain());
    let fault = unregistered.write(cause("x"), |tx| Ok(tx.delete::<NewPort>("1")?)).await.unwrap_err();
    assert!(fault.chain().contains("register the kind"), "{}", fault.chain());
    drop(unregistered);

    let store = Store::open(place.options.clone().kind::<NewPort>(), env()).await.unwrap();
    assert_eq!(ids(&store.list::<NewPort>(Query::index("label", "1")).await.unwrap()), ["1"]);
    assert_eq!(store.list::<NewPort>(Query::index("host", "1")).await.unwrap(), []);
    assert_eq!(store.get_unique::<NewPort>("host", ["2"]).await.unwrap().unwrap().label, "2");
    write(&store, "go on", |tx| {
        tx.modify::<NewPort>("1", |port| port.label = "new".into())?;
        tx.delete::<NewPort>("2")?;
        Ok(())
    })
    .await;
    assert_eq!(ids(&store.list::<NewPort>(Query::index("label", "new")).await.unwrap()), ["1"]);
    assert_eq!(store.get_unique::<NewPort>("host", ["2"]).await.unwrap(), None);
}

pub async fn a_rebuild_that_finds_a_clash_changes_nothing(place: Place) {
    let store = place.open().await;
    create(&store, vec![Port::new("a", "p", "a"), Port::new("b", "p", "b")]).await;
    drop(store);
    let clash = Store::open(place.options.clone().kind::<NewPort>(), env()).await;
    assert!(clash.is_err(), "both are on h1");
    let both: Options = place.options.clone().kind::<NewPort>().kind::<Port>();
    assert!(Store::open(both, env()).await.is_err(), "two types for one kind");
    let store = place.open().await;
    assert_eq!(store.list::<Port>(Query::index("host", "h1")).await.unwrap().len(), 2);
}

/// A store whose tables are newer than the program is refused, and left as it is.
#[tokio::test]
async fn newer_tables_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(format!("sqlite:{}", dir.path().join("store.db").display()));
    drop(Store::open(options.clone(), env()).await.unwrap());
    let raw = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    raw.execute("UPDATE meta SET value = 99 WHERE name = 'schema'", []).unwrap();
    let fault = Store::open(options, env()).await.err().unwrap();
    assert_eq!(fault.message, "The store has tables of version 99; this program knows 2.");
}

#[tokio::test]
async fn urls_that_name_no_store_are_refused() {
    for (url, inline) in [("mysql://x", false), ("postgres://h:port", false), ("postgres:///x", true), ("", false)] {
        let options = Options { inline, ..Options::new(url) };
        assert!(Store::open(options, env()).await.is_err(), "{url}");
    }
    let nowhere = Options::new("sqlite:/nonexistent/store.db");
    assert_eq!(Store::open(nowhere, env()).await.err().unwrap().kind, base::FaultKind::Unavailable);
}
