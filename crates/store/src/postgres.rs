//! PostgreSQL: connections that block, each driven by a runtime of its own on whatever thread uses it.
//!
//! The connection's task makes progress only while a call waits, on the same thread: a statement costs no switch of
//! threads. Statements without an answer (BEGIN, SAVEPOINT, RELEASE) wait in `pending` and travel in front of the next
//! one. What a job writes is sent at once and its answer is taken along with that of a later call, of the commit at the
//! latest: while the server works on it the next job runs. Whatever must not be committed makes the server itself fail,
//! so that the COMMIT travels behind it without waiting. Writers exclude each other, in whatever process, by an advisory
//! lock under READ COMMITTED. Single questions of async tasks go another way: `asking.rs`.

use crate::asking::Asking;
use crate::conn::{Conn, Connect};
use crate::sql::{self, Cell, Cells, Column, Each, Row, Rows, Sql, Value, Write};
use crate::{Error, Rev};
use futures::future::{BoxFuture, join_all, ready};
use futures::{FutureExt, TryStreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Statement};

/// The server ends a statement after 30 s and a transaction that does nothing after 60 s. Each statement has an index in
/// its own order (see `sql.rs`) and is planned once, whatever the server believes of the sizes of tables: without this
/// it planned every update anew, which took longer than to carry it out, and sorted lists until the first ANALYZE.
const OPTIONS: &str = "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000 \
    -c client_min_messages=warning -c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
    -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_sort=off -c jit=off";
/// A server that has not answered by then is taken for dead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock(7);";
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;";

/// Where the server is.
pub(crate) struct Postgres {
    config: Config,
}

impl Postgres {
    pub fn new(url: &str) -> Result<Postgres, Error> {
        // The URL may hold a password: it is not repeated.
        let mut config: Config =
            url.parse().map_err(|error| Error::Invalid(format!("The store's PostgreSQL URL is wrong: {error}")))?;
        let options = [config.get_options().unwrap_or(""), OPTIONS].join(" ");
        config.options(options.trim()).application_name("nubo").connect_timeout(Duration::from_secs(10));
        Ok(Postgres { config })
    }

    fn connect(&self) -> Result<Box<dyn Conn>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Unavailable(format!("no runtime for PostgreSQL: {error}")))?;
        let (client, connection) = runtime.block_on(self.config.connect(NoTls)).map_err(failed)?;
        runtime.spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "a PostgreSQL connection ended");
            }
        });
        let runtime = Some(runtime);
        Ok(Box::new(PostgresConn {
            runtime,
            client: Arc::new(client),
            statements: HashMap::new(),
            pending: String::new(),
            owed: Vec::new(),
            torn: None,
            begun: false,
            behind: false,
            dead: false,
        }))
    }
}

impl Connect for Postgres {
    fn writer(&self) -> Result<Box<dyn Conn>, Error> {
        self.connect()
    }

    fn reader(&self) -> Result<Box<dyn Conn>, Error> {
        self.connect()
    }

    fn asking(&self, most: usize) -> Option<Arc<Asking>> {
        Some(Arc::new(Asking::new(self.config.clone(), most)))
    }

    fn schema(&self) -> String {
        crate::schema::postgres()
    }

    fn engine(&self) -> &'static str {
        "postgresql"
    }
}

struct PostgresConn {
    /// Always there until drop.
    runtime: Option<Runtime>,
    client: Arc<Client>,
    statements: HashMap<&'static str, Statement>,
    /// What has to be said before the next statement.
    pending: String,
    /// What was sent and not heard of yet.
    owed: Vec<Owed>,
    /// Why the transaction must not be committed.
    torn: Option<Error>,
    begun: bool,
    /// The transaction builds upon another revision than was believed.
    behind: bool,
    dead: bool,
}

/// A statement that was sent.
struct Owed {
    answer: BoxFuture<'static, Result<u64, tokio_postgres::Error>>,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// BEGIN and its like.
    Words,
    /// Whether the revision is the known one.
    Known,
    /// A write of so many rows, and what it means when it touched another number.
    Rows(usize, &'static str),
}

impl Owed {
    /// Sends it. Requests go out in the order in which they are first polled.
    async fn send(&mut self) {
        if let Poll::Ready(answer) = futures::poll!(&mut self.answer) {
            self.answer = ready(answer).boxed();
        }
    }

    async fn heard(self) -> Result<(), Error> {
        match (self.answer.await, self.what) {
            (Ok(_), _) => Ok(()),
            (Err(error), What::Rows(rows, missed)) if divides_by_zero(&error) => {
                Err(Error::Corrupt(format!("{missed}: not all {rows} rows are there")))
            }
            (Err(error), What::Known) if divides_by_zero(&error) => Err(Error::Unavailable(BEHIND.into())),
            (Err(error), _) => Err(failed(error)),
        }
    }
}

const BEHIND: &str = "another process has written";

/// How a statement fails that was told to: see `sql.rs`.
fn divides_by_zero(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::DIVISION_BY_ZERO)
}

impl Drop for PostgresConn {
    fn drop(&mut self) {
        // A runtime dropped on an async thread would panic; this one has nothing to wait for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl PostgresConn {
    /// Waits for an answer, with whatever is pending said first in the same round trip, and for what is owed.
    fn wait<T>(&mut self, call: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>) -> Result<T, Error> {
        self.words();
        let mut owed = std::mem::take(&mut self.owed);
        let Some(runtime) = &self.runtime else { return Err(Error::Unavailable("the connection is closed".into())) };
        let client = &self.client;
        let all = async {
            for owed in &mut owed {
                owed.send().await;
            }
            let answer = call(client).await;
            let (mut first, mut behind) = (Ok(()), false);
            for owed in owed {
                let heard = owed.heard().await;
                behind |= matches!(&heard, Err(Error::Unavailable(why)) if why == BEHIND);
                first = first.and(heard);
            }
            (first.map_err(|error| (error, behind)), answer)
        };
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await });
        let answer = match answer {
            // After a statement that failed every other one fails: the first error tells.
            Ok((Err((error, behind)), _)) => {
                self.behind |= behind;
                self.torn.get_or_insert(error.clone());
                Err(error)
            }
            Ok((Ok(()), answer)) => answer.map_err(failed),
            Err(_) => {
                self.dead = true;
                Err(Error::Unavailable("PostgreSQL does not answer".into()))
            }
        };
        if self.client.is_closed() {
            self.dead = true;
        }
        answer
    }

    /// Puts what is pending among what is owed.
    fn words(&mut self) {
        if !self.pending.is_empty() {
            let (client, words) = (self.client.clone(), std::mem::take(&mut self.pending));
            let answer = async move { client.batch_execute(&words).await.map(|()| 0) }.boxed();
            self.owed.push(Owed { answer, what: What::Words });
        }
    }

    /// Sends what is owed without waiting for an answer.
    fn send(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        let owed = &mut self.owed;
        runtime.block_on(async {
            for owed in owed {
                owed.send().await;
            }
            // The connection's own task writes it out.
            tokio::task::yield_now().await;
        });
    }

    /// Sends a statement along with what is owed.
    fn owe(&mut self, statement: Statement, parameters: Vec<Array>, what: What) {
        let client = self.client.clone();
        let answer = async move {
            let parameters: Vec<_> = parameters.iter().map(Array::parameter).collect();
            client.execute(&statement, &parameters).await
        };
        self.words();
        self.owed.push(Owed { answer: answer.boxed(), what });
    }

    /// Hears of everything that was sent.
    fn settle(&mut self) -> Result<(), Error> {
        self.said()?;
        self.whole()
    }

    /// Refuses to go on with a transaction of which something was refused.
    fn whole(&self) -> Result<(), Error> {
        self.torn.clone().map_or(Ok(()), Err)
    }

    fn statement(&mut self, text: &'static str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(text) {
            return Ok(statement.clone());
        }
        let statement = self.wait(async |client| client.prepare(text).await)?;
        self.statements.insert(text, statement.clone());
        Ok(statement)
    }

    fn say(&mut self, text: &str) {
        self.pending.push_str(text);
    }

    /// Sends what is pending now.
    fn said(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() && self.owed.is_empty() { Ok(()) } else { self.wait(async |_| Ok(())) }
    }
}

impl Conn for PostgresConn {
    fn is_local(&self) -> bool {
        false
    }

    fn query(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        let statement = self.statement(sql.postgres())?;
        let values = parameters(values);
        let rows = self.wait(async |client| client.query(&statement, &values).await)?;
        rows.iter().map(row).collect()
    }

    fn query_each(&mut self, sql: &'static Sql, values: &[Value<'_>], each: &mut Each<'_>) -> Result<(), Error> {
        let statement = self.statement(sql.postgres())?;
        let values = parameters(values);
        // What fails here is not the connection's fault; the rows that are left are thrown away by the connection.
        self.wait(async |client| {
            let mut rows = std::pin::pin!(client.query_raw(&statement, values).await?);
            while let Some(found) = rows.try_next().await? {
                if let Err(error) = each(&found) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        })?
    }

    fn query_all(&mut self, calls: &[(&'static Sql, Vec<Value<'_>>)]) -> Result<Vec<Vec<Row>>, Error> {
        let mut ready = Vec::with_capacity(calls.len());
        for (sql, values) in calls {
            ready.push((self.statement(sql.postgres())?, parameters(values)));
        }
        let answers = self.wait(async |client| {
            let all = join_all(ready.iter().map(|(statement, values)| client.query(statement, values))).await;
            all.into_iter().collect::<Result<Vec<_>, _>>()
        })?;
        answers.iter().map(|rows| rows.iter().map(row).collect()).collect()
    }

    fn execute(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<u64, Error> {
        let statement = self.statement(sql.postgres())?;
        let values = parameters(values);
        self.wait(async |client| client.execute(&statement, &values).await)
    }

    fn flush(&mut self, writes: &[Rows<'_>]) -> Result<(), Error> {
        for Rows { write, rows } in writes.iter().filter(|write| !write.rows.is_empty()) {
            let statement = self.statement(write.postgres)?;
            self.owe(statement, arrays(write, rows), What::Rows(rows.len(), write.missed));
        }
        self.send();
        Ok(())
    }

    fn begin_write(&mut self, known: Option<Rev>) -> Result<bool, Error> {
        let statement = known.map(|_| self.statement(sql::REV_IS.postgres())).transpose()?;
        self.begun = true;
        self.behind = false;
        self.torn = None;
        self.say(BEGIN_WRITE);
        if let (Some(statement), Some(known)) = (statement, known) {
            self.owe(statement, vec![Array::One(known.0 as i64)], What::Known);
        }
        Ok(known.is_some())
    }

    fn is_behind(&self) -> bool {
        self.behind
    }

    fn savepoint(&mut self) -> Result<(), Error> {
        self.settle()?;
        self.say("SAVEPOINT job;");
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        self.settle()?;
        self.say("RELEASE SAVEPOINT job;");
        Ok(())
    }

    fn undo(&mut self) -> Result<(), Error> {
        // What was sent since the savepoint is undone, however it went; before it everything was heard of.
        self.said().or_else(|error| if self.dead { Err(error) } else { Ok(()) })?;
        self.torn = None;
        self.say("ROLLBACK TO SAVEPOINT job; RELEASE SAVEPOINT job;");
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.whole()?;
        self.say("COMMIT;");
        let committed = self.said();
        self.begun = false;
        committed
    }

    fn commit_with(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<(), Error> {
        self.whole()?;
        let statement = self.statement(sql.postgres())?;
        let values = parameters(values);
        // After a statement that failed, COMMIT undoes: the first error tells.
        let committed = self.wait(async |client| {
            let (ran, committed) = futures::join!(client.execute(&statement, &values), client.batch_execute("COMMIT"));
            ran.and(committed)
        });
        self.begun = false;
        committed
    }

    fn rollback(&mut self) {
        self.pending.clear();
        self.owed.clear();
        if !std::mem::take(&mut self.begun) || self.dead {
            return;
        }
        self.say("ROLLBACK;");
        if let Err(error) = self.said() {
            tracing::warn!(%error, "rolling back failed");
            self.dead = true;
        }
        self.torn = None;
    }

    fn begin_read(&mut self) -> Result<(), Error> {
        self.begun = true;
        self.say(BEGIN_READ);
        Ok(())
    }

    fn end_read(&mut self) {
        if self.pending.is_empty() {
            self.rollback();
        } else {
            // Nothing was asked: the transaction was never begun.
            self.pending.clear();
            self.begun = false;
        }
    }

    fn in_transaction(&self) -> bool {
        self.begun && !self.dead
    }

    fn is_alive(&self) -> bool {
        !self.dead && !self.client.is_closed()
    }

    fn batch(&mut self, text: &str) -> Result<(), Error> {
        self.wait(async |client| client.batch_execute(text).await)
    }
}

pub(crate) type Parameter<'a> = &'a (dyn ToSql + Sync);

pub(crate) fn parameters<'a>(values: &'a [Value<'a>]) -> Vec<Parameter<'a>> {
    let parameter = |value: &'a Value<'a>| -> Parameter<'a> {
        match value {
            Value::Null => &None::<&str>,
            Value::Int(number) => number,
            Value::Text(text) => text,
        }
    };
    values.iter().map(parameter).collect()
}

/// A column of a multi-row statement, or a number of the whole statement.
enum Array {
    One(i64),
    Text(Vec<Option<String>>),
    Int(Vec<Option<i64>>),
}

impl Array {
    fn parameter(&self) -> Parameter<'_> {
        match self {
            Array::One(number) => number,
            Array::Text(texts) => texts,
            Array::Int(numbers) => numbers,
        }
    }
}

fn arrays(write: &Write, rows: &[Vec<Value<'_>>]) -> Vec<Array> {
    let column = |(n, column): (usize, &Column)| match column {
        Column::Text => Array::Text(
            rows.iter()
                .map(|row| if let Some(Value::Text(text)) = row.get(n) { Some((*text).to_owned()) } else { None })
                .collect(),
        ),
        Column::Int => Array::Int(
            rows.iter()
                .map(|row| if let Some(Value::Int(number)) = row.get(n) { Some(*number) } else { None })
                .collect(),
        ),
    };
    let count = write.counted.then_some(Array::One(rows.len() as i64));
    write.columns.iter().enumerate().map(column).chain(count).collect()
}

impl Cells for tokio_postgres::Row {
    fn number(&self, n: usize) -> Result<i64, Error> {
        self.try_get(n).map_err(|error| Error::Corrupt(format!("column {n} holds no number: {error}")))
    }

    fn borrowed(&self, n: usize) -> Result<&str, Error> {
        self.try_get(n).map_err(|error| Error::Corrupt(format!("column {n} holds no text: {error}")))
    }
}

fn row(row: &tokio_postgres::Row) -> Result<Row, Error> {
    let mut cells = Vec::with_capacity(row.len());
    for (n, column) in row.columns().iter().enumerate() {
        cells.push(match *column.type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(n).map_err(failed)?.map_or(Cell::Null, Cell::Int),
            Type::TEXT => row.try_get::<_, Option<String>>(n).map_err(failed)?.map_or(Cell::Null, Cell::Text),
            ref other => return Err(Error::Corrupt(format!("a column has the type {other}"))),
        });
    }
    Ok(Row(cells))
}

/// What an engine's error means for us: data, constraint and syntax errors are ours, everything else may pass.
pub(crate) fn failed(error: tokio_postgres::Error) -> Error {
    let text = match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    };
    match error.code().map(|code| &code.code()[..2]) {
        Some("22" | "23" | "42" | "54") => Error::Corrupt(text),
        _ => Error::Unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{self, given, values};

    fn write(conn: &mut dyn Conn, write: &'static Write, rev: i64) -> Result<(), Error> {
        let mut row = values!["thing", "a", "", rev, 0, 0, "{}"];
        if std::ptr::eq(write, &sql::DOCUMENT_UPDATE) {
            row.push(Value::Int(rev - 1));
        }
        conn.flush(&[Rows { write, rows: vec![row] }])
    }

    fn there(conn: &mut dyn Conn) -> i64 {
        conn.begin_read().unwrap();
        let found = conn.query(&sql::COUNT_ALL, &given!["thing"]).unwrap();
        conn.end_read();
        found[0].int(0).unwrap()
    }

    /// What a flush did is heard of later. It must be heard of before the commit, and nothing of it may stay.
    #[test]
    fn a_write_that_missed_is_never_committed() {
        let Some(server) = testkit::Postgres::start() else { return };
        let connect = Postgres::new(&server.url()).unwrap();
        let mut conn = connect.writer().unwrap();
        conn.batch(&connect.schema()).unwrap();
        let missed = |outcome: Result<(), Error>| {
            let error = outcome.expect_err("a row was missed").to_string();
            assert!(error.contains("a document changed meanwhile: not all 1 rows are there"), "{error}");
        };
        for raise in [false, true] {
            conn.begin_write(None).unwrap();
            write(&mut *conn, &sql::DOCUMENT_UPDATE, 7).unwrap();
            missed(if raise { conn.commit_with(&sql::REV_RAISE, &given![1, 0]) } else { conn.commit() });
            conn.rollback();
        }
        // Another job of the batch hears of it; the batch is doomed although that job goes on.
        conn.begin_write(None).unwrap();
        write(&mut *conn, &sql::DOCUMENT_INSERT, 1).unwrap();
        write(&mut *conn, &sql::DOCUMENT_UPDATE, 7).unwrap();
        missed(conn.query(&sql::COUNT_ALL, &given!["thing"]).map(drop));
        missed(conn.commit());
        conn.rollback();
        assert_eq!(there(&mut *conn), 0);
        // A savepoint ends it: what was written before stays good.
        conn.begin_write(None).unwrap();
        write(&mut *conn, &sql::DOCUMENT_INSERT, 1).unwrap();
        conn.savepoint().unwrap();
        write(&mut *conn, &sql::DOCUMENT_UPDATE, 7).unwrap();
        conn.undo().unwrap();
        conn.commit_with(&sql::REV_RAISE, &given![1, 0]).unwrap();
        assert_eq!(there(&mut *conn), 1);
        // And what the server itself refuses.
        conn.begin_write(None).unwrap();
        write(&mut *conn, &sql::DOCUMENT_INSERT, 2).unwrap();
        let error = conn.commit_with(&sql::REV_RAISE, &given![2, 1]).unwrap_err().to_string();
        assert!(error.contains("duplicate key"), "{error}");
        conn.rollback();
        assert!(conn.is_alive() && there(&mut *conn) == 1);
    }

    /// A transaction that believes to know the revision costs no question, and is not kept if it was wrong.
    #[test]
    fn who_is_behind_commits_nothing() {
        let Some(server) = testkit::Postgres::start() else { return };
        let connect = Postgres::new(&server.url()).unwrap();
        let mut conn = connect.writer().unwrap();
        conn.batch(&connect.schema()).unwrap();
        for (kept, rev) in [(true, 1), (false, 2)] {
            assert_eq!(conn.begin_write(Some(Rev(0))), Ok(true));
            write(&mut *conn, &sql::DOCUMENT_INSERT, rev).unwrap();
            let committed = conn.commit_with(&sql::REV_RAISE, &given![1, 0]);
            assert_eq!((committed.is_ok(), conn.is_behind()), (kept, !kept), "{committed:?}");
            conn.rollback();
            assert_eq!(there(&mut *conn), 1, "the first was kept");
        }
        // What fails by itself is not behind.
        assert_eq!(conn.begin_write(Some(Rev(1))), Ok(true));
        write(&mut *conn, &sql::DOCUMENT_INSERT, 2).unwrap();
        assert!(conn.commit().is_err() && !conn.is_behind());
    }

    /// Whatever the server believes of the sizes of tables: it was never told.
    #[test]
    fn every_statement_searches_an_index() {
        let Some(server) = testkit::Postgres::start() else { return };
        let connect = Postgres::new(&server.url()).unwrap();
        connect.writer().unwrap().batch(&connect.schema()).unwrap();
        let settings: String = OPTIONS.split("-c ").skip(1).map(|setting| format!("SET {setting};")).collect();
        let searching = sql::tests::searching().map(|write| (write.postgres, false));
        let everyday = sql::tests::everyday().into_iter().map(|sql| (sql.postgres(), sql::tests::sorts(sql)));
        for (text, sorts) in everyday.chain(searching) {
            let values = (1..20).filter(|n| text.contains(&format!("${n}"))).map(|_| "NULL");
            let values = values.collect::<Vec<_>>().join(", ");
            let explain = format!("{settings} PREPARE p AS {text}; EXPLAIN EXECUTE p({values})");
            let plan = server.sql("postgres", &explain);
            assert!(plan.contains("Index Scan") || plan.contains("Index Only Scan"), "{text}: {plan}");
            assert!(!["Seq Scan", "Bitmap", "Hash Join"].iter().any(|word| plan.contains(word)), "{text}: {plan}");
            assert!(sorts || !plan.contains("Sort"), "{text}: {plan}");
        }
    }
}
