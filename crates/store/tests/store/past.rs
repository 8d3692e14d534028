//! A long random history against a model that is replayed: what a request of the past reads is what it would have read
//! then, by the same calls.

use crate::Place;
use crate::things::*;
use base::{Env, Fault, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::scope::{self, Scope};
use store::{AsOf, Document, Error, Keys, Options, Query, Reader, Rev, Store, Stored, Tx, Usage};

/// A second kind: of no project, with several values for one index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    id: String,
    colours: Vec<String>,
}

impl Document for Label {
    const KIND: &'static str = "label";
    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        for colour in &self.colours {
            keys.index("colour", colour);
        }
    }
}

/// Numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[derive(Clone, Debug)]
enum Op {
    Port(Port),
    NoPort(String),
    Label(Label),
    NoLabel(String),
    Charge(String, String, i64),
    Limit(String, String, Option<i64>),
}

/// What a commit did, and when.
struct Commit {
    rev: Rev,
    at: Timestamp,
    ops: Vec<Op>,
}

#[derive(Clone, Default)]
struct Model {
    ports: BTreeMap<String, (u64, Port)>,
    labels: BTreeMap<String, (u64, Label)>,
    ledger: BTreeMap<(String, String), Usage>,
    next: u64,
}

impl Model {
    /// Whether the store will take it, judged from the same rules: names are unique within a project.
    fn takes(&self, op: &Op) -> bool {
        match op {
            Op::Port(port) => !self.ports.values().any(|(_, other)| {
                other.id != port.id && (&other.project_id, &other.name) == (&port.project_id, &port.name)
            }),
            Op::NoPort(id) => self.ports.contains_key(id),
            Op::NoLabel(id) => self.labels.contains_key(id),
            Op::Charge(scope, resource, delta) => {
                let usage = self.ledger.get(&(scope.clone(), resource.clone())).copied().unwrap_or_default();
                let after = usage.used + delta;
                after >= 0 && (*delta <= 0 || usage.limit.is_none_or(|limit| limit < 0 || after <= limit))
            }
            Op::Label(_) | Op::Limit(..) => true,
        }
    }

    fn apply(&mut self, op: &Op) {
        self.next += 1;
        let next = self.next;
        match op {
            Op::Port(port) => {
                let place = self.ports.get(&port.id).map_or(next, |(place, _)| *place);
                self.ports.insert(port.id.clone(), (place, port.clone().redacted()));
            }
            Op::NoPort(id) => drop(self.ports.remove(id)),
            Op::Label(label) => {
                let place = self.labels.get(&label.id).map_or(next, |(place, _)| *place);
                self.labels.insert(label.id.clone(), (place, label.clone()));
            }
            Op::NoLabel(id) => drop(self.labels.remove(id)),
            Op::Charge(scope, resource, delta) => {
                self.ledger.entry((scope.clone(), resource.clone())).or_default().used += delta;
            }
            Op::Limit(scope, resource, limit) => {
                self.ledger.entry((scope.clone(), resource.clone())).or_default().limit = *limit;
            }
        }
    }
}

fn write_op(tx: &mut Tx, op: &Op) -> Result<(), Error> {
    match op {
        Op::Port(port) => tx.put(port).map(drop),
        Op::NoPort(id) => tx.delete::<Port>(id).map(drop),
        Op::Label(label) => tx.put(label).map(drop),
        Op::NoLabel(id) => tx.delete::<Label>(id).map(drop),
        Op::Charge(scope, resource, delta) => tx.charge(scope, resource, *delta, None).map(drop),
        Op::Limit(scope, resource, limit) => tx.set_limit(scope, resource, *limit).map(drop),
    }
}

const PROJECTS: usize = 4;
const HOSTS: usize = 5;
const IDS: usize = 60;
const COLOURS: [&str; 4] = ["red", "green", "blue", "grey"];

fn random_op(random: &mut Dice) -> Op {
    let id = random.below(IDS).to_string();
    let project = format!("p{}", random.below(PROJECTS));
    let resource = ["cores", "a/b", "ram"][random.below(3)].to_owned();
    match random.below(100) {
        0..45 => {
            let name = format!("n{}", random.below(IDS));
            Op::Port(Port::new(&id, &project, &name).on(&format!("h{}", random.below(HOSTS))))
        }
        45..62 => Op::NoPort(id),
        62..74 => {
            let colours = COLOURS.into_iter().filter(|_| random.below(10) < 4).map(str::to_owned).collect();
            Op::Label(Label { id, colours })
        }
        74..80 => Op::NoLabel(id),
        80..95 => Op::Charge(project, resource, random.below(9) as i64 - 3),
        _ => Op::Limit(project, resource, [None, Some(-1), Some(10)][random.below(3)]),
    }
}

fn sorted<T: Clone>(rows: &BTreeMap<String, (u64, T)>, fits: impl Fn(&T) -> bool) -> Vec<T> {
    let mut rows: Vec<_> = rows.values().filter(|(_, row)| fits(row)).collect();
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row.clone()).collect()
}

fn docs<T: Clone>(list: Vec<Stored<T>>) -> Vec<T> {
    list.into_iter().map(|stored| stored.doc).collect()
}

/// One list: whole, counted, and in pages both ways.
fn same_list<T: Document + PartialEq + std::fmt::Debug>(
    reader: &mut Reader,
    query: &Query,
    mut expected: Vec<T>,
    page: usize,
) -> Result<(), Fault> {
    assert_eq!(docs(reader.list::<T>(query.clone())?), expected, "{query:?}");
    assert_eq!(reader.count::<T>(query.clone())?, expected.len(), "{query:?}");
    for way in [query.clone(), query.clone().reverse()] {
        let (mut found, mut next) = (Vec::new(), way.limit(page));
        loop {
            let rows = docs(reader.list::<T>(next.clone())?);
            let Some(last) = rows.last() else { break };
            next = next.after(last.id());
            found.extend(rows);
        }
        assert_eq!(found, expected, "{query:?} in pages of {page}");
        expected.reverse();
    }
    Ok(())
}

fn agrees(reader: &mut Reader, model: &Model, page: usize) -> Result<(), Fault> {
    same_list(reader, &Query::all(), sorted(&model.ports, |_| true), page)?;
    same_list(reader, &Query::all(), sorted(&model.labels, |_| true), page)?;
    for colour in COLOURS {
        let expected = sorted(&model.labels, |label| label.colours.iter().any(|own| own == colour));
        same_list(reader, &Query::index("colour", colour), expected, page)?;
    }
    for host in (0..HOSTS).map(|host| format!("h{host}")) {
        same_list(reader, &Query::index("host", &host), sorted(&model.ports, |port| port.host == host), page)?;
    }
    for project in (0..PROJECTS).map(|project| format!("p{project}")) {
        let expected = sorted(&model.ports, |port| port.project_id == project);
        same_list(reader, &Query::project(&project), expected, page)?;
        for name in (0..IDS).map(|name| format!("n{name}")) {
            let found = reader.get_unique::<Port>("name", [&project, &name])?.map(|stored| stored.doc);
            let expected = sorted(&model.ports, |port| port.project_id == project && port.name == name).pop();
            assert_eq!(found, expected, "{project} {name}");
        }
        let usages = reader.list_usage(&project)?;
        for resource in ["cores", "a/b", "ram"] {
            let expected = model.ledger.get(&(project.clone(), resource.to_owned())).copied().unwrap_or_default();
            assert_eq!(reader.usage(&project, resource)?, expected, "{project} {resource}");
            assert_eq!(usages.get(resource).copied().unwrap_or_default(), expected, "{project} {resource}");
        }
    }
    for id in (0..IDS).map(|id| id.to_string()) {
        let found = reader.get::<Port>(&id)?.map(|stored| stored.doc);
        assert_eq!(found.as_ref(), model.ports.get(&id).map(|(_, port)| port), "{id}");
    }
    Ok(())
}

/// Writes so many operations in commits of up to five, the clock moving on between them.
async fn live(place: &Place, operations: usize, random: &mut Dice) -> (Store, Vec<Commit>) {
    let (env, clock) = Env::seeded(11);
    let store = Store::open(place.options.clone(), env.clone()).await.unwrap();
    let (mut model, mut commits, mut done) = (Model::default(), Vec::new(), 0);
    while done < operations {
        let mut ops = Vec::new();
        for _ in 0..1 + random.below(5) {
            let op = random_op(random);
            if model.takes(&op) {
                model.apply(&op);
                ops.push(op);
            }
        }
        done += ops.len();
        clock.advance_ms(1 + random.below(4) as i64);
        let written = ops.clone();
        let write =
            write(&store, "op", move |tx| written.iter().try_for_each(|op| write_op(tx, op)).map_err(Fault::from));
        let rev = write.await.rev;
        commits.push(Commit { rev, at: env.now(), ops });
    }
    (store, commits)
}

fn replayed(commits: &[Commit], rev: Rev) -> Model {
    let mut model = Model::default();
    commits.iter().filter(|commit| commit.rev <= rev).flat_map(|commit| &commit.ops).for_each(|op| model.apply(op));
    model
}

async fn asked(store: &Store, at: AsOf, model: Model, page: usize) {
    let scope = Scope { as_of: Some(at), ..Scope::default() };
    let port = model.ports.keys().next().cloned();
    let expected = model.ports.values().next().map(|(_, port)| port.clone());
    let read = async {
        store.read(move |reader| agrees(reader, &model, page)).await?;
        // The short ways go to the past as well.
        if let Some(port) = port {
            assert_eq!(store.get::<Port>(&port).await?.map(|stored| stored.doc), expected);
        }
        let refused = store.write(cause("past"), |tx| Ok(tx.put(&Port::new("x", "p", "x"))?)).await;
        assert!(refused.is_err(), "the past was written");
        Ok::<_, Fault>(())
    };
    scope::run(scope, read).await.unwrap_or_else(|fault| panic!("{at}: {}", fault.chain()));
}

pub async fn a_random_history_equals_its_replay(place: Place) {
    let mut random = Dice(2026);
    let (store, commits) = live(&place, 20_000, &mut random).await;
    let last = commits.last().map(|commit| commit.rev).unwrap();
    for n in 0..24 {
        let commit = &commits[if n == 0 { 0 } else { random.below(commits.len()) }];
        // A commit without effect has the revision before it, and none at all before the first.
        let Some(rev) = Some(commit.rev).filter(|rev| rev.0 > 0) else { continue };
        let model = replayed(&commits, rev);
        let page = 1 + random.below(19);
        asked(&store, AsOf::Rev(rev), model.clone(), page).await;
        asked(&store, AsOf::Time(commit.at), model, page).await;
    }
    let middle = Rev(last.0 / 2);
    store.trim_history(middle).await.unwrap();
    for rev in [middle, Rev(middle.0 + 1), Rev(last.0 * 3 / 4), last] {
        asked(&store, AsOf::Rev(rev), replayed(&commits, rev), 7).await;
    }
}

pub async fn what_history_does_not_reach_is_refused_with_its_range(place: Place) {
    let (env, clock) = Env::seeded(4);
    let store = Store::open(place.options.clone(), env.clone()).await.unwrap();
    let began = env.now();
    assert!(store.moment(AsOf::Rev(Rev(0))).await.is_err(), "nothing has happened yet");
    assert!(store.moment(AsOf::Time(began)).await.is_err());
    for n in 0..4 {
        clock.advance_ms(1_000);
        create(&store, vec![Port::new(&n.to_string(), "p", &n.to_string())]).await;
    }
    clock.advance_ms(500);
    let reached = async |at| store.moment(at).await.map(|moment| (moment.rev.0, moment.at.ms_since(began)));
    assert_eq!(reached(AsOf::Rev(Rev(2))).await.unwrap(), (2, 2_000));
    assert_eq!(reached(AsOf::Time(began.plus_ms(2_700))).await.unwrap(), (2, 2_700));
    assert_eq!(reached(AsOf::Time(env.now())).await.unwrap(), (4, 4_500));
    for (at, message) in [
        (
            AsOf::Rev(Rev(0)),
            "as_of=rev:0 is not in the history, which holds rev:1 to rev:4 and 2026-01-01T00:00:01.000000Z to 2026-01-01T00:00:04.500000Z.",
        ),
        (
            AsOf::Rev(Rev(5)),
            "as_of=rev:5 is not in the history, which holds rev:1 to rev:4 and 2026-01-01T00:00:01.000000Z to 2026-01-01T00:00:04.500000Z.",
        ),
        (
            AsOf::Time(began.plus_ms(999)),
            "as_of=2026-01-01T00:00:00.999000Z is not in the history, which holds rev:1 to rev:4 and 2026-01-01T00:00:01.000000Z to 2026-01-01T00:00:04.500000Z.",
        ),
        (
            AsOf::Time(began.plus_ms(4_501)),
            "as_of=2026-01-01T00:00:04.501000Z is not in the history, which holds rev:1 to rev:4 and 2026-01-01T00:00:01.000000Z to 2026-01-01T00:00:04.500000Z.",
        ),
    ] {
        let fault = store.moment(at).await.unwrap_err();
        assert_eq!((fault.kind, fault.message.as_str()), (base::FaultKind::Invalid, message));
    }
    store.trim_history(Rev(3)).await.unwrap();
    assert!(reached(AsOf::Rev(Rev(2))).await.is_err());
    assert!(reached(AsOf::Time(began.plus_ms(2_999))).await.is_err());
    assert_eq!(reached(AsOf::Time(began.plus_ms(3_000))).await.unwrap(), (3, 3_000));
}

pub async fn a_ledger_without_a_history_gets_one(place: Place) {
    let store = place.open().await;
    let charge = async |used| write(&store, "charge", move |tx| Ok(tx.charge("p", "cores", used, None)?)).await;
    charge(2).await;
    charge(3).await;
    drop(store);
    // As a program without a history of the ledger would have left it.
    let (memory, url) = (Options::memory().url, place.options.url.clone());
    if url == memory || !url.starts_with("sqlite:") {
        return;
    }
    let raw = rusqlite::Connection::open(url.trim_start_matches("sqlite:")).unwrap();
    raw.execute_batch("UPDATE ledger SET used = 9").unwrap();
    drop(raw);
    let store = place.open().await;
    let rev = store.rev();
    let used = async |rev| {
        let scope = Scope { as_of: Some(AsOf::Rev(rev)), ..Scope::default() };
        scope::run(scope, store.read(|reader| Ok(reader.usage("p", "cores")?.used))).await
    };
    assert_eq!((rev, used(rev).await.unwrap()), (Rev(3), 9));
    assert_eq!(used(Rev(2)).await.unwrap_err().kind, base::FaultKind::Gone, "nobody knows");
    drop(store);
    assert_eq!(place.open().await.rev(), rev, "once");
}
