//! Single statements of async tasks: nobody waits on a thread for the answer.
//!
//! A closure over a snapshot may ask as often as it likes and is synchronous, so it needs a thread, and two switches to
//! it and back. A get or a short list is one statement. Whoever asks drives the connection as well: as a task of its own it
//! would have to be woken for the question, and wake the asker for the answer.

use crate::Error;
use crate::postgres::{PATIENCE, failed, parameters};
use crate::sql::{Cells, Sql, Value};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Config, NoTls, Statement};

/// Connections for single statements, opened when first needed and lent out one question at a time.
pub(crate) struct Asking {
    config: Config,
    idle: Mutex<Vec<Line>>,
    permits: Semaphore,
}

/// A connection. What it has to do is done while somebody asks; `None` when it has ended.
struct Line {
    client: Client,
    connection: Option<Driver>,
    statements: HashMap<&'static str, Statement>,
}

type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// A line that comes back to the others, also when whoever waits for the answer goes away: what was asked already is
/// then thrown away by whoever asks next.
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
        Ok(Line { client, connection: Some(Box::pin(connection)), statements: HashMap::new() })
    }

    async fn rows(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        let Line { client, connection, statements } = self;
        let question = async {
            let statement = match statements.get(text) {
                Some(statement) => statement.clone(),
                None => {
                    let statement = client.prepare(text).await?;
                    statements.entry(text).or_insert(statement).clone()
                }
            };
            client.query(&statement, &parameters(values)).await
        };
        driven(connection, question).await
    }
}

/// The answer of a question, for which the connection is kept going.
async fn driven<T>(connection: &mut Option<Driver>, question: impl Future<Output = T>) -> T {
    let mut question = pin!(question);
    poll_fn(|context| {
        // It has something to say first, and may have its answer afterwards.
        if let Poll::Ready(answer) = question.as_mut().poll(context) {
            return Poll::Ready(answer);
        }
        if let Some(driver) = connection
            && let Poll::Ready(ended) = driver.as_mut().poll(context)
        {
            *connection = None;
            if let Err(error) = ended {
                tracing::warn!(%error, "a PostgreSQL connection ended");
            }
        }
        question.as_mut().poll(context)
    })
    .await
}
