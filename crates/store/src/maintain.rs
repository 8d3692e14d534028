//! What keeps a store in order: tables, index versions, trimming, backup, leases, and what status shows.

use crate::document::{Kind, Rev, plain};
use crate::reader::{Reader, doc_row};
use crate::schema;
use crate::sql::{self, Rows, given, values};
use crate::writer::Cause;
use crate::{Error, Query, Result, Secrets, Store, Trash, Undone, Usage, ledger};
use base::{Fault, Timestamp};
use std::path::Path;

/// Rows of history that one step of trimming looks at, and documents that a rebuild reads at a time.
const STEP: i64 = 2_000;

/// Marks of undone requests that one step looks at: each may cost a read of history.
const UNDONE_STEP: usize = 200;

/// How many ledger rows get a history in one revision.
const LEDGER_ROWS: usize = 50_000;

/// What `nubo status` shows of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// `sqlite` or `postgresql`.
    pub engine: &'static str,
    pub version: String,
    pub size_bytes: u64,
    pub rev: Rev,
    /// The oldest revision that can be asked for.
    pub oldest: Rev,
}

/// What trimming did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    pub rows: u64,
    pub oldest: Rev,
}

/// Creates what is missing, checks the version, rebuilds index entries, and returns the newest revision.
pub(crate) fn prepare(
    reader: &mut Reader,
    tables: &str,
    kinds: &[Kind],
    secrets: &Secrets,
) -> Result<Rev, Error> {
    for kind in kinds {
        if kinds.iter().any(|other| other.name == kind.name && other.of != kind.of) {
            return Err(Error::Corrupt(format!("two types claim the kind {}", kind.name)));
        }
    }
    reader.conn.begin_write(None)?;
    let prepared = prepare_inside(reader, tables, kinds, secrets);
    match prepared {
        Ok(rev) => reader.conn.commit().map(|()| rev),
        Err(error) => {
            reader.conn.rollback();
            Err(error)
        }
    }
}

fn prepare_inside(reader: &mut Reader, tables: &str, kinds: &[Kind], secrets: &Secrets) -> Result<Rev, Error> {
    reader.conn.batch(tables)?;
    match reader.raw_meta("schema")? {
        Some(version) if version > schema::VERSION => {
            let ours = schema::VERSION;
            return Err(Error::Unsupported(format!(
                "The store has tables of version {version}; this program knows {ours}"
            )));
        }
        Some(schema::VERSION) => {}
        Some(_) => {
            reader.conn.batch(schema::FROM_1)?;
            set_meta(reader, "schema", schema::VERSION)?;
        }
        None => set_meta(reader, "schema", schema::VERSION)?,
    }
    secrets.fits(reader.raw_meta("m:secret_key")?)?;
    seed_ledger(reader)?;
    for kind in kinds {
        let name = format!("index:{}", kind.name);
        let kept = reader.raw_meta(&name)?;
        if kept != Some(kind.index_version.into()) {
            let count = rebuild(reader, kind)?;
            if count > 0 {
                tracing::info!(kind = kind.name, count, from = kept, to = kind.index_version, "rebuilt index entries");
            }
            set_meta(reader, &name, kind.index_version.into())?;
        }
    }
    Ok(Rev(reader.raw_meta("rev")?.unwrap_or(0) as u64))
}

/// Gives ledger rows a history that a program without one has written or changed: as of now. Before that, the past of
/// the ledger is not known.
fn seed_ledger(reader: &mut Reader) -> Result<(), Error> {
    let rows = reader.query(&sql::LEDGER, &[])?;
    let mut missing = Vec::new();
    for mut row in rows {
        let (scope, resource) = (row.text(0)?, row.text(1)?);
        let usage = Usage { used: row.int(2)?, limit: row.maybe_int(3) };
        let past = ledger::Past::new(&scope, &resource, usage)?;
        let kept = reader.query(&sql::PAST_GET, &given![ledger::KIND, &past.id, i64::MAX])?.pop();
        if ledger::parse(kept.and_then(|mut row| row.maybe_text(5)).as_deref())? != usage {
            missing.push(past);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let now = reader.clock();
    let mut rev = Rev(reader.raw_meta("rev")?.unwrap_or(0) as u64);
    // A revision has room for some rows only.
    for part in missing.chunks(LEDGER_ROWS) {
        rev = Rev(rev.0 + 1);
        let mut rows = Rows { write: &sql::HISTORY_INSERT, rows: Vec::new() };
        for (n, past) in (0..).zip(part) {
            let seq = crate::buffer::seq(rev, n);
            let body = past.body.as_deref();
            rows.rows.push(values![
                seq,
                ledger::KIND,
                &past.id,
                "",
                0,
                "store",
                "",
                "ledger.history",
                now.0,
                body,
                now.0
            ]);
        }
        reader.conn.flush(&[rows])?;
    }
    set_meta(reader, "rev", rev.0 as i64)?;
    set_meta(reader, "ledger_from", rev.0 as i64)
}

fn set_meta(reader: &mut Reader, name: &str, value: i64) -> Result<(), Error> {
    reader.conn.execute(&sql::META_SET, &given![name, value]).map(|_| ())
}

/// Computes the entries of a kind anew. Fails when two documents now claim one unique key.
fn rebuild(reader: &mut Reader, kind: &Kind) -> Result<usize, Error> {
    reader.conn.execute(&sql::DROP_INDEXES, &[kind.name.into()])?;
    reader.conn.execute(&sql::DROP_UNIQUES, &[kind.name.into()])?;
    let (mut created, mut id, mut count) = (i64::MIN, String::new(), 0);
    loop {
        let page = reader.query(&sql::LIST_ALL[0], &given![kind.name, created, &id, STEP])?;
        let rows = page.into_iter().map(doc_row).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = rows.last() else { return Ok(count) };
        let keys = rows.iter().map(|row| (kind.keys)(&row.body)).collect::<Result<Vec<_>, _>>()?;
        let mut indexes = Rows { write: &sql::INDEX_INSERT, rows: Vec::new() };
        let mut uniques = Rows { write: &sql::UNIQUE_INSERT, rows: Vec::new() };
        for (row, keys) in rows.iter().zip(&keys) {
            for (name, value) in &keys.indexes {
                indexes.rows.push(values![kind.name, *name, value, row.created, &row.id]);
            }
            for (name, value) in &keys.uniques {
                uniques.rows.push(values![kind.name, *name, value, &row.id]);
            }
        }
        reader.conn.flush(&[indexes, uniques])?;
        count += rows.len();
        (created, id) = (last.created, last.id.clone());
    }
}

impl Store {
    /// Forgets history below `oldest`, except each document's newest row there, so that every `as_of` from `oldest` on
    /// stays right. Runs in steps between which others write.
    pub async fn trim_history(&self, oldest: Rev) -> Result<Trimmed> {
        let oldest = oldest.min(self.rev());
        let cause = || Cause::new("store", "", "history.trim");
        let mark = self.write(cause(), move |tx| {
            let kept = tx.oldest()?;
            if kept < oldest {
                let at = tx.committed_at(oldest)?;
                tx.buffer.meta.insert("trim".into(), oldest.0 as i64);
                tx.buffer.meta.insert("trim_at".into(), at.0);
                tx.execute(&sql::REQUEST_TRIM, &given![oldest.0 as i64])?;
            }
            Ok(kept.max(oldest))
        });
        let oldest = mark.await?.value;
        let bound = crate::buffer::seq(Rev(oldest.0 + 1), 0);
        let (mut from, mut rows) = (0, 0);
        loop {
            let step = self.write(cause(), move |tx| {
                let window = tx.query(&sql::PAST_WINDOW, &given![from, bound, STEP])?;
                let Some(end) = window.first().and_then(|row| row.maybe_int(0)) else { return Ok(None) };
                Ok(Some((end, tx.execute(&sql::PAST_TRIM, &given![from, end, bound])?)))
            });
            let Some((end, gone)) = step.await?.value else { break };
            rows += gone;
            from = end + 1;
        }
        self.forget_undone().await?;
        Ok(Trimmed { rows, oldest })
    }

    /// That a request was undone need be known for as long as it could be undone again.
    async fn forget_undone(&self) -> Result<()> {
        let mut marker: Option<String> = None;
        loop {
            let from = marker.take();
            let step = self.write(Cause::new("store", "", "history.trim"), move |tx| {
                let mut query = Query::all().limit(UNDONE_STEP);
                if let Some(from) = &from {
                    query = query.after(from.as_str());
                }
                let from = from.clone();
                let page = tx.list::<Undone>(query)?;
                let mut kept = from;
                for undone in &page {
                    let rests = !tx.list::<Trash>(Query::index("request", &undone.id).limit(1))?.is_empty();
                    if !rests && tx.past_request(&undone.id)?.is_none() {
                        tx.delete::<Undone>(&undone.id)?;
                    } else {
                        kept = Some(undone.id.clone());
                    }
                }
                Ok((kept, page.len() == UNDONE_STEP))
            });
            let (kept, more) = step.await?.value;
            if !more {
                return Ok(());
            }
            marker = kept;
        }
    }

    /// The engine, its version and how much it holds.
    pub async fn info(&self) -> Result<Info> {
        let engine = self.connect().engine();
        let (version, size) = match engine {
            "sqlite" => (&sql::SQLITE_VERSION, &sql::SQLITE_SIZE),
            _ => (&sql::POSTGRES_VERSION, &sql::POSTGRES_SIZE),
        };
        self.read(move |reader| {
            let version = reader.query(version, &[])?.first_mut().map_or(Ok(String::new()), |row| row.text(0))?;
            let size_bytes = reader.query(size, &[])?.first().map_or(Ok(0), |row| row.int(0))? as u64;
            let (rev, oldest) = (reader.snapshot_rev()?, reader.oldest()?);
            Ok(Info { engine, version, size_bytes, rev, oldest })
        })
        .await
    }

    /// Writes a whole, consistent copy of an SQLite store to a file that must not exist yet, readable by its owner
    /// alone. (A copy of the live file would be a broken backup.) PostgreSQL has its own tools.
    pub async fn vacuum_into(&self, path: &Path) -> Result<()> {
        if self.connect().engine() != "sqlite" {
            return Err(Error::Unsupported("A PostgreSQL store is backed up by pg_basebackup or pg_dump".into()).into());
        }
        let Some(text) = path.to_str().filter(|text| !text.contains('\0')) else {
            return Err(Error::Invalid("The path of a backup must be UTF-8".into()).into());
        };
        new_file(path)?;
        let statement = format!("VACUUM INTO '{}'", text.replace('\'', "''"));
        let done = self.with_conn(move |conn| conn.batch(&statement)).await;
        if done.is_err() {
            // Half a backup is worse than none.
            let _ = std::fs::remove_file(path);
        }
        done
    }

    /// Takes or renews a lease: true unless another owner holds it and it has not run out. Leases lie outside
    /// documents, revisions and history, and survive a restart.
    pub async fn lease_acquire(&self, name: &str, owner: &str, ttl_ms: i64) -> Result<bool> {
        plain("name", name, 512)?;
        plain("owner", owner, 512)?;
        let (name, owner) = (name.to_owned(), owner.to_owned());
        let taken = self.write(Cause::new(owner.clone(), "", "lease.acquire"), move |tx| {
            let now = tx.now();
            let until = now.plus_ms(ttl_ms);
            Ok(tx.execute(&sql::LEASE_TAKE, &given![&name, &owner, until.0, now.0])? == 1)
        });
        Ok(taken.await?.value)
    }

    /// Gives a lease back; nothing happens when someone else holds it.
    pub async fn lease_release(&self, name: &str, owner: &str) -> Result<()> {
        plain("name", name, 512)?;
        plain("owner", owner, 512)?;
        let (name, owner) = (name.to_owned(), owner.to_owned());
        let dropped = self.write(Cause::new(owner.clone(), "", "lease.release"), move |tx| {
            Ok(tx.execute(&sql::LEASE_DROP, &given![&name, &owner])?)
        });
        dropped.await.map(|_| ())
    }

    /// The database file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        self.path().map(|path| path.as_path())
    }
}

impl Reader {
    /// When a revision was committed; now if it left no history after it.
    fn committed_at(&mut self, rev: Rev) -> Result<Timestamp, Error> {
        let rows = self.query(&sql::PAST_AT, &[crate::buffer::seq(rev, 0).into()])?;
        rows.first().map_or(Ok(self.clock()), |row| Ok(Timestamp(row.int(1)?)))
    }
}

/// Makes an empty file that only its owner can read; it must not exist.
fn new_file(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create_new(true).write(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Fault::conflict(format!("{} exists already.", path.display())))
        }
        Err(error) => Err(Fault::unavailable(format!("{} cannot be written.", path.display())).because(error)),
    }
}
