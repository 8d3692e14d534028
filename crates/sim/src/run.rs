//! One history, from its seed to its verdict.

mod keyed;
pub(crate) mod late;
mod outlast;
mod past;
mod undone;

use crate::calls::{self, Operation};
use crate::check::{self, Broken, Held};
use crate::client::{Answer, Ask, Tokens, send};
use crate::clock::SimClock;
use crate::dice::Dice;
use crate::faults::{Kind, PAIRS, Point, Trap, weight};
use crate::host_life::{self, Slot};
use crate::jobs::Jobs;
use crate::known::Known;
use crate::mirror::Mirror;
use crate::promises::{Doubt, Promises};
use crate::settled::settled;
use crate::tally::Tally;
use crate::template::{Template, runtime, scratch};
use crate::world::World;
use crate::{control_life, resting, trouble};
use anyhow::{Context, Result};
use base::Env;
use base::random::SeededRandom;
use http::Method;
use keyed::Again;
use past::Seen;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A fault is laid in one of so many steps: mostly more than ten strike in a history of 250.
const FAULT_EVERY: u64 = 6;
/// A history has at least one fault that strikes in so many steps.
const STEPS_A_FAULT: u64 = 25;
/// The ledger is counted by its own services after so many steps.
const RECOUNT_EVERY: u64 = 16;
/// The most calls under way.
const IN_FLIGHT: usize = 4;
/// Every call is answered within this.
const ANSWER: Duration = Duration::from_secs(300);
/// After the last fault all is as it shall be within this.
const SETTLE: Duration = Duration::from_secs(900);

/// For how long what is deleted may rest in the trash. Some of it is purged while the history goes on.
const RETENTIONS_S: [i64; 6] = [0, 0, 20, 90, 1_800, 14_400];

/// What the simulator compares by itself: how often it looked, and how often there was something to compare.
const DELETED: &str = "sim deleted and undone";
const KEYED: &str = "sim sent twice with a key";
const PAST: &str = "sim read as of then";
const OUTLASTED: &str = "sim jobs of a host that stayed away";
pub(crate) const OWN: [&str; 4] = [DELETED, KEYED, PAST, OUTLASTED];

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub steps: u64,
    pub hosts: u64,
    /// Steps that are left out, by their number.
    pub without: BTreeSet<u64>,
}

/// How it went.
pub struct Verdict {
    pub hash: u64,
    pub broken: Option<Broken>,
    /// The step in which the rule broke; as many as the plan has if it broke at the end.
    pub step: u64,
    pub tally: Tally,
    pub lines: Vec<String>,
}

/// Runs one history to its end.
pub fn run(template: &Template, plan: &Plan) -> Result<Verdict> {
    let folder = scratch()?;
    template.copy(folder.path())?;
    trouble::take();
    let runtime = runtime()?;
    let verdict = runtime.block_on(async {
        let mut history = History::begin(template, plan, folder.path()).await?;
        let held = history.play(plan).await;
        Ok(history.end(held))
    });
    drop(runtime);
    trouble::take();
    verdict
}

struct Done {
    ask: Ask,
    answer: Option<Answer>,
    /// What came when it was sent a second time with its key.
    again: Option<Again>,
    doubt: Doubt,
    step: u64,
    began: Instant,
}

struct History<'a> {
    template: &'a Template,
    world: Arc<World>,
    tokens: Arc<Tokens>,
    table: Vec<Operation>,
    known: Known,
    promises: Promises,
    mirror: Mirror,
    in_flight: JoinSet<Done>,
    /// Servers past their deadline, and since when that was seen.
    late: BTreeMap<String, Instant>,
    jobs: Jobs,
    /// What was seen, and when, to be compared with what is said of it later.
    seen: Vec<Seen>,
    tally: Tally,
    step: u64,
    began: Instant,
    _keepers: JoinSet<()>,
}

impl<'a> History<'a> {
    async fn begin(template: &'a Template, plan: &Plan, folder: &std::path::Path) -> Result<History<'a>> {
        let clock = Arc::new(SimClock::new(Some(template.at)));
        let env = Env { clock: clock.clone(), random: Arc::new(SeededRandom::new(plan.seed)) };
        let retention_s = Dice::new(plan.seed, 2).of(RETENTIONS_S);
        let world = World::new(env, clock, plan.seed, folder.to_owned(), retention_s);
        let mut keepers = JoinSet::new();
        keepers.spawn(control_life::keep(world.clone()));
        for n in 1..=plan.hosts {
            let mut options = simhost::Options::new(format!("sim-{n}").as_str());
            (options.vcpus, options.memory_mib, options.disk_gib) = (2, 8 << 10, 40);
            options.delay_ms = 700 * (n - 1);
            let slot = Arc::new(Slot::new(&world, options));
            world.add_host(slot.clone());
            keepers.spawn(host_life::keep(world.clone(), slot));
        }
        let process = world.up().await;
        let table = calls::table(&process.cloud);
        let mut tally = Tally::default();
        let own = OWN.iter().map(|name| ((*name).to_owned(), (0, 0)));
        tally.operations = table.iter().map(|operation| (operation.name(), (0, 0))).chain(own).collect();
        Ok(History {
            template,
            tokens: Arc::default(),
            table,
            known: template.known.clone(),
            promises: Promises::default(),
            mirror: Mirror::open(&folder.join("nubo.db")).context("the store's file")?,
            in_flight: JoinSet::new(),
            late: BTreeMap::new(),
            jobs: Jobs::default(),
            seen: Vec::new(),
            tally,
            step: 0,
            began: Instant::now(),
            world,
            _keepers: keepers,
        })
    }

    fn end(self, held: Held) -> Verdict {
        let mut tally = self.tally;
        tally.seeds = 1;
        tally.virtual_s = self.began.elapsed().as_secs_f64();
        let board = self.world.board();
        (tally.passed, tally.struck, tally.faults) = (board.passed.clone(), board.struck.clone(), board.strikes());
        tally.fewest = held.is_ok().then_some((tally.calls, tally.faults));
        let trace = self.world.trace();
        Verdict { hash: trace.hash(), broken: held.err(), step: self.step, lines: trace.lines(), tally }
    }

    async fn play(&mut self, plan: &Plan) -> Held {
        for step in 0..plan.steps {
            self.step = step;
            if plan.without.contains(&step) {
                continue;
            }
            let dice = Dice::new(plan.seed, 1000 + step);
            self.trouble(&dice, step % FAULT_EVERY == plan.seed % FAULT_EVERY);
            let ms = dice.of([0, 0, 0, 3, 40, 300, 1500]);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            match dice.below(100) {
                0..4 => self.delete_and_undo(&dice).await?,
                4..7 => self.see(&dice).await?,
                7..9 => self.see_again(&dice).await?,
                _ => self.call(&dice, step).await?,
            }
            self.look()?;
            if step % RECOUNT_EVERY == 0 {
                self.recount().await?;
                self.ask_the_late().await?;
            }
            self.tally.steps += 1;
        }
        self.step = plan.steps;
        if plan.without.is_empty() {
            self.enough_faults(plan.steps / STEPS_A_FAULT).await?;
        }
        self.world.say("no fault from here on");
        self.world.calm_down();
        self.drain().await?;
        self.outlast(plan.seed).await?;
        self.settle().await?;
        while !self.seen.is_empty() {
            self.compare_past(0).await?;
        }
        self.empty_trash().await
    }

    /// Where few of the traps were stepped into, agents die until there have been enough faults.
    async fn enough_faults(&mut self, least: u64) -> Held {
        let hosts = self.world.hosts();
        for slot in hosts.iter().cycle() {
            if self.world.board().strikes() >= least {
                break;
            }
            self.world.strike(Kind::CrashAgent, &slot.name);
            slot.kill(Kind::CrashAgent);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            self.look()?;
        }
        Ok(())
    }

    /// Waits for all that is under way.
    async fn drain(&mut self) -> Held {
        while let Some(joined) = self.next_done().await? {
            self.take(joined)?;
        }
        Ok(())
    }

    async fn next_done(&mut self) -> Result<Option<Result<Done, tokio::task::JoinError>>, Broken> {
        let joined = tokio::time::timeout(ANSWER, self.in_flight.join_next()).await;
        joined.map_err(|_| Broken::new("every call is answered", format!("not within {ANSWER:?}")))
    }

    /// Lays a fault, or does one at once.
    fn trouble(&self, dice: &Dice, due: bool) {
        let pairs = PAIRS.iter().flat_map(|(point, kinds)| kinds.iter().map(move |kind| (point, kind)));
        let mut left = dice.below(pairs.clone().map(|(point, kind)| weight(*point, *kind)).sum());
        let drawn = pairs.into_iter().find(|(point, kind)| match left.checked_sub(weight(**point, **kind)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        let Some((point, kind)) = drawn.filter(|_| due) else { return };
        let rare = matches!(point, Point::BeforeAnswer | Point::AfterAnswer | Point::Disk);
        let skip = if rare { 0 } else { dice.of([0, 0, 1, 2, 5, 11, 23]) };
        let times = if *kind == Kind::FullDisk { dice.of([2, 2, 3, 8]) } else { dice.of([1, 1, 1, 2]) };
        // A disk takes longer than anything else, also longer than the lease of the job that waits for it.
        let slower = if *point == Point::Disk { 10 } else { 1 };
        let ms = slower * dice.of([1, 30, 200, 900, 4_000]);
        if *point != Point::Between {
            return self.world.lay(Trap { point: *point, kind: *kind, skip, times, ms });
        }
        let hosts = self.world.hosts();
        let Some(slot) = dice.pick(&hosts) else { return };
        match kind {
            Kind::CrashControl => {
                self.world.strike(*kind, "control");
                self.world.kill_control();
            }
            Kind::CrashAgent | Kind::CrashHost => {
                self.world.strike(*kind, &slot.name);
                slot.kill(*kind);
            }
            Kind::ClockForward | Kind::ClockBack => {
                let ms = dice.of([500, 20_000, 120_000, 3_700_000]) as i64;
                self.world.strike(*kind, &format!("the clock, {ms} ms"));
                self.world.clock.jump_ms(if *kind == Kind::ClockBack { -ms } else { ms });
            }
            _ => {
                let Some(agent) = slot.agent() else { return };
                let guests = agent.guests();
                let Some(guest) = dice.pick(&guests) else { return };
                let struck = match kind {
                    Kind::GuestVanishes => agent.lose_guest(&guest.id),
                    _ => agent.crash_guest(&guest.id, "killed: signal 9"),
                };
                if struck {
                    self.world.strike(*kind, &guest.id);
                }
            }
        }
    }

    async fn call(&mut self, dice: &Dice, step: u64) -> Held {
        let asked = (0..8).find_map(|_| {
            let operation = calls::choose(dice, &self.table)?;
            calls::ask(dice, &self.known, &self.template.actors, operation, step)
        });
        let Some(mut ask) = asked else { return Ok(()) };
        let twice = keyed::twice(dice, &mut ask, step);
        for name in ask.names() {
            self.tally.operations.entry(name).or_default().0 += 1;
        }
        self.tally.calls += 1;
        self.world.say(format!(
            "#{step} {} {} {} {}",
            self.template.actors[ask.actor].name,
            ask.method,
            ask.path,
            brief(&ask.body)
        ));
        let doubt = self.promises.asked(&ask);
        let (world, tokens, actors) = (self.world.clone(), self.tokens.clone(), self.template.actors.clone());
        self.in_flight.spawn(async move {
            world.up().await;
            let began = Instant::now();
            let (answer, again) = keyed::send_twice(&world, &tokens, &actors, &ask, twice).await;
            Done { ask, answer, again, doubt, step, began }
        });
        let room = if dice.chance(65) { 0 } else { IN_FLIGHT - 1 };
        while let Some(done) = self.in_flight.try_join_next() {
            self.take(done)?;
        }
        while self.in_flight.len() > room {
            match self.next_done().await? {
                Some(done) => self.take(done)?,
                None => break,
            }
        }
        Ok(())
    }

    /// A call whose answer is waited for.
    async fn go(&mut self, ask: Ask) -> Result<Option<Answer>, Broken> {
        let (step, began) = (self.step, Instant::now());
        self.world.say(format!("#{step} {} {} {}", self.template.actors[ask.actor].name, ask.method, ask.path));
        let doubt = self.promises.asked(&ask);
        self.world.up().await;
        self.tally.calls += 1;
        let answer = send(&self.world, &self.tokens, &self.template.actors, &ask).await;
        self.take(Ok(Done { ask, answer: answer.clone(), again: None, doubt, step, began }))?;
        Ok(answer)
    }

    /// What a call brought.
    fn take(&mut self, done: Result<Done, tokio::task::JoinError>) -> Held {
        let done = done.map_err(|error| Broken::new("the simulator itself works", error.to_string()))?;
        let Done { ask, answer, again, doubt, step, began } = done;
        let answer = match again {
            Some(again) => self.compare_keyed(&ask, answer, again, step, began)?,
            None => answer,
        };
        self.promises.answered(&ask, answer.as_ref(), &doubt, step);
        let Some(answer) = answer else {
            self.world.say(format!("#{step} no answer"));
            return Ok(());
        };
        self.world.say(format!("#{step} {} {}", answer.status, brief(&answer.body)));
        self.world.trace().weigh(&answer.body);
        *self.tally.statuses.entry(answer.status).or_default() += 1;
        let name = format!("{} {}", ask.service, ask.operation);
        if answer.is_ok() {
            // What the simulator asks for itself is counted where it compares.
            for name in ask.names() {
                self.tally.operations.entry(name).and_modify(|(_, done)| *done += 1);
            }
            self.hear(&ask, &answer);
        }
        if ask.operation == "auth:revoke_token" {
            self.tokens.set(ask.actor, None);
        }
        let what = || format!("{name} {} {}: {} {}", ask.method, ask.path, answer.status, brief(&answer.body));
        match answer.status {
            // These clouds have no key for SAML, and Keystone says the same without one.
            500 if ask.operation.starts_with("federation:saml2") => Ok(()),
            500 => Err(Broken::new("no call is answered with 500", what())),
            502..=504 if !self.world.was_troubled(began - Duration::from_secs(15)) => {
                Err(Broken::new("no call is refused for want of a service without a fault", what()))
            }
            _ => Ok(()),
        }
    }

    fn hear(&mut self, ask: &Ask, answer: &Answer) {
        if ask.is_dry() {
            return;
        }
        if ask.method != Method::GET && ask.service != "sim" {
            let request = serde_json::json!({"id": answer.request_id, "deletes": ask.method == Method::DELETE});
            self.known.learn_recent("undo", &request, ask.actor);
        }
        if ask.operation == "nubo:undo" {
            return self.hear_of_undo(ask.actor, answer);
        }
        let path = ask.path.split('?').next().unwrap_or_default();
        let mut parts: Vec<&str> = path.split('/').collect();
        let last = parts.pop().unwrap_or_default();
        if ask.method == Method::DELETE {
            let class = parts.last().copied().unwrap_or_default();
            return self.known.forget(class, last);
        }
        let list = ["detail", "action"].contains(&last) || ask.method == Method::PUT || ask.method == Method::PATCH;
        if ask.service == "compute" && last == "action" || ask.operation.starts_with("auth:") {
            if let Some(image) = answer.json["image_id"].as_str() {
                self.known.learn("images", &serde_json::json!({"id": image}), Some(ask.actor), false);
            }
            return;
        }
        let class = if list { parts.last().copied().unwrap_or_default() } else { last };
        let actor = (ask.method == Method::POST).then_some(ask.actor);
        // What is heard of is changed by others, too; only what was there at the beginning is spared.
        self.known.hear(class, &answer.json, actor, false);
    }

    fn refresh(&mut self) -> Held {
        self.mirror.refresh().map_err(|error| Broken::new("the store can be read", error.to_string()))
    }

    /// What holds always.
    fn look(&mut self) -> Held {
        self.refresh()?;
        check::every_step(&self.world, &self.mirror)?;
        check::ledger(&self.mirror)?;
        self.promises.check(&self.mirror)?;
        self.deadlines()?;
        self.jobs.check(&self.world, &self.mirror)?;
        match trouble::take() {
            Some(said) => Err(Broken::new("nothing panics and no bug is logged", said)),
            None => Ok(()),
        }
    }

    /// The services count for themselves what the ledger should say.
    async fn recount(&mut self) -> Held {
        let Some(process) = self.world.process() else { return Ok(()) };
        match process.cloud.miscounts().await {
            Ok(wrong) if !wrong.is_empty() => {
                let rows: Vec<String> = wrong.iter().map(ToString::to_string).collect();
                Err(Broken::new("the ledger equals the recount", rows.join("; ")))
            }
            // A process that died under the question is no answer.
            _ => Ok(()),
        }
    }

    /// Waits until all is as it shall be.
    async fn settle(&mut self) -> Held {
        let until = Instant::now() + SETTLE;
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            self.look()?;
            let owners = self.owners().await?;
            let held =
                settled(&self.world, &self.mirror, &owners).and_then(|()| self.promises.check_gone(&self.mirror));
            match held {
                Ok(()) => return self.recount().await,
                Err(broken) if Instant::now() > until => return Err(broken),
                Err(_) => {}
            }
        }
    }

    /// When its time is over, nothing of the trash is left.
    async fn empty_trash(&mut self) -> Held {
        self.world.say("what rests has rested long enough");
        // The clock may have been ahead when it was deleted.
        let now = self.world.env.now().micros();
        let last = self.mirror.all("trash").filter_map(|(_, trash)| trash["until"].as_i64()).max().unwrap_or(now);
        self.world.clock.jump_ms((last - now).max(0) / 1000 + 1);
        let until = Instant::now() + SETTLE;
        loop {
            self.settle().await?;
            match resting::nothing_left(&self.world, &self.mirror) {
                Ok(()) => return Ok(()),
                Err(broken) if Instant::now() > until => return Err(broken),
                Err(_) => {}
            }
        }
    }

    async fn owners(&self) -> Result<serde_json::Value, Broken> {
        let ask = Ask::look(calls::ADMIN, "/nubo/v1/owners");
        let answer = send(&self.world, &self.tokens, &self.template.actors, &ask).await;
        match answer {
            Some(answer) if answer.status == 200 => Ok(answer.json),
            Some(answer) => Err(Broken::new("the cloud answers at the end", brief(&answer.body))),
            None => Ok(serde_json::Value::Null),
        }
    }
}

/// The beginning of a body.
fn brief(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut end = text.len().min(400);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\n', " ")
}
