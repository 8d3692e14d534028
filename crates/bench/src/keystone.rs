//! A Keystone with many users: its database is filled with rows, taken over by nubo, and served by the real package where
//! that is installed (`.venv-keystone`, see `scripts/bench`).

use crate::simulated::Running;
use anyhow::{Context, Result, bail};
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const USERS: usize = 10_000;
pub const PROJECTS: usize = 1_000;
pub const REVOCATIONS: usize = 10_000;
/// Everybody's.
pub const PASSWORD: &str = "ada-second";
/// Of the user `admin`.
pub const ADMIN_PASSWORD: &str = "keystone-admin";
/// A small database that a real Keystone has made, with its keys.
const EMPTY: &str = "tests/clients/keystone/sqlite";
const WORKERS: usize = 2;

/// Removed when dropped.
pub struct Keystone {
    pub folder: PathBuf,
    /// Of everybody's password.
    pub hash: String,
}

pub fn user(n: usize) -> String {
    format!("{n:032x}")
}

pub fn project(n: usize) -> String {
    format!("1{:031x}", n % PROJECTS)
}

impl Keystone {
    /// One with 10,000 users, each a member of one of 1,000 projects.
    pub fn filled() -> Result<Keystone> {
        let folder = std::env::temp_dir().join(format!("nubo-bench-keystone-{}", std::process::id()));
        let copied = Command::new("cp").arg("-r").arg(EMPTY).arg(&folder).status()?;
        if !copied.success() {
            bail!("cannot copy {EMPTY}: the bench runs at the root of the project");
        }
        let mut keystone = Keystone { folder, hash: String::new() };
        let mut database = keystone.open()?;
        let rows = database.transaction()?;
        keystone.hash = rows.query_row(
            "SELECT password_hash FROM password JOIN local_user ON local_user.id = local_user_id WHERE name = 'ada' \
             ORDER BY password.created_at_int DESC LIMIT 1",
            [],
            |row| row.get(0),
        )?;
        let member: String = rows.query_row("SELECT id FROM role WHERE name = 'member'", [], |row| row.get(0))?;
        let sql = "INSERT INTO project VALUES (?1, ?2, '{}', '', 1, 'default', 'default', 0)";
        for n in 0..PROJECTS {
            rows.prepare_cached(sql)?.execute((project(n), format!("bench-{n}")))?;
        }
        for n in 0..USERS {
            let sql = "INSERT INTO user VALUES (?1, '{}', 1, NULL, '2026-01-01 00:00:00', NULL, 'default')";
            rows.prepare_cached(sql)?.execute([user(n)])?;
            let sql = "INSERT INTO local_user VALUES (?1, ?2, 'default', ?3, 0, NULL)";
            rows.prepare_cached(sql)?.execute(params![n + 1000, user(n), format!("bench-{n}")])?;
            let sql = "INSERT INTO password VALUES (?1, ?1, NULL, 0, ?2, 1767225600000000, NULL, '2026-01-01 00:00:00')";
            rows.prepare_cached(sql)?.execute(params![n + 1000, keystone.hash])?;
            let sql = "INSERT INTO assignment VALUES ('UserProject', ?1, ?2, ?3, 0)";
            rows.prepare_cached(sql)?.execute([user(n), project(n), member.clone()])?;
        }
        rows.commit()?;
        Ok(keystone)
    }

    fn open(&self) -> Result<Connection> {
        Ok(Connection::open(self.folder.join("keystone.db"))?)
    }

    /// An hour ago 7,500 tokens were revoked, and everything that 2,500 users had.
    pub fn revoke(&self) -> Result<()> {
        let mut database = self.open()?;
        let rows = database.transaction()?;
        for n in 0..REVOCATIONS {
            let sql = "INSERT INTO revocation_event (user_id, audit_chain_id, issued_before, revoked_at) \
                       VALUES (?1, ?2, datetime('now', '-1 hour') || '.000000', datetime('now', '-1 hour') || '.000000')";
            let by_user = n % 4 == 0;
            let (of, chain) = (by_user.then(|| user(n)), (!by_user).then(|| format!("{n:021}A")));
            rows.prepare_cached(sql)?.execute((of, chain))?;
        }
        Ok(rows.commit()?)
    }

    /// Its API, below the address in `line`. None where the package is not installed.
    pub fn serve(&self) -> Result<Option<Running>> {
        let python = Path::new(".venv-keystone/bin/python");
        if !python.exists() {
            return Ok(None);
        }
        let mut command = Command::new(python);
        command.arg("tests/conformance/keystone-serve").arg(&self.folder).arg(WORKERS.to_string());
        command.stderr(std::fs::File::create(self.folder.join("log"))?);
        let running = Running::start(command)?;
        if running.line.is_empty() {
            let said = std::fs::read_to_string(self.folder.join("log")).context("no log")?;
            bail!("the real Keystone does not start: {said}");
        }
        Ok(Some(running))
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
