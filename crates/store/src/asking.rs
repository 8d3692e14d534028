//! Single statements of async tasks: nobody waits on a thread for the answer.
//!
//! A closure over a snapshot may ask as often as it likes and is synchronous, so it needs a thread, and two switches to
//! it and back. A get or a short list is one statement. Its connection is a task of the caller's own runtime, so that
//! question and answer go the way that any async client's go.

use crate::Error;
use crate::postgres::{PATIENCE, failed, parameters};
use crate::sql::{Cells, Sql, Value};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Config, NoTls, Statement};

/// Connections for single statements, opened when first needed and lent out one question at a time.
pub(crate) struct Asking {
    config: Config,
    idle: Mutex<Vec<Line>>,
    permits: Semaphore,
}

/// A connection.
struct Line {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

/// A line that comes back to the others, also when whoever waits for the answer goes away: what was asked already is
/// then thrown away by the connection.
struct Lent<'a> {
    asking: &'a Asking,
    line: Option<Line>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.line.take().filter(|line| !line.client.is_closed()) {
            self.asking.idle().push(line);
        }
    }
}

impl Asking {
    pub fn new(config: Config, most: usize) -> Asking {
        Asking { config, idle: Mutex::default(), permits: Semaphore::new(most) }
    }

    /// The answer's rows, each as `each` takes it.
    pub async fn ask<R>(
        &self,
        sql: &'static Sql,
        values: &[Value<'_>],
        mut each: impl FnMut(&dyn Cells) -> Result<R, Error>,
    ) -> Result<Vec<R>, Error> {
        let gone = |_| Error::Unavailable("the store is closed".into());
        let _permit = self.permits.acquire().await.map_err(gone)?;
        let line = self.idle().pop().filter(|line| !line.client.is_closed());
        let idle = line.is_some();
        let mut lent = Lent { asking: self, line };
        let rows = match self.rows(&mut lent, sql, values).await {
            // The connection died while it lay idle: once more on a new one.
            Err(_) if idle && lent.line.as_ref().is_some_and(|line| line.client.is_closed()) => {
                lent.line = None;
                self.rows(&mut lent, sql, values).await?
            }
            rows => rows?,
        };
        rows.iter().map(|row| each(row)).collect()
    }

    async fn rows(
        &self,
        lent: &mut Lent<'_>,
        sql: &'static Sql,
        values: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        let line = match &mut lent.line {
            Some(line) => line,
            empty => empty.insert(Line::open(&self.config).await?),
        };
        match tokio::time::timeout(PATIENCE, line.rows(sql.postgres(), values)).await {
            Ok(rows) => rows.map_err(failed),
            Err(_) => {
                lent.line = None;
                Err(Error::Unavailable("PostgreSQL does not answer".into()))
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Line>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    async fn open(config: &Config) -> Result<Line, Error> {
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "a PostgreSQL connection ended");
            }
        });
        Ok(Line { client, statements: HashMap::new() })
    }

    async fn rows(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        let statement = match self.statements.get(text) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(text).await?;
                self.statements.entry(text).or_insert(statement).clone()
            }
        };
        self.client.query(&statement, &parameters(values)).await
    }
}
