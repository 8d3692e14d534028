//! One connection to an engine, blocking. What differs between SQLite and PostgreSQL ends here.

use crate::Error;
use crate::Rev;
use crate::asking::Asking;
use crate::sql::{Each, Row, Rows, Sql, Value};
use std::sync::Arc;

/// A connection. Every method blocks the calling thread; none may be called from an async task unless it says
/// [`Conn::is_local`].
pub(crate) trait Conn: Send {
    /// True when calls take microseconds because there is no server: they may then run on an async thread.
    fn is_local(&self) -> bool;

    fn query(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<Vec<Row>, Error>;

    /// Hands the rows over as they come, so that they are worked on while the server reads the next.
    fn query_each(&mut self, sql: &'static Sql, values: &[Value<'_>], each: &mut Each<'_>) -> Result<(), Error> {
        self.query(sql, values)?.iter().try_for_each(|row| each(row))
    }

    /// Several queries in one round trip.
    fn query_all(&mut self, calls: &[(&'static Sql, Vec<Value<'_>>)]) -> Result<Vec<Vec<Row>>, Error>;

    /// Returns how many rows the statement touched.
    fn execute(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<u64, Error>;

    /// Writes many rows with few statements, in the order given. Each statement must touch as many rows as it was
    /// given; otherwise something is not as the buffer believed, and the whole flush fails: here, or a later call, in a
    /// job that has a savepoint its end and otherwise the commit at the latest, which then keeps nothing.
    fn flush(&mut self, writes: &[Rows<'_>]) -> Result<(), Error>;

    /// Begins the one write transaction: no other holder, in whatever process, until it ends.
    ///
    /// True: the transaction is taken to build upon the revision `known`, which saves asking for it. If it is another,
    /// something that is said later fails, the commit at the latest, and [`Conn::is_behind`]. False: it must be asked.
    fn begin_write(&mut self, known: Option<Rev>) -> Result<bool, Error>;
    /// The transaction failed because the revision was not the known one. Until the next begins.
    fn is_behind(&self) -> bool {
        false
    }
    fn savepoint(&mut self) -> Result<(), Error>;
    fn release(&mut self) -> Result<(), Error>;
    /// Undoes everything since the savepoint and drops it.
    fn undo(&mut self) -> Result<(), Error>;
    fn commit(&mut self) -> Result<(), Error>;
    /// Runs a last statement and commits, in one round trip. The statement must fail rather than touch nothing.
    fn commit_with(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<(), Error>;
    fn rollback(&mut self);

    /// Begins a snapshot that every query until [`Conn::end_read`] sees.
    fn begin_read(&mut self) -> Result<(), Error>;
    fn end_read(&mut self);

    /// True while the transaction that was begun still stands. SQLite ends it by itself when the disk is full.
    fn in_transaction(&self) -> bool;
    /// False when the connection must be replaced.
    fn is_alive(&self) -> bool;

    /// Runs statements without parameters, such as the schema.
    fn batch(&mut self, text: &str) -> Result<(), Error>;
}

/// Makes connections.
pub(crate) trait Connect: Send + Sync {
    fn writer(&self) -> Result<Box<dyn Conn>, Error>;
    fn reader(&self) -> Result<Box<dyn Conn>, Error>;
    /// Single questions from async tasks, at most so many at a time; none where a connection is local.
    fn asking(&self, most: usize) -> Option<Arc<Asking>>;
    /// Creates the tables that are missing.
    fn schema(&self) -> String;
    /// `sqlite` or `postgresql`.
    fn engine(&self) -> &'static str;
}
