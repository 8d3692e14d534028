//! How many records are kept, and how long.

use super::*;
use base::Timestamp;
use base::clock::ManualClock;

fn record(n: usize, scope: &str) -> Record {
    Record {
        id: format!("{scope}-{n:05}"),
        project_id: scope.to_owned(),
        scope: scope.to_owned(),
        request_id: format!("req-{n}").into(),
        body: String::new(),
        made: Vec::new(),
        answer: None,
    }
}

async fn keys() -> (Arc<Keys>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    clock.set(Timestamp(1_800_000_000_000_000));
    let env = Env { clock: clock.clone(), ..Env::system() };
    let store = Store::open(store::Options::memory(), env.clone()).await.unwrap();
    (Keys::new(store, env), clock)
}

async fn ids(keys: &Keys, scope: &str) -> Vec<String> {
    let found = keys.store.list::<Record>(Query::index("scope", scope)).await.unwrap();
    found.into_iter().map(|record| record.doc.id).collect()
}

#[tokio::test]
async fn beyond_the_limit_the_oldest_of_the_same_project_go() {
    let (keys, _) = keys().await;
    let fill = |tx: &mut Tx| {
        tx.create(&record(0, "other"))?;
        (0..RECORDS).try_for_each(|n| tx.create(&record(n, "p")).map(drop))?;
        Ok(())
    };
    keys.store.write(Cause::default(), fill).await.unwrap();
    for n in RECORDS..RECORDS + 3 {
        keys.store.write(Cause::default(), move |tx| enter(tx, &record(n, "p"))).await.unwrap();
    }
    let kept = ids(&keys, "p").await;
    assert_eq!((kept.len(), kept.first(), kept.last()), (RECORDS, Some(&"p-00003".into()), Some(&"p-10002".into())));
    assert_eq!(ids(&keys, "other").await.len(), 1);
}

#[tokio::test]
async fn the_sweep_removes_what_is_over_and_nothing_else() {
    let (keys, clock) = keys().await;
    let add = |from: usize, to: usize| {
        keys.store.write(Cause::default(), move |tx| (from..to).try_for_each(|n| enter(tx, &record(n, "p"))))
    };
    add(0, 50).await.unwrap();
    clock.advance_ms(KEPT_MS / 2);
    add(50, 53).await.unwrap();
    let forget = Forget(keys.clone());
    assert!(forget.pending().await.unwrap().is_empty());
    assert_eq!(ids(&keys, "p").await.len(), 53);
    clock.advance_ms(KEPT_MS / 2 + 1);
    forget.pending().await.unwrap();
    assert_eq!(ids(&keys, "p").await, ["p-00050", "p-00051", "p-00052"]);
}

#[tokio::test]
async fn a_second_process_that_was_slower_undoes_its_change() {
    let (keys, _) = keys().await;
    let first = Write(record(1, "p"));
    let second = Write(Record { request_id: "req-2".into(), ..record(1, "p") });
    keys.store.write(Cause::default(), move |tx| first.write(tx)).await.unwrap();
    let late = keys.store.write(Cause::default(), move |tx| second.write(tx)).await;
    assert_eq!(late.unwrap_err().kind, base::FaultKind::Conflict);
}
