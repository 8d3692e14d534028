//! Loops over a real store, and processes that end in between.

use crate::{Outcome, Reconciler, Trouble, run};
use async_trait::async_trait;
use base::{Env, Fault, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use store::{Change, Query, Store};

/// Fails until it has been asked so often.
struct Stubborn {
    asked: AtomicU32,
    yields: AtomicU32,
}

#[async_trait]
impl Reconciler for Stubborn {
    fn name(&self) -> &'static str {
        "stubborn"
    }
    fn concerns(&self, _: &Change) -> Option<String> {
        None
    }
    async fn pending(&self) -> Result<Vec<String>> {
        Ok(vec!["mule".into()])
    }
    async fn reconcile(&self, _: &str) -> Result<Outcome> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if asked > self.yields.load(Ordering::SeqCst) {
            return Ok(Outcome::Settled);
        }
        Err(Fault::unavailable(format!("no, says it for the {asked}. time")))
    }
    fn period_ms(&self) -> u64 {
        50
    }
}

async fn troubles(store: &Store) -> Vec<Trouble> {
    store.list::<Trouble>(Query::all()).await.unwrap().into_iter().map(|stored| stored.doc).collect()
}

async fn wait_for(store: &Store, what: impl Fn(&[Trouble]) -> bool) -> Vec<Trouble> {
    for _ in 0..2_000 {
        let known = troubles(store).await;
        if what(&known) {
            return known;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come: {:?}", troubles(store).await);
}

#[tokio::test]
async fn failures_are_written_down_survive_the_process_and_go_when_it_settles() {
    let (env, clock) = Env::seeded(3);
    let store = Store::open(store::Options::memory(), env.clone()).await.unwrap();
    let stubborn = Arc::new(Stubborn { asked: AtomicU32::new(0), yields: AtomicU32::new(u32::MAX) });
    let hands = clock.clone();
    let ticking = tokio::spawn(async move {
        loop {
            hands.advance_ms(1_000);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let first = run(&store, &env, vec![stubborn.clone()]);
    let known = wait_for(&store, |known| known.first().is_some_and(|trouble| trouble.attempts >= 4)).await;
    let since = known[0].since;
    assert_eq!((known.len(), known[0].object.as_str(), known[0].is_warning()), (1, "mule", false));
    assert!(known[0].last_error.contains("no, says it"), "{}", known[0].last_error);
    let revisions = store.rev().0;
    assert!(revisions <= 4, "it is written at doublings only, not {revisions} times");
    drop(first);
    // Another process counts on.
    let second = run(&store, &env, vec![stubborn.clone()]);
    let known = wait_for(&store, |known| known.first().is_some_and(Trouble::is_warning)).await;
    assert_eq!((known[0].attempts, known[0].since), (8, since));
    let warned = store.read(|reader| Trouble::warnings(reader, 10)).await.unwrap();
    assert_eq!(warned, known);
    let about = store.read(|reader| Trouble::about(reader, "mule")).await.unwrap();
    assert_eq!((about, second.unsettled()[0].since), (known, since));
    stubborn.yields.store(0, Ordering::SeqCst);
    wait_for(&store, <[Trouble]>::is_empty).await;
    assert!(second.unsettled().is_empty());
    ticking.abort();
}
