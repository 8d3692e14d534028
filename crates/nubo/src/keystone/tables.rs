//! The tables of a Keystone, in a file of SQLite or loaded from a dump, and the rows that are left out.

use super::dump;
use anyhow::{Context, Result, bail};
use base::Timestamp;
use identity::documents::Extra;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// What Keystone writes where a domain has no domain.
pub(super) const ROOT: &str = "<<keystone.domain.root>>";
const NULL: &str = "<<null>>";

/// The tables that are read.
const READ: &[&str] = &[
    "access_rule",
    "access_token",
    "application_credential",
    "application_credential_access_rule",
    "application_credential_role",
    "assignment",
    "consumer",
    "credential",
    "endpoint",
    "endpoint_group",
    "expiring_user_group_membership",
    "federated_user",
    "federation_protocol",
    "group",
    "id_mapping",
    "identity_provider",
    "idp_remote_ids",
    "implied_role",
    "limit",
    "local_user",
    "mapping",
    "nonlocal_user",
    "password",
    "policy",
    "policy_association",
    "project",
    "project_endpoint",
    "project_endpoint_group",
    "project_option",
    "project_tag",
    "region",
    "registered_limit",
    "revocation_event",
    "role",
    "role_option",
    "sensitive_config",
    "service",
    "service_provider",
    "system_assignment",
    "trust",
    "trust_role",
    "user",
    "user_group_membership",
    "user_option",
    "whitelisted_config",
];

/// Tables about the database itself.
const INERT: &[&str] = &["alembic_version", "migrate_version", "config_register"];

pub(super) struct Tables {
    connection: Connection,
    left_out: RefCell<BTreeMap<String, usize>>,
}

impl Tables {
    /// Of a file whose first bytes say what it is.
    pub fn open(path: &Path) -> Result<Tables> {
        let said = || format!("cannot open {}", path.display());
        let mut file = std::fs::File::open(path).with_context(said)?;
        if !file.metadata().with_context(said)?.is_file() {
            bail!("{} is no file", path.display());
        }
        let mut head = Vec::new();
        (&mut file).take(64).read_to_end(&mut head).with_context(said)?;
        if head.starts_with(b"SQLite format 3\0") {
            return Tables::sqlite(path).with_context(said);
        }
        if !dump::looks_like(&head) {
            bail!(
                "{} is not a database: neither a file of SQLite nor what mariadb-dump or mysqldump writes, unpacked",
                path.display()
            );
        }
        let mut text = head;
        file.take(dump::FILE_BYTES).read_to_end(&mut text).with_context(said)?;
        if text.len() as u64 > dump::FILE_BYTES {
            bail!("{} has more than {} bytes", path.display(), dump::FILE_BYTES);
        }
        let loaded = dump::load(&text, READ).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Tables::of(loaded.connection, loaded.skipped))
    }

    fn sqlite(path: &Path) -> Result<Tables> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let tables = Tables::of(connection, BTreeMap::new());
        let names =
            tables.rows("SELECT name FROM sqlite_schema WHERE type = 'table'", |row| row.get::<_, String>(0))?;
        for name in names.iter().filter(|name| !READ.contains(&name.as_str()) && !name.starts_with("sqlite_")) {
            let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
            let rows = tables.rows(&sql, |row| row.get::<_, i64>(0))?;
            tables.leave(name, usize::try_from(rows.into_iter().sum::<i64>())?);
        }
        Ok(tables)
    }

    fn of(connection: Connection, skipped: BTreeMap<String, usize>) -> Tables {
        let tables = Tables { connection, left_out: RefCell::default() };
        skipped.iter().for_each(|(name, rows)| tables.leave(name, *rows));
        tables
    }

    /// So many of this are not taken over.
    pub fn leave(&self, what: &str, count: usize) {
        if count > 0 && !INERT.contains(&what) {
            *self.left_out.borrow_mut().entry(what.to_owned()).or_default() += count;
        }
    }

    pub fn left_out(self) -> BTreeMap<String, usize> {
        self.left_out.into_inner()
    }

    /// Every row of a query, read by `each`.
    pub fn rows<T>(&self, sql: &str, mut each: impl FnMut(&Row) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        let mut statement =
            self.connection.prepare(sql).with_context(|| format!("this is no database of a Keystone: {sql}"))?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(each(row).with_context(|| format!("a row of {sql}"))?);
        }
        Ok(all)
    }

    /// Leaves out all rows of a table.
    pub fn leave_all(&self, table: &str) -> Result<()> {
        let count = self.rows(&format!("SELECT count(*) FROM \"{table}\""), |row| row.get::<_, i64>(0))?;
        self.leave(table, usize::try_from(count.into_iter().sum::<i64>())?);
        Ok(())
    }

    /// Options by the thing that has them.
    pub fn options(&self, table: &str, owner: &str) -> Result<BTreeMap<String, Extra>> {
        let mut all: BTreeMap<String, Extra> = BTreeMap::new();
        let rows = self.rows(&format!("SELECT {owner}, option_id, option_value FROM {table}"), |row| {
            Ok((text(row, 0)?, text(row, 1)?, row.get::<_, Option<String>>(2)?))
        })?;
        for (owner, code, value) in rows {
            let Some(name) = option_name(&code) else {
                self.leave(&format!("{table} {code}"), 1);
                continue;
            };
            // Such as the factors that a user must show: nothing that is not understood may be taken for nothing.
            let value = value.map(|value| serde_json::from_str(&value)).transpose();
            let value =
                value.with_context(|| format!("the option {name} of {owner} is no JSON"))?.unwrap_or(Value::Null);
            all.entry(owner).or_default().insert(name.to_owned(), value);
        }
        Ok(all)
    }

    /// Ids of roles by what lends them.
    pub fn roles(&self, table: &str, owner: &str) -> Result<BTreeMap<String, Vec<base::RoleId>>> {
        let rows = self.rows(&format!("SELECT {owner}, role_id FROM {table} ORDER BY 1, 2"), |row| {
            let owner = row.get::<_, rusqlite::types::Value>(0)?;
            let owner = match owner {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                _ => String::new(),
            };
            Ok((owner, text(row, 1)?))
        })?;
        let mut all: BTreeMap<String, Vec<base::RoleId>> = BTreeMap::new();
        rows.into_iter().for_each(|(owner, role)| all.entry(owner).or_default().push(role.into()));
        Ok(all)
    }
}

fn option_name(code: &str) -> Option<&'static str> {
    Some(match code {
        "1000" => "ignore_change_password_upon_first_use",
        "1001" => "ignore_password_expiry",
        "1002" => "ignore_lockout_failure_attempts",
        "1003" => "lock_password",
        "1004" => "ignore_user_inactivity",
        "MFAR" => "multi_factor_auth_rules",
        "MFAE" => "multi_factor_auth_enabled",
        "IMMU" => "immutable",
        _ => return None,
    })
}

pub(super) fn text(row: &Row, at: usize) -> rusqlite::Result<String> {
    Ok(row.get::<_, Option<String>>(at)?.unwrap_or_default())
}

pub(super) fn some(row: &Row, at: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get::<_, Option<String>>(at)?.filter(|text| !text.is_empty() && text != NULL && text != ROOT))
}

pub(super) fn flag(row: &Row, at: usize) -> rusqlite::Result<bool> {
    Ok(row.get::<_, Option<bool>>(at)?.unwrap_or(false))
}

pub(super) fn extra(row: &Row, at: usize) -> rusqlite::Result<Extra> {
    Ok(json::<Option<Map<String, Value>>>(row, at)?.flatten().unwrap_or_default())
}

pub(super) fn words(row: &Row, at: usize) -> rusqlite::Result<Value> {
    Ok(row.get::<_, Option<String>>(at)?.map_or_else(|| Value::from(""), Value::from))
}

pub(super) fn moment(row: &Row, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(Timestamp))
}

/// `2026-12-01 01:02:03.456`, in UTC.
pub(super) fn date(row: &Row, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    let Some(text) = some(row, at)? else { return Ok(None) };
    let bad = || rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, "no date".into());
    Timestamp::parse(&text).map(Some).ok_or_else(bad)
}

/// A column that holds JSON; none where it is empty.
pub(super) fn json<T: serde::de::DeserializeOwned>(row: &Row, at: usize) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(at)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let bad = |error| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error));
    serde_json::from_str(&text).map(Some).map_err(bad)
}
