//! Jobs over a real store, with processes that end in the middle and workers that wake too late.

use super::*;
use crate::{Handle, Reconciler, run};
use base::Env;
use base::clock::ManualClock;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use store::{Cause, Kind, Store};

/// What the jobs of these tests work for: counts what was done to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cake {
    id: String,
    baked: u32,
    iced: u32,
    thrown_away: Option<String>,
}

impl Document for Cake {
    const KIND: &'static str = "cake";
    fn id(&self) -> &str {
        &self.id
    }
}

/// Bakes, then ices. Each effect is in the commit that marks its step.
#[derive(Default)]
struct Bakery {
    /// Steps begun by this process.
    begun: AtomicU32,
    /// The icing hangs, as long as this is set.
    stuck: AtomicBool,
    /// How many of the first icings fail.
    failing: AtomicU32,
    hopeless: AtomicBool,
}

#[async_trait]
impl Work for Bakery {
    fn kind(&self) -> &'static str {
        "cake"
    }
    fn owner_kinds(&self) -> &'static [&'static str] {
        &["cake"]
    }
    fn wanted(&self, reader: &mut Reader, job: &Job) -> Result<bool> {
        Ok(reader.get::<Cake>(&job.owners[0])?.is_some())
    }
    async fn step(&self, step: &str, held: &Held) -> Result<Progress> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let icing = step == "ice";
        while icing && self.stuck.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if icing && self.hopeless.load(Ordering::SeqCst) {
            return Err(Fault::quota("No sugar is left."));
        }
        if icing && self.failing.load(Ordering::SeqCst) > 0 {
            self.failing.fetch_sub(1, Ordering::SeqCst);
            return Err(Fault::unavailable("The sugar is late."));
        }
        held.commit("cake", move |tx, job| {
            let mut cake = tx.need::<Cake>(&job.owners[0])?.doc;
            match icing {
                true => cake.iced += 1,
                false => cake.baked += 1,
            }
            tx.update(&cake)?;
            Held::pass(job, if icing { "ice" } else { "bake" });
            Ok(())
        })
        .await?;
        Ok(Progress::Done)
    }
    fn end(&self, tx: &mut Tx, job: &Job, why: &End) -> Result<()> {
        if let Some(cake) = tx.get::<Cake>(&job.owners[0])? {
            tx.update(&Cake { thrown_away: Some(why.reason(job)), ..cake.doc })?;
        }
        Ok(())
    }
}

async fn open(path: &Path, env: &Env) -> Store {
    let mut options = store::Options::new(&format!("sqlite:{}", path.display()));
    options.kinds.extend(crate::kinds());
    options.kinds.push(Kind::of::<Cake>());
    Store::open(options, env.clone()).await.unwrap()
}

fn process(store: &Store, env: &Env, sole: bool, bakery: &Arc<Bakery>) -> Handle {
    let jobs: Arc<dyn Reconciler> = Arc::new(Jobs::new(store.clone(), env.clone(), sole, vec![bakery.clone()]));
    run(store, env, vec![jobs])
}

/// A cake and its job, in one commit.
async fn ordered(store: &Store, deadline_s: i64) -> Job {
    let made = store.write(Cause::new("test", "", "order"), move |tx| {
        tx.create(&Cake { id: "c".into(), baked: 0, iced: 0, thrown_away: None })?;
        Job::create(
            tx,
            NewJob {
                kind: "cake",
                project_id: String::new(),
                owners: vec!["c".into()],
                input: Value::Null,
                steps: &["bake", "ice"],
                deadline: tx.now().plus_s(deadline_s),
            },
        )
    });
    made.await.unwrap().value
}

async fn cake(store: &Store) -> Cake {
    store.get::<Cake>("c").await.unwrap().unwrap().doc
}

async fn jobs(store: &Store) -> Vec<Job> {
    store.list::<Job>(Query::all()).await.unwrap().into_iter().map(|stored| stored.doc).collect()
}

async fn wait_for<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..5_000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    panic!("it does not come: {what}");
}

/// Time goes on by itself, a hundred times as fast.
fn ticking(clock: &Arc<ManualClock>) -> tokio::task::JoinHandle<()> {
    let clock = clock.clone();
    tokio::spawn(async move {
        loop {
            clock.advance_ms(400);
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    })
}

#[tokio::test]
async fn a_job_whose_process_died_in_the_middle_is_finished_by_the_next_exactly_once() {
    let (env, clock) = Env::seeded(11);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let ticks = ticking(&clock);
    let first = Arc::new(Bakery { stuck: true.into(), ..Bakery::default() });
    {
        let store = open(&path, &env).await;
        let running = process(&store, &env, true, &first);
        ordered(&store, 3_600).await;
        wait_for("the icing", async || (first.begun.load(Ordering::SeqCst) == 2).then_some(())).await;
        let known = jobs(&store).await;
        assert_eq!((known[0].step(), known[0].lease.epoch), (Some("ice"), 1));
        // All that was in memory goes.
        drop(running);
    }
    let store = open(&path, &env).await;
    let second = Arc::new(Bakery::default());
    let _running = process(&store, &env, true, &second);
    wait_for("the end", async || jobs(&store).await.is_empty().then_some(())).await;
    let cake = cake(&store).await;
    assert_eq!((cake.baked, cake.iced, cake.thrown_away), (1, 1, None));
    assert_eq!(second.begun.load(Ordering::SeqCst), 1, "what was done before is not begun again");
    ticks.abort();
}

#[tokio::test]
async fn a_worker_with_an_old_epoch_cannot_commit() {
    let (env, clock) = Env::seeded(12);
    let store = {
        let mut options = store::Options::memory();
        options.kinds.extend(crate::kinds());
        options.kinds.push(Kind::of::<Cake>());
        Store::open(options, env.clone()).await.unwrap()
    };
    let slow = Arc::new(Bakery { stuck: true.into(), ..Bakery::default() });
    let job = ordered(&store, 3_600).await;
    let one = process(&store, &env, false, &slow);
    wait_for("the icing", async || (slow.begun.load(Ordering::SeqCst) == 2).then_some(())).await;
    let id = store::Document::id(&job).to_owned();
    let old = Held { store: store.clone(), env: env.clone(), id, epoch: 1 };
    // Another process does not take what is held, and takes it when the lease has run out.
    let quick = Arc::new(Bakery::default());
    let _two = process(&store, &env, false, &quick);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((quick.begun.load(Ordering::SeqCst), jobs(&store).await[0].lease.epoch), (0, 1));
    quick.stuck.store(true, Ordering::SeqCst);
    clock.advance_ms(LEASE_MS + 1);
    wait_for("another epoch", async || (jobs(&store).await[0].lease.epoch > 1).then_some(())).await;
    let before = cake(&store).await;
    let refused = old.commit("late", |tx, job| {
        let cake = tx.need::<Cake>(&job.owners[0])?.doc;
        tx.update(&Cake { iced: 99, ..cake })?;
        Ok(())
    });
    assert_eq!(refused.await.unwrap_err().kind, FaultKind::Precondition);
    assert_eq!(cake(&store).await, before, "nothing of the overtaken worker is written");
    // Now the slow one wakes, too: whichever holds the lease finishes, and only that one.
    slow.stuck.store(false, Ordering::SeqCst);
    quick.stuck.store(false, Ordering::SeqCst);
    let ticks = ticking(&clock);
    wait_for("the end", async || jobs(&store).await.is_empty().then_some(())).await;
    assert_eq!((cake(&store).await.baked, cake(&store).await.iced), (1, 1));
    let late = old.commit("later still", |_, _| Ok(())).await;
    assert_eq!(late.unwrap_err().kind, FaultKind::Precondition, "a job that is gone has no worker");
    drop(one);
    ticks.abort();
}

#[tokio::test]
async fn failures_are_seen_and_tried_again_until_they_are_hopeless() {
    let (env, clock) = Env::seeded(13);
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db"), &env).await;
    let bakery = Arc::new(Bakery { failing: 3.into(), stuck: true.into(), ..Bakery::default() });
    let _running = process(&store, &env, true, &bakery);
    ordered(&store, 36_000).await;
    wait_for("the icing", async || (bakery.begun.load(Ordering::SeqCst) == 2).then_some(())).await;
    bakery.stuck.store(false, Ordering::SeqCst);
    wait_for("a failure", async || (jobs(&store).await.first()?.attempts == 1).then_some(())).await;
    let known = jobs(&store).await.remove(0);
    let waiting = known.waiting("sugar");
    assert_eq!((waiting.waiting_on.as_str(), waiting.attempts, waiting.since), ("sugar", 1, known.since));
    assert!(waiting.last_error.unwrap().contains("The sugar is late."));
    assert!(known.lease.holder.is_empty() && known.not_before > env.now(), "{known:?}");
    let troubles = store.list::<Trouble>(Query::all()).await.unwrap();
    assert_eq!(troubles[0].attempts, 1);
    bakery.hopeless.store(true, Ordering::SeqCst);
    let ticks = ticking(&clock);
    wait_for("the end", async || jobs(&store).await.is_empty().then_some(())).await;
    let cake = cake(&store).await;
    assert_eq!((cake.iced, cake.thrown_away.as_deref()), (0, Some("No sugar is left.")));
    assert!(store.list::<Trouble>(Query::all()).await.unwrap().is_empty(), "a job that is gone is no trouble");
    ticks.abort();
}

#[tokio::test]
async fn a_clock_that_is_set_back_stops_no_job() {
    let (env, clock) = Env::seeded(15);
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db"), &env).await;
    let bakery = Arc::new(Bakery { failing: 2.into(), ..Bakery::default() });
    let _running = process(&store, &env, true, &bakery);
    ordered(&store, 360_000).await;
    wait_for("a failure", async || (jobs(&store).await.first()?.attempts == 1).then_some(())).await;
    clock.advance_ms(-3_600_000);
    // Some two thousand seconds pass here at the most: less than the clock was set back by.
    let ticks = ticking(&clock);
    wait_for("the end", async || jobs(&store).await.is_empty().then_some(())).await;
    assert_eq!(cake(&store).await.iced, 1);
    ticks.abort();
}

#[tokio::test]
async fn a_job_ends_with_its_owner_and_at_its_deadline() {
    let (env, clock) = Env::seeded(14);
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db"), &env).await;
    let bakery = Arc::new(Bakery { stuck: true.into(), ..Bakery::default() });
    let _running = process(&store, &env, true, &bakery);
    ordered(&store, 60).await;
    wait_for("the icing", async || (bakery.begun.load(Ordering::SeqCst) == 2).then_some(())).await;
    store.write(Cause::new("test", "", "eat"), |tx| Ok(drop(tx.delete::<Cake>("c")?))).await.unwrap();
    wait_for("the cancellation", async || jobs(&store).await.is_empty().then_some(())).await;
    ordered(&store, 60).await;
    wait_for("the icing", async || (bakery.begun.load(Ordering::SeqCst) == 4).then_some(())).await;
    let ticks = ticking(&clock);
    wait_for("the deadline", async || jobs(&store).await.is_empty().then_some(())).await;
    assert_eq!(cake(&store).await.thrown_away.as_deref(), Some("It took longer than it may."));
    bakery.stuck.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(cake(&store).await.iced, 0, "the worker that woke after the deadline wrote nothing");
    ticks.abort();
}
