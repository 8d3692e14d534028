//! The bodies. Each gets an empty store.

use crate::things::*;
use store::{Error, Options, Query, Rev, Store};

#[tokio::test]
async fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let file = Options::new(format!("sqlite:{}/a.db", dir.path().display()));
    for options in [Options::memory(), file.clone(), Options { url: format!("{}x", file.url), ..file }.inline()] {
        creates(Store::open(options, env()).await.unwrap()).await;
    }
}

async fn creates(store: Store) {
    let created = write(&store, "create", |tx| {
        tx.create(&Port::new("a", "p", "one"))?;
        let taken = tx.create(&Port::new("b", "p", "one")).unwrap_err();
        assert_eq!(taken, Error::Taken { kind: "port", name: "name", value: "p/one".into() });
        tx.charge("p", "ports", 1, Some(10))?;
        Ok(tx.rev())
    })
    .await;
    assert_eq!((created.value, created.rev, store.rev()), (Rev(1), Rev(1), Rev(1)));
    let port = store.get::<Port>("a").await.unwrap().unwrap();
    assert_eq!(port.doc, Port::new("a", "p", "one"));
    assert_eq!(ids(&store.list::<Port>(Query::index("host", "h1")).await.unwrap()), ["a"]);
    assert_eq!(ids(&store.list::<Port>(Query::project("p")).await.unwrap()), ["a"]);
    assert_eq!(store.read(|r| Ok(r.usage("p", "ports")?.used)).await.unwrap(), 1);
}
