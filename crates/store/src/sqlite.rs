//! SQLite: one writer and several read-only connections on one file, or one connection for everything.

use crate::Error;
use crate::conn::{Conn, Connect};
use crate::sql::{Cell, Row, Rows, Sql, Value};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};

/// Where the database lies; `None` is memory, with one connection.
pub(crate) struct Sqlite {
    pub path: Option<PathBuf>,
    /// False: commits are left to the operating system.
    pub durable: bool,
}

/// `synchronous=FULL` keeps what was acknowledged through a power cut. `wal_autocheckpoint` stays at 1,000: larger ones
/// were seen to stall a commit for 135 ms.
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
        Ok(Box::new(SqliteConn { conn }))
    }

    fn reader(&self) -> Result<Box<dyn Conn>, Error> {
        let path = self.path.as_ref().ok_or_else(|| Error::Unsupported("Memory has one connection".into()))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        conn.execute_batch(READER).map_err(failed)?;
        tune(&conn)?;
        Ok(Box::new(SqliteConn { conn }))
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

struct SqliteConn {
    conn: Connection,
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

    fn begin_write(&mut self) -> Result<(), Error> {
        self.run("BEGIN IMMEDIATE")
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
        self.run("COMMIT")
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
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cell::Text(text.to_owned())),
            Err(_) => Err(Error::Corrupt("a text is not UTF-8".into())),
        },
        other => Err(Error::Corrupt(format!("a column holds {:?}", other.data_type()))),
    }
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
