//! The simulated world: who is alive in it, what lies in wait, what happened.

use crate::clock::SimClock;
use crate::control_life::Process;
use crate::dice::Dice;
use crate::faults::{Board, Kind, Point, Trap};
use crate::host_life::Slot;
use crate::objects::Slow;
use crate::trace::Trace;
use base::{Env, HostName};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

pub struct World {
    pub env: Env,
    pub clock: Arc<SimClock>,
    /// Of hosts: their clocks are their own and do not jump with control's.
    pub host_env: Env,
    /// What the world decides by itself: how long a process stays down.
    pub dice: Dice,
    /// The machine of control: `nubo.db` and `images`.
    pub folder: PathBuf,
    /// A store of images that is no folder.
    pub objects: Arc<Slow>,
    /// How long what is deleted rests; 0: not at all.
    pub retention_s: i64,
    control: Mutex<Option<Process>>,
    /// Control has come up.
    risen: Notify,
    board: Mutex<Board>,
    trace: Mutex<Trace>,
    hosts: Mutex<BTreeMap<HostName, Arc<Slot>>>,
    /// When the last fault struck.
    trouble: Mutex<Option<Instant>>,
    /// No process stays down for long any more.
    calm: std::sync::atomic::AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn new(env: Env, clock: Arc<SimClock>, seed: u64, folder: PathBuf, retention_s: i64) -> Arc<World> {
        let (dice, objects) = (Dice::new(seed, 1), Arc::new(Slow::new(Dice::new(seed, 4))));
        let host_env = Env { clock: Arc::new(SimClock::new(Some(env.now()))), ..env.clone() };
        Arc::new(World {
            env,
            clock,
            host_env,
            dice,
            folder,
            objects,
            retention_s,
            control: Mutex::default(),
            risen: Notify::new(),
            board: Mutex::default(),
            trace: Mutex::new(Trace::new()),
            hosts: Mutex::default(),
            trouble: Mutex::default(),
            calm: false.into(),
        })
    }

    pub fn say(&self, what: impl AsRef<str>) {
        lock(&self.trace).say(what);
    }

    pub fn trace(&self) -> MutexGuard<'_, Trace> {
        lock(&self.trace)
    }

    pub fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    pub fn add_host(&self, slot: Arc<Slot>) {
        lock(&self.hosts).insert(slot.name.clone(), slot);
    }

    pub fn hosts(&self) -> Vec<Arc<Slot>> {
        lock(&self.hosts).values().cloned().collect()
    }

    pub fn lay(&self, trap: Trap) {
        self.say(format!("fault laid: {:?} at {:?} after {} × {}", trap.kind, trap.point, trap.skip, trap.times));
        self.board().lay(trap);
    }

    /// Something passes a point.
    pub fn pass(&self, point: Point, who: &str) -> Option<(Kind, u64)> {
        let struck = self.board().pass(point)?;
        self.troubled();
        self.say(format!("FAULT {:?} at {point:?} of {who}", struck.0));
        Some(struck)
    }

    /// A fault that is done at once.
    pub fn strike(&self, kind: Kind, who: &str) {
        self.board().strike(Point::Between, kind);
        self.troubled();
        self.say(format!("FAULT {kind:?} of {who}"));
    }

    pub fn troubled(&self) {
        *lock(&self.trouble) = Some(Instant::now());
    }

    /// True when a fault struck since then, or a process is down now.
    pub fn was_troubled(&self, since: Instant) -> bool {
        let down = lock(&self.control).is_none() || self.hosts().iter().any(|slot| !slot.is_up());
        down || self.objects.was_gone(since) || lock(&self.trouble).is_some_and(|at| at >= since)
    }

    pub fn set_control(&self, process: Option<Process>) {
        let before = std::mem::replace(&mut *lock(&self.control), process);
        drop(before);
        self.risen.notify_waiters();
    }

    pub fn process(&self) -> Option<Process> {
        lock(&self.control).clone().filter(|process| !process.life.is_over())
    }

    /// Waits for a control process that answers.
    pub async fn up(&self) -> Process {
        loop {
            let risen = self.risen.notified();
            if let Some(process) = self.process() {
                return process;
            }
            risen.await;
        }
    }

    pub fn kill_control(&self) {
        if let Some(process) = &*lock(&self.control) {
            process.life.end();
        }
    }

    pub fn calm_down(&self) {
        self.board().clear();
        self.calm.store(true, std::sync::atomic::Ordering::SeqCst);
        self.objects.calm_down();
    }

    /// How long a process stays down.
    pub fn down_ms(&self) -> u64 {
        let ms = self.dice.of([1, 50, 400, 2_000, 2_000, 9_000, 35_000]);
        if self.calm.load(std::sync::atomic::Ordering::SeqCst) { 1 } else { ms }
    }
}
