//! `GET /nubo/v1/watch?since=REV`: what has changed since a revision, and then what changes, as lines of JSON.
//!
//! ```text
//! {"rev":8,"at":"…","kind":"server","id":"…","project_id":"…","change":"created|updated|deleted","body":{…}}
//! {"since":8}                       all up to here has been said: go on from here; also said while nothing happens
//! {"end":"slow","message":"…","since":8}      the last line
//! ```
//!
//! The stream is made while it is read: a reader that does not read costs no memory, and one that comes back too late is
//! sent away. History is read until it has caught up with the watch, and again whenever the watch has lost something;
//! both are cut at whole revisions, so nothing is missed or said twice between two `since`. The token is verified again
//! before every line, and what a caller sees is judged by what the caller is then.
//!
//! What must never happen: a line about another project's document to who may not see all, or a secret.

use crate::watch_sight::Sight;
use axum::body::Bytes;
use base::{Fault, FaultKind, Result, Timestamp};
use policy::{Policy, Target};
use rest::{Access, Body, Call, Caller, Method, Reply, Route, Tokens};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{Change, Event, Rev, Store, Watch};
use tokio::time::Instant;

pub(crate) const RULE: &str = "nubo:watch";
/// Whoever this rule allows sees every project and every kind that has a history.
pub(crate) const ALL_RULE: &str = "nubo:watch:all";

/// The most streams at a time of one project (or, without one, of one user), and of all.
const PER_PROJECT: usize = 16;
const IN_ALL: usize = 512;
/// How many changes of history are read at once.
const PAGE: usize = 500;

/// How long a stream is silent at most, and how long its reader may take nothing.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub silent: Duration,
    pub slow: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { silent: Duration::from_secs(15), slow: Duration::from_secs(60) }
    }
}

pub(crate) struct Watching {
    pub store: Store,
    pub tokens: Arc<dyn Tokens>,
    pub policy: Arc<Policy>,
    pub patience: Patience,
    streams: Arc<Mutex<HashMap<String, usize>>>,
}

impl Watching {
    pub fn new(store: Store, tokens: Arc<dyn Tokens>, policy: Arc<Policy>, patience: Patience) -> Arc<Watching> {
        Arc::new(Watching { store, tokens, policy, patience, streams: Arc::default() })
    }

    /// Takes a place; RateLimited when the project has as many as it may.
    fn seat(&self, whose: String) -> Result<Seat> {
        let mut streams = lock(&self.streams);
        if streams.values().sum::<usize>() >= IN_ALL {
            return Err(Fault::new(
                FaultKind::RateLimited,
                format!("{IN_ALL} watches are open, and more are not served."),
            ));
        }
        let count = streams.entry(whose.clone()).or_default();
        if *count >= PER_PROJECT {
            let message = format!("The project has {PER_PROJECT} watches open, and may not have more: close one.");
            return Err(Fault::new(FaultKind::RateLimited, message));
        }
        *count += 1;
        Ok(Seat { streams: self.streams.clone(), whose })
    }
}

/// Gives the place back when the stream ends, however it ends.
struct Seat {
    streams: Arc<Mutex<HashMap<String, usize>>>,
    whose: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut streams = lock(&self.streams);
        if let Some(count) = streams.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.whose);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn route(watching: &Arc<Watching>) -> Route {
    Route::new(watching, Method::GET, "/nubo/v1/watch", RULE, Access::Rule(RULE), 200, open)
        .no_past("it tells of changes: say since=REV")
}

async fn open(watching: Arc<Watching>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let asked = call.query.number("since")?;
    // The watch first: what is committed after the look below cannot be missed.
    let watch = watching.store.watch();
    let (oldest, newest) = watching.store.read_few(|reader| Ok((reader.oldest()?, reader.snapshot_rev()?))).await?;
    let since = asked.map_or(newest, Rev);
    if since > newest {
        return Err(Fault::invalid(format!("since={since} lies in the future: the newest revision is {newest}.")));
    }
    if since < oldest {
        return Err(Fault::gone(format!(
            "since={since} is no longer kept: the oldest that can be asked for is {oldest}."
        )));
    }
    let caller = &call.caller;
    let sight = sight(&watching, caller);
    if sight == Sight::Nothing {
        return Err(Fault::forbidden("A watch needs a token that is scoped to a project, or an administrator's."));
    }
    let whose = caller.project_id().map_or_else(|| format!("user {}", caller.user_id()), |project| project.to_string());
    let seat = watching.seat(whose)?;
    let stream = Stream {
        token: call.header("x-auth-token").unwrap_or("").to_owned(),
        sight,
        watch,
        since,
        behind: true,
        // The first line says where it begins.
        lines: VecDeque::from([Line::Since(since)]),
        spoke: Instant::now(),
        over: false,
        _seat: seat,
        watching,
    };
    let lines = futures::stream::unfold(stream, |mut stream| async move {
        let line = stream.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(line), stream))
    });
    Ok(Reply::empty(200).content_type("application/x-ndjson").body(Body::from_stream(lines)))
}

fn sight(watching: &Watching, caller: &Caller) -> Sight {
    let may = |rule| {
        let decision = watching.policy.check(rule, &caller.credentials, &Target::default());
        matches!(decision, policy::Decision::Allowed)
    };
    if may(ALL_RULE) {
        return Sight::All;
    }
    match caller.project_id().filter(|_| may(RULE)) {
        Some(project) => Sight::Project(project.to_string()),
        None => Sight::Nothing,
    }
}

/// One line that waits to be said.
enum Line {
    Change(Arc<Vec<Change>>, usize),
    /// Everything up to here has been said.
    Since(Rev),
}

struct Stream {
    watching: Arc<Watching>,
    token: String,
    sight: Sight,
    watch: Watch,
    /// What has been said or stands in `lines`.
    since: Rev,
    /// History has to be read before the watch is listened to again.
    behind: bool,
    lines: VecDeque<Line>,
    /// When the reader took the last line.
    spoke: Instant,
    over: bool,
    _seat: Seat,
}

impl Stream {
    /// The next line; `None` after the last one.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let line = match self.say().await {
            Ok(line) => line,
            Err(end) => {
                self.over = true;
                end
            }
        };
        self.spoke = Instant::now();
        Some(line)
    }

    /// The next line, or the last one as an error.
    async fn say(&mut self) -> Result<Bytes, Bytes> {
        if self.spoke.elapsed() > self.watching.patience.slow {
            let message = format!("nothing was read for {} s", self.watching.patience.slow.as_secs());
            return Err(self.end("slow", &message));
        }
        loop {
            self.verify().await?;
            while let Some(line) = self.lines.pop_front() {
                match line {
                    Line::Since(rev) => return Ok(text(&json!({"since": rev}))),
                    Line::Change(changes, n) => {
                        if let Some(shown) = changes.get(n).and_then(|change| self.sight.shown(change)) {
                            return Ok(text(&shown));
                        }
                    }
                }
            }
            if self.behind {
                self.catch_up().await?;
            } else {
                self.listen().await?;
            }
        }
    }

    /// The caller as the token means it now.
    async fn verify(&mut self) -> Result<(), Bytes> {
        match self.watching.tokens.verify(&self.token).await {
            Ok(caller) => self.sight = sight(&self.watching, &caller),
            Err(_) => return Err(self.end("token", "the token has expired or been revoked")),
        }
        match self.sight {
            Sight::Nothing => Err(self.end("token", "the token no longer allows to watch")),
            _ => Ok(()),
        }
    }

    /// A page of history.
    async fn catch_up(&mut self) -> Result<(), Bytes> {
        let since = self.since;
        let read = move |reader: &mut store::Reader| Ok((reader.changes(since, PAGE)?, reader.snapshot_rev()?));
        let (changes, newest) = match self.watching.store.read(read).await {
            Ok(read) => read,
            Err(fault) if fault.kind == FaultKind::Gone => return Err(self.end("gone", &fault.message)),
            Err(fault) => {
                tracing::warn!("a watch: {}", fault.chain());
                return Err(self.end("store", "the store cannot be read right now"));
            }
        };
        match changes.last().map(|change| change.rev) {
            Some(last) => self.take(changes, last),
            None => {
                self.behind = false;
                if newest > self.since {
                    self.take(Vec::new(), newest);
                }
            }
        }
        Ok(())
    }

    /// Waits for the next commit; says where it stands when nothing happens.
    async fn listen(&mut self) -> Result<(), Bytes> {
        match tokio::time::timeout(self.watching.patience.silent, self.watch.next()).await {
            Err(_) => self.lines.push_back(Line::Since(self.since)),
            Ok(None) => return Err(self.end("store", "the cloud is being stopped")),
            Ok(Some(Event::Lost)) => self.behind = true,
            // History has told of it.
            Ok(Some(Event::Revision(revision))) if revision.rev <= self.since => {}
            Ok(Some(Event::Revision(revision))) => {
                let seen = revision.changes.iter().filter(|change| change.kept && self.sight.sees(change));
                let changes: Vec<Change> = seen.cloned().collect();
                if changes.is_empty() {
                    self.since = revision.rev;
                } else {
                    self.take(changes, revision.rev);
                }
            }
        }
        Ok(())
    }

    /// Whole revisions, the last of which is `last`.
    fn take(&mut self, changes: Vec<Change>, last: Rev) {
        let changes = Arc::new(changes);
        for (n, change) in changes.iter().enumerate() {
            self.lines.push_back(Line::Change(changes.clone(), n));
            if changes.get(n + 1).is_none_or(|next| next.rev != change.rev) {
                self.lines.push_back(Line::Since(change.rev));
            }
        }
        if changes.is_empty() {
            self.lines.push_back(Line::Since(last));
        }
        self.since = last;
    }

    /// The last line. What stands in `lines` has not been said: the next stream begins before it.
    fn end(&self, why: &str, message: &str) -> Bytes {
        let since = self.lines.iter().find_map(|line| match line {
            Line::Change(changes, n) => changes.get(*n).map(|change| Rev(change.rev.0.saturating_sub(1))),
            Line::Since(rev) => Some(*rev),
        });
        text(&json!({"end": why, "message": message, "since": since.unwrap_or(self.since)}))
    }
}

fn text(value: &serde_json::Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

/// When a change was committed, as lines say it.
pub(crate) fn at(time: Timestamp) -> String {
    time.iso_micros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Env;
    use policy::{Credentials, Rule, Scope};
    use serde_json::Value;
    use store::{Cause, Document, Options};

    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Note {
        id: String,
    }

    impl Document for Note {
        const KIND: &'static str = "note";
        fn id(&self) -> &str {
            &self.id
        }
    }

    struct Admins;

    #[async_trait::async_trait]
    impl Tokens for Admins {
        async fn verify(&self, _: &str) -> Result<Arc<Caller>> {
            let credentials = Credentials { roles: vec!["admin".into()], ..Caller::system().credentials };
            Ok(Arc::new(Caller { credentials, token: None }))
        }
    }

    async fn stream(patience: Patience) -> (Store, Stream) {
        const RULES: &[Rule] = &[
            Rule::new(RULE, "role:reader", &[Scope::System, Scope::Project], "Watch."),
            Rule::new(ALL_RULE, "role:admin", &[Scope::System, Scope::Project], "Watch all."),
        ];
        let store = Store::open(Options::memory(), Env::system()).await.unwrap();
        let policy = Arc::new(Policy::new(RULES, None).unwrap());
        let watching = Watching::new(store.clone(), Arc::new(Admins), policy, patience);
        let seat = watching.seat("p".into()).unwrap();
        let stream = Stream {
            token: String::new(),
            sight: Sight::All,
            watch: store.watch(),
            since: Rev(0),
            behind: true,
            lines: VecDeque::new(),
            spoke: Instant::now(),
            over: false,
            _seat: seat,
            watching,
        };
        (store, stream)
    }

    async fn note(store: &Store, id: String) {
        let write = store.write(Cause::default(), move |tx| Ok(tx.put(&Note { id: id.clone() })?));
        write.await.unwrap();
    }

    async fn line(stream: &mut Stream) -> Option<Value> {
        stream.next().await.map(|line| serde_json::from_slice(&line).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_says_where_it_stands() {
        let (store, mut stream) = stream(Patience::default()).await;
        note(&store, "a".into()).await;
        assert_eq!(line(&mut stream).await.unwrap()["id"], "a");
        for _ in 0..3 {
            assert_eq!(line(&mut stream).await.unwrap(), json!({"since": 1}));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_told_where_to_go_on_and_sent_away() {
        let (store, mut stream) = stream(Patience::default()).await;
        note(&store, "a".into()).await;
        note(&store, "b".into()).await;
        assert_eq!(line(&mut stream).await.unwrap()["id"], "a");
        assert_eq!(line(&mut stream).await.unwrap(), json!({"since": 1}));
        tokio::time::advance(Duration::from_secs(61)).await;
        let last = line(&mut stream).await.unwrap();
        assert_eq!((&last["end"], &last["since"]), (&json!("slow"), &json!(1)));
        assert_eq!(line(&mut stream).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_watch_loses_is_read_from_history() {
        let (store, mut stream) = stream(Patience::default()).await;
        note(&store, "first".into()).await;
        assert_eq!(line(&mut stream).await.unwrap()["id"], "first");
        assert_eq!(line(&mut stream).await.unwrap(), json!({"since": 1}));
        assert_eq!(line(&mut stream).await.unwrap(), json!({"since": 1}), "it listens now");
        // More than a watch holds.
        for n in 0..5_000 {
            note(&store, n.to_string()).await;
        }
        for n in 0..5_000 {
            let said = line(&mut stream).await.unwrap();
            assert_eq!((&said["id"], &said["change"]), (&json!(n.to_string()), &json!("created")));
            assert_eq!(line(&mut stream).await.unwrap(), json!({"since": n + 2}));
        }
    }
}
