//! The bodies. Each gets an empty store.

use crate::Place;
use crate::things::*;
use store::{Error, Query, Rev};

pub async fn creates_and_finds_again(place: Place) {
    let store = place.open().await;
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
