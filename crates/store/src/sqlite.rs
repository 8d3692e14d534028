//! SQLite: one writer and several read-only connections on one file, or one connection for everything.

use crate::asking::Asking;
use crate::conn::{Conn, Connect};
use crate::sql::{Cell, Cells, Each, Row, Rows, Sql, Value};
use crate::{Error, Rev};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Where the database lies; `None` is memory, with one connection.
pub(crate) struct Sqlite {
    pub path: Option<PathBuf>,
    /// False: commits are left to the operating system.
    pub durable: bool,
    /// A thread of its own brings the log into the file.
    pub aside: bool,
}

/// `synchronous=FULL` keeps what was acknowledged through a power cut. A commit brings the log into the file when there
/// are 1,000 pages in it: larger logs were seen to stall one for 135 ms.
const WRITER: &str = "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 1000; PRAGMA busy_timeout = 5000; PRAGMA mmap_size = 268435456;
    PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY;";
const READER: &str = "PRAGMA busy_timeout = 5000; PRAGMA mmap_size = 268435456; PRAGMA temp_store = MEMORY;";

impl Sqlite {
    /// Makes the file readable by its owner alone before SQLite does otherwise: bodies hold secrets.
    fn create(path: &Path) -> Result<(), Error> {
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Unavailable(format!("{}: {error}", path.display()))),
        }
    }
}

impl Connect for Sqlite {
    fn writer(&self) -> Result<Box<dyn Conn>, Error> {
        let conn = match &self.path {
            None => Connection::open_in_memory(),
            Some(path) => {
                Sqlite::create(path)?;
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            }
        }
        .map_err(failed)?;
        conn.execute_batch(WRITER).map_err(failed)?;
        if !self.durable {
            conn.execute_batch("PRAGMA synchronous = OFF;").map_err(failed)?;
        }
        tune(&conn)?;
        let checkpoints = match &self.path {
            Some(path) if self.aside => {
                conn.execute_batch(FALLBACK).map_err(failed)?;
                Some(Checkpoints::start(path, self.durable)?)
            }
            _ => None,
        };
        Ok(Box::new(SqliteConn { conn, checkpoints, rows: 0 }))
    }

    fn reader(&self) -> Result<Box<dyn Conn>, Error> {
        let path = self.path.as_ref().ok_or_else(|| Error::Unsupported("Memory has one connection".into()))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        conn.execute_batch(READER).map_err(failed)?;
        tune(&conn)?;
        Ok(Box::new(SqliteConn { conn, checkpoints: None, rows: 0 }))
    }

    fn asking(&self, _most: usize) -> Option<Arc<Asking>> {
        None
    }

    fn schema(&self) -> String {
        crate::schema::sqlite()
    }

    fn engine(&self) -> &'static str {
        "sqlite"
    }
}

/// Statements are planned once: without "QPSG", one that could use a partial index is planned anew each time its values
/// are bound.
fn tune(conn: &Connection) -> Result<(), Error> {
    conn.set_prepared_statement_cache_capacity(128);
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop).map_err(failed)
}

/// The thread that brings the log into the file while commits go on. It never gets to the end of a log that grows all
/// the time, so the log would grow without bound: a commit that finds four times as much does the rest.
struct Checkpoints {
    /// There until drop.
    due: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

const FALLBACK: &str = "PRAGMA wal_autocheckpoint = 16000;";
/// So many rows touch at most some 4,000 pages, most of them again and again: bringing them into the file after every
/// 500 rows wrote a quarter more in all.
const ROWS: usize = 4000;

impl Checkpoints {
    fn start(path: &Path, durable: bool) -> Result<Checkpoints, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        conn.execute_batch(if durable { "PRAGMA synchronous = FULL;" } else { "PRAGMA synchronous = OFF;" })
            .map_err(failed)?;
        let (due, asked) = sync_channel(1);
        let work = move || {
            while asked.recv().is_ok() {
                // Another one at work is as good; what is broken the next commit says.
                let done = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                if let Err(error) = done {
                    tracing::debug!(%error, "the log stays as it is");
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-checkpoint".into()).spawn(work);
        let thread = thread.map_err(|error| Error::Unavailable(format!("no thread for checkpoints: {error}")))?;
        Ok(Checkpoints { due: Some(due), thread: Some(thread) })
    }

    fn due(&self) {
        // One that waits already is enough.
        let _ = self.due.as_ref().map(|due| due.try_send(()));
    }
}

impl Drop for Checkpoints {
    /// Whoever closes the store may move its files next.
    fn drop(&mut self) {
        self.due = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct SqliteConn {
    /// Dropped first, so that the connection is the last one and takes the log with it.
    checkpoints: Option<Checkpoints>,
    conn: Connection,
    /// Written since the last checkpoint was asked for.
    rows: usize,
}

impl SqliteConn {
    fn run(&mut self, text: &str) -> Result<(), Error> {
        self.conn.prepare_cached(text).and_then(|mut statement| statement.execute([])).map_err(failed)?;
        Ok(())
    }
}

impl Conn for SqliteConn {
    fn is_local(&self) -> bool {
        true
    }

    fn query(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        let mut statement = self.conn.prepare_cached(sql.sqlite()).map_err(failed)?;
        let columns = statement.column_count();
        let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let mut cells = Vec::with_capacity(columns);
            for n in 0..columns {
                cells.push(cell(row.get_ref(n).map_err(failed)?)?);
            }
            found.push(Row(cells));
        }
        Ok(found)
    }

    fn query_each(&mut self, sql: &'static Sql, values: &[Value<'_>], each: &mut Each<'_>) -> Result<(), Error> {
        let mut statement = self.conn.prepare_cached(sql.sqlite()).map_err(failed)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            each(row)?;
        }
        Ok(())
    }

    fn query_all(&mut self, calls: &[(&'static Sql, Vec<Value<'_>>)]) -> Result<Vec<Vec<Row>>, Error> {
        calls.iter().map(|(sql, values)| self.query(sql, values)).collect()
    }

    fn execute(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<u64, Error> {
        let mut statement = self.conn.prepare_cached(sql.sqlite()).map_err(failed)?;
        let touched = statement.execute(rusqlite::params_from_iter(values)).map_err(failed)?;
        Ok(touched as u64)
    }

    fn flush(&mut self, writes: &[Rows<'_>]) -> Result<(), Error> {
        for Rows { write, rows } in writes {
            self.rows += rows.len();
            let mut statement = self.conn.prepare_cached(write.sqlite.sqlite()).map_err(failed)?;
            for row in rows {
                let touched = statement.execute(rusqlite::params_from_iter(row)).map_err(failed)?;
                if touched != 1 {
                    return Err(Error::Corrupt(format!("{}: {row:.60?}", write.missed)));
                }
            }
        }
        Ok(())
    }

    fn begin_write(&mut self, _known: Option<Rev>) -> Result<bool, Error> {
        self.run("BEGIN IMMEDIATE")?;
        Ok(false)
    }

    fn savepoint(&mut self) -> Result<(), Error> {
        self.run("SAVEPOINT job")
    }

    fn release(&mut self) -> Result<(), Error> {
        self.run("RELEASE job")
    }

    fn undo(&mut self) -> Result<(), Error> {
        self.run("ROLLBACK TO job")?;
        self.run("RELEASE job")
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.run("COMMIT")?;
        if self.rows >= ROWS
            && let Some(checkpoints) = &self.checkpoints
        {
            self.rows = 0;
            checkpoints.due();
        }
        Ok(())
    }

    fn commit_with(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<(), Error> {
        self.execute(sql, values)?;
        self.commit()
    }

    fn rollback(&mut self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.run("ROLLBACK")
        {
            tracing::warn!(%error, "rolling back failed");
        }
    }

    fn begin_read(&mut self) -> Result<(), Error> {
        self.run("BEGIN DEFERRED")
    }

    fn end_read(&mut self) {
        self.rollback();
    }

    fn in_transaction(&self) -> bool {
        !self.conn.is_autocommit()
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn batch(&mut self, text: &str) -> Result<(), Error> {
        self.conn.execute_batch(text).map_err(failed)
    }
}

impl Cells for rusqlite::Row<'_> {
    fn number(&self, n: usize) -> Result<i64, Error> {
        match self.get_ref(n).map_err(failed)? {
            ValueRef::Integer(number) => Ok(number),
            other => Err(Error::Corrupt(format!("column {n} holds {:?} instead of a number", other.data_type()))),
        }
    }

    fn borrowed(&self, n: usize) -> Result<&str, Error> {
        match self.get_ref(n).map_err(failed)? {
            ValueRef::Text(bytes) => utf8(bytes),
            other => Err(Error::Corrupt(format!("column {n} holds {:?} instead of a text", other.data_type()))),
        }
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn cell(value: ValueRef<'_>) -> Result<Cell, Error> {
    match value {
        ValueRef::Null => Ok(Cell::Null),
        ValueRef::Integer(number) => Ok(Cell::Int(number)),
        ValueRef::Text(bytes) => Ok(Cell::Text(utf8(bytes)?.to_owned())),
        other => Err(Error::Corrupt(format!("a column holds {:?}", other.data_type()))),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Corrupt("a text is not UTF-8".into()))
}

/// What an engine's error means for us. Constraints are checked before they are reached, so one that fails is a drift.
fn failed(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Corrupt(error.to_string())
        }
        _ => Error::Unavailable(error.to_string()),
    }
}
