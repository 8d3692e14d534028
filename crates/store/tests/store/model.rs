//! Random transactions against a model: what a transaction sees of itself, what is committed, and the past.

use crate::Place;
use crate::things::*;
use base::Fault;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use store::{AsOf, Error, Event, Query, Reader, Rev, Store};

#[derive(Clone, Debug)]
enum Op {
    Create(Port),
    Update(Port),
    Put(Port),
    Delete(String),
}

#[derive(Clone, Debug)]
struct Transaction {
    ops: Vec<Op>,
    abort: bool,
}

/// The documents with the order of their creation.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    ports: BTreeMap<String, (u64, Port)>,
    next: u64,
}

impl Model {
    /// What the store must answer: nothing, or the name of the error.
    fn apply(&mut self, op: &Op) -> Option<&'static str> {
        let (port, there) = match op {
            Op::Delete(id) => return if self.ports.remove(id).is_some() { None } else { Some("NotFound") },
            Op::Create(port) | Op::Update(port) | Op::Put(port) => (port, self.ports.contains_key(&port.id)),
        };
        match op {
            Op::Create(_) if there => return Some("Exists"),
            Op::Update(_) if !there => return Some("NotFound"),
            _ => {}
        }
        let clash =
            |other: &Port| other.id != port.id && (&other.project_id, &other.name) == (&port.project_id, &port.name);
        if self.ports.values().any(|(_, other)| clash(other)) {
            return Some("Taken");
        }
        self.next += 1;
        let order = self.ports.get(&port.id).map_or(self.next, |(order, _)| *order);
        self.ports.insert(port.id.clone(), (order, port.clone()));
        None
    }

    fn list(&self, matches: impl Fn(&Port) -> bool) -> Vec<Port> {
        let mut list: Vec<_> = self.ports.values().filter(|(_, port)| matches(port)).collect();
        list.sort_by_key(|(order, _)| *order);
        list.into_iter().map(|(_, port)| port.clone()).collect()
    }
}

type Filter = Box<dyn Fn(&Port) -> bool>;

fn queries() -> Vec<(Query, Filter)> {
    let mut queries: Vec<(Query, Filter)> = vec![(Query::all(), Box::new(|_| true))];
    for project in ["p0", "p1"] {
        queries.push((Query::project(project), Box::new(move |port| port.project_id == project)));
    }
    for host in ["h0", "h1"] {
        queries.push((Query::index("host", host), Box::new(move |port| port.host == host)));
    }
    queries
}

fn docs(list: Vec<store::Stored<Port>>) -> Vec<Port> {
    list.into_iter().map(|stored| stored.doc).collect()
}

/// Everything that can be asked, against the model.
fn agrees(reader: &mut Reader, model: &Model) -> Result<(), Fault> {
    for (query, filter) in queries() {
        let mut expected = model.list(filter);
        assert_eq!(docs(reader.list(query.clone())?), expected, "{query:?}");
        assert_eq!(reader.count::<Port>(query.clone())?, expected.len(), "{query:?}");
        expected.reverse();
        let mut found = Vec::new();
        let mut page = query.clone().reverse().limit(2);
        loop {
            let next = docs(reader.list(page.clone())?);
            let Some(last) = next.last() else { break };
            page = page.after(&last.id);
            found.extend(next);
        }
        assert_eq!(found, expected, "{query:?} in pages");
    }
    for n in 0..6 {
        let id = n.to_string();
        let found = reader.get::<Port>(&id)?.map(|stored| stored.doc);
        assert_eq!(found.as_ref(), model.ports.get(&id).map(|(_, port)| port), "{id}");
        for project in ["p0", "p1"] {
            let found = reader.get_unique::<Port>("name", [project, &format!("n{n}")])?.map(|stored| stored.doc);
            let mut expected = model.list(|port| port.project_id == project && port.name == format!("n{n}"));
            assert_eq!(found, expected.pop(), "{project} n{n}");
        }
    }
    Ok(())
}

fn port() -> impl Strategy<Value = Port> {
    (0..6u8, 0..2u8, 0..4u8, 0..2u8).prop_map(|(id, project, name, host)| {
        Port::new(&id.to_string(), &format!("p{project}"), &format!("n{name}")).on(&format!("h{host}"))
    })
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let op = prop_oneof![
        3 => port().prop_map(Op::Create),
        3 => port().prop_map(Op::Update),
        1 => port().prop_map(Op::Put),
        2 => (0..6).prop_map(|id: i32| Op::Delete(id.to_string())),
    ];
    (prop::collection::vec(op, 1..6), prop::bool::weighted(0.15)).prop_map(|(ops, abort)| Transaction { ops, abort })
}

async fn run(store: &Store, plan: Transaction, model: Model) -> Option<(Rev, Model)> {
    let abort = plan.abort;
    let done = store
        .write(cause("model"), move |tx| {
            let mut model = model.clone();
            for op in &plan.ops {
                let result = match op {
                    Op::Create(port) => tx.create(port).map(drop),
                    Op::Update(port) => tx.update(port).map(drop),
                    Op::Put(port) => tx.put(port).map(drop),
                    Op::Delete(id) => tx.delete::<Port>(id).map(drop),
                };
                let name = result.err().map(|error| match error {
                    Error::Exists { .. } => "Exists",
                    Error::NotFound { .. } => "NotFound",
                    Error::Taken { .. } => "Taken",
                    other => panic!("{other}"),
                });
                assert_eq!(name, model.apply(op), "{op:?}");
                agrees(tx, &model)?;
            }
            if plan.abort { Err(Fault::conflict("told to")) } else { Ok(model) }
        })
        .await;
    match done {
        Ok(committed) => Some((committed.rev, committed.value)),
        Err(fault) => {
            assert!(abort && fault.message == "told to", "{}", fault.chain());
            None
        }
    }
}

async fn check(store: Store, plans: Vec<Transaction>) {
    let cleared = write(&store, "clear", |tx| {
        for port in tx.list::<Port>(Query::all())? {
            tx.delete::<Port>(&port.id)?;
        }
        Ok(())
    });
    let start = cleared.await.rev;
    let mut watch = store.watch();
    let (mut model, mut past) = (Model::default(), Vec::new());
    for plan in plans {
        if let Some((rev, next)) = run(&store, plan, model.clone()).await {
            model = next;
            past.push((rev, model.clone()));
        }
        let now = model.clone();
        store.read(move |reader| agrees(reader, &now)).await.unwrap_or_else(|fault| panic!("{}", fault.chain()));
    }
    for (rev, model) in past {
        for (query, filter) in queries() {
            let found = docs(store.list_as_of(query.clone(), AsOf::Rev(rev)).await.unwrap());
            let expected: Vec<_> = model.list(filter).into_iter().map(Port::redacted).collect();
            assert_eq!(found, expected, "{query:?} as of {rev}");
        }
        for id in (0..6).map(|id| id.to_string()) {
            let found = store.get_as_of::<Port>(&id, AsOf::Rev(rev)).await.unwrap().map(|stored| stored.doc);
            assert_eq!(found, model.ports.get(&id).map(|(_, port)| port.clone().redacted()), "{id} as of {rev}");
        }
    }
    follow(&store, &mut watch, start, &model).await;
}

/// Replaying the changes gives the end state, and the watch told the same.
async fn follow(store: &Store, watch: &mut store::Watch, start: Rev, model: &Model) {
    let changes = store.changes(start, 100_000).await.unwrap();
    let mut replayed = BTreeMap::new();
    for change in &changes {
        match change.document::<Port>().unwrap() {
            Some(port) => replayed.insert(change.id.clone(), port.doc),
            None => replayed.remove(&change.id),
        };
    }
    let expected = model.ports.iter().map(|(id, (_, port))| (id.clone(), port.clone().redacted())).collect();
    assert_eq!(replayed, expected);
    let mut seen = Vec::new();
    while let Some(event) = watch.try_next() {
        let Event::Revision(revision) = event else { panic!("nothing was lost") };
        seen.extend(revision.changes.iter().cloned());
    }
    assert_eq!(seen, changes);
}

pub async fn transactions_and_the_past_equal_a_model(place: Place) {
    let store = place.open().await;
    let runtime = tokio::runtime::Handle::current();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24);
    let tested = tokio::task::spawn_blocking(move || {
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&prop::collection::vec(transaction(), 1..12), |plans| {
            runtime.block_on(check(store.clone(), plans));
            Ok(())
        })
    });
    tested.await.unwrap().unwrap_or_else(|failure| panic!("{failure}"));
}
