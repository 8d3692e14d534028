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
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Config, NoTls, Statement};

/// How often question and connection may go on for each other before the runtime is asked: it has other tasks, too.
const TURNS: usize = 4;

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
    let (mut question, mut quiet) = (pin!(question), None::<Arc<Quiet>>);
    poll_fn(|context| {
        let quiet = match &quiet {
            Some(known) if known.task.will_wake(context.waker()) => known.clone(),
            _ => quiet.insert(Arc::new(Quiet::new(context.waker()))).clone(),
        };
        quiet.works();
        let waker = Waker::from(quiet.clone());
        let mut context = Context::from_waker(&waker);
        for _ in 0..TURNS {
            if let Poll::Ready(answer) = question.as_mut().poll(&mut context) {
                return Poll::Ready(answer);
            }
            // What it had to say is said now.
            quiet.works();
            if let Some(driver) = connection
                && let Poll::Ready(ended) = driver.as_mut().poll(&mut context)
            {
                *connection = None;
                if let Err(error) = ended {
                    tracing::warn!(%error, "a PostgreSQL connection ended");
                }
            }
            if !quiet.is_woken() {
                break;
            }
        }
        quiet.waits();
        Poll::Pending
    })
    .await
}

/// A waker that is still while its task is at work. Question and connection wake each other, and are one task: the
/// runtime would look at it once more, and wake another thread for that.
struct Quiet {
    state: AtomicU8,
    task: Waker,
}

const WORKS: u8 = 0;
const WOKEN: u8 = 1;
const WAITS: u8 = 2;

impl Quiet {
    fn new(task: &Waker) -> Quiet {
        Quiet { state: AtomicU8::new(WORKS), task: task.clone() }
    }

    /// Whatever woke it before is seen to now.
    fn works(&self) {
        self.state.store(WORKS, Ordering::SeqCst);
    }

    fn is_woken(&self) -> bool {
        self.state.load(Ordering::SeqCst) == WOKEN
    }

    /// From now on the task is woken; at once, where it was meanwhile.
    fn waits(&self) {
        if self.state.swap(WAITS, Ordering::SeqCst) == WOKEN {
            self.task.wake_by_ref();
        }
    }
}

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted = self.state.compare_exchange(WORKS, WOKEN, Ordering::SeqCst, Ordering::SeqCst);
        if noted == Err(WAITS) {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_at_work_is_woken_once_when_it_waits_and_each_time_from_then_on() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let quiet = Arc::new(Quiet::new(&Waker::from(count.clone())));
        let woken = |n: usize| assert_eq!(count.0.load(Ordering::SeqCst), n);
        let waker = Waker::from(quiet.clone());
        waker.wake_by_ref();
        quiet.works();
        quiet.waits();
        woken(0);
        waker.wake_by_ref();
        woken(1);
        quiet.works();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert!(quiet.is_woken());
        woken(1);
        quiet.waits();
        woken(2);
    }
}
