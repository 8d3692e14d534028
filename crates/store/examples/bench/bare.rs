//! The reference: the same rows, written and read by bare prepared statements on one connection, in the tables that a
//! store has made.

use rusqlite::Connection;
use std::sync::atomic::{AtomicI64, Ordering};

/// The text of a document's body and the rows around it, as [`super::create`] writes them.
pub const ROWS: Rows = Rows { documents: 5, ledger: 3, indexes: 14, uniques: 2 };

pub struct Rows {
    pub documents: i64,
    pub ledger: i64,
    pub indexes: i64,
    pub uniques: i64,
}

const DOCUMENT: &str =
    "INSERT INTO document(kind, id, project_id, rev, created, updated, body) VALUES('bare', $1, 'p', $2, $3, $3, $4)";
const INDEX: &str = "INSERT INTO index_entry(kind, name, value, sort, id) VALUES('bare', $1, 'host-17', $2, $3)";
const UNIQUE: &str = "INSERT INTO unique_entry(kind, name, value, id) VALUES('bare', 'address', $1, $1)";
const HISTORY: &str = "INSERT INTO history(seq, kind, id, project_id, created, actor, request_id, what, at, body)
    VALUES($1, $2, $3, 'p', $4, 'user', 'req-0f3d8a1c-0000-4000-8000-000000000000', 'server.create', $4, $5)";
const LEDGER: &str = "UPDATE ledger SET used = used + 1 WHERE scope = 'bare' AND resource = $1";
const REQUEST: &str =
    "INSERT INTO request(rev, request_id, charged) VALUES($1, 'req-0f3d8a1c-0000-4000-8000-000000000000', $2)";
const REV: &str = "UPDATE meta SET value = value + 1 WHERE name = 'rev'";
const GET: &str = "SELECT body FROM document WHERE kind = 'bare' AND id = $1";
const START: &str =
    "INSERT INTO ledger(scope, resource, used, lim) VALUES('bare', '0', 0, NULL), ('bare', '1', 0, NULL),
    ('bare', '2', 0, NULL)";
const CHARGED: &str = r#"[{"scope":"bare","resource":"0","delta":1},{"scope":"bare","resource":"1","delta":1}]"#;

/// Far above what the store itself has given.
static REVISION: AtomicI64 = AtomicI64::new(1 << 30);

fn id(rev: i64, n: i64) -> String {
    format!("0f3d8a1c-{rev:012}-4000-8000-{n:06}")
}

pub trait Bare {
    /// One create: everything that a create of the store writes, and the commit.
    fn create(&mut self, body: &str) -> String;
    /// A transaction with one document.
    fn commit_one(&mut self, body: &str);
    fn get(&mut self, id: &str) -> String;
}

pub struct Sqlite(Connection);

impl Sqlite {
    pub fn open(path: &std::path::Path) -> Sqlite {
        let conn = Connection::open(path).expect("a connection");
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;
             PRAGMA mmap_size = 268435456; PRAGMA cache_size = -8000;",
        )
        .expect("pragmas");
        conn.set_prepared_statement_cache_capacity(64);
        conn.execute_batch(START).expect("the ledger's rows");
        Sqlite(conn)
    }

    fn run(&self, text: &str, values: impl rusqlite::Params) {
        // `$n` is a named parameter here; each text has them in the order of their numbers.
        self.0.prepare_cached(text).expect("a statement").execute(values).expect("a row");
    }
}

impl Bare for Sqlite {
    fn create(&mut self, body: &str) -> String {
        let rev = REVISION.fetch_add(1, Ordering::Relaxed);
        self.run("BEGIN IMMEDIATE", []);
        for n in 0..ROWS.ledger {
            self.run(LEDGER, [n.to_string()]);
        }
        for n in 0..ROWS.documents {
            self.run(DOCUMENT, (id(rev, n), rev, rev, body));
        }
        for n in 0..ROWS.uniques {
            self.run(UNIQUE, [id(rev, n)]);
        }
        for n in 0..ROWS.indexes {
            self.run(INDEX, (["host", "flavor", "image"][n as usize % 3], rev, id(rev, n / 3)));
        }
        for n in 0..ROWS.documents {
            self.run(HISTORY, (rev * 65_536 + n, "bare", id(rev, n), rev, body));
        }
        for n in 0..ROWS.ledger {
            let seq = rev * 65_536 + ROWS.documents + n;
            self.run(HISTORY, (seq, "#ledger", format!("bare/{n}"), 0, r#"{"used":1,"limit":null}"#));
        }
        self.run(REQUEST, (rev, CHARGED));
        self.run(REV, []);
        self.run("COMMIT", []);
        id(rev, 0)
    }

    fn commit_one(&mut self, body: &str) {
        let rev = REVISION.fetch_add(1, Ordering::Relaxed);
        self.run("BEGIN IMMEDIATE", []);
        self.run(DOCUMENT, (id(rev, 0), rev, rev, body));
        self.run(HISTORY, (rev * 65_536, "bare", id(rev, 0), rev, body));
        self.run(REQUEST, (rev, "[]"));
        self.run(REV, []);
        self.run("COMMIT", []);
    }

    fn get(&mut self, id: &str) -> String {
        let mut statement = self.0.prepare_cached(GET).expect("a statement");
        statement.query_row([id], |row| row.get(0)).expect("a row")
    }
}

/// Statements are sent without waiting for each other, as the store sends them.
pub struct Postgres {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
    statements: Vec<tokio_postgres::Statement>,
}

const ALL: [&str; 8] = [DOCUMENT, INDEX, UNIQUE, HISTORY, LEDGER, REQUEST, REV, GET];

impl Postgres {
    pub fn open(url: &str) -> Postgres {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (client, statements) = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
            tokio::spawn(connection);
            client.batch_execute(START).await.expect("the ledger's rows");
            let mut statements = Vec::new();
            for text in ALL {
                statements.push(client.prepare(text).await.expect("a statement"));
            }
            (client, statements)
        });
        Postgres { runtime, client, statements }
    }

    fn write(&self, rows: &[(usize, Vec<Value>)]) {
        self.runtime.block_on(async {
            let begin = self.client.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7)");
            let rows = rows.iter().map(|(statement, values)| async move {
                let values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = values.iter().map(Value::get).collect();
                self.client.execute(&self.statements[*statement], &values).await
            });
            let (begun, done, ended) =
                futures::join!(begin, futures::future::join_all(rows), self.client.batch_execute("COMMIT"));
            begun.and(ended).expect("a transaction");
            assert!(done.into_iter().all(|row| row.is_ok_and(|rows| rows == 1)), "a row is missing");
        });
    }
}

enum Value {
    Text(String),
    Int(i64),
}

impl Value {
    fn get(&self) -> &(dyn tokio_postgres::types::ToSql + Sync) {
        match self {
            Value::Text(text) => text,
            Value::Int(number) => number,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}

macro_rules! row {
    ($statement:literal $(, $value:expr)*) => { ($statement, vec![$(Value::from($value)),*]) };
}

impl Bare for Postgres {
    fn create(&mut self, body: &str) -> String {
        let rev = REVISION.fetch_add(1, Ordering::Relaxed);
        let mut rows = Vec::new();
        rows.extend((0..ROWS.ledger).map(|n| row!(4, n.to_string())));
        rows.extend((0..ROWS.documents).map(|n| row!(0, id(rev, n), rev, rev, body)));
        rows.extend((0..ROWS.uniques).map(|n| row!(2, id(rev, n))));
        rows.extend(
            (0..ROWS.indexes).map(|n| row!(1, ["host", "flavor", "image"][n as usize % 3], rev, id(rev, n / 3))),
        );
        rows.extend((0..ROWS.documents).map(|n| row!(3, rev * 65_536 + n, "bare", id(rev, n), rev, body)));
        rows.extend((0..ROWS.ledger).map(|n| {
            let seq = rev * 65_536 + ROWS.documents + n;
            row!(3, seq, "#ledger", format!("bare/{n}"), 0, r#"{"used":1,"limit":null}"#)
        }));
        rows.push(row!(5, rev, CHARGED));
        rows.push(row!(6));
        self.write(&rows);
        id(rev, 0)
    }

    fn commit_one(&mut self, body: &str) {
        let rev = REVISION.fetch_add(1, Ordering::Relaxed);
        self.write(&[
            row!(0, id(rev, 0), rev, rev, body),
            row!(3, rev * 65_536, "bare", id(rev, 0), rev, body),
            row!(5, rev, "[]"),
            row!(6),
        ]);
    }

    fn get(&mut self, id: &str) -> String {
        let row = self.runtime.block_on(self.client.query_one(&self.statements[7], &[&id])).expect("a row");
        row.get(0)
    }
}
