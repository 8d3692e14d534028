//! The statements, and the values that go into and come out of them.
//!
//! Statements are written with `$n`, as PostgreSQL reads it. In SQLite `$2` is a *named* parameter that is numbered by
//! its first appearance, which binds values wrongly and silently: each text is therefore translated to `?n` once.

use crate::Error;
use std::sync::OnceLock;

/// A statement that means the same on both engines.
pub(crate) struct Sql {
    text: &'static str,
    sqlite: OnceLock<String>,
}

impl Sql {
    pub const fn new(text: &'static str) -> Sql {
        Sql { text, sqlite: OnceLock::new() }
    }

    pub fn postgres(&self) -> &'static str {
        self.text
    }

    pub fn sqlite(&self) -> &str {
        self.sqlite.get_or_init(|| self.text.replace('$', "?"))
    }
}

/// What a column of a multi-row statement holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Column {
    Text,
    Int,
}

/// A statement that writes many rows: once per row on SQLite, once with an array per column on PostgreSQL.
pub(crate) struct Write {
    pub sqlite: Sql,
    pub postgres: &'static str,
    pub columns: &'static [Column],
    /// On PostgreSQL it takes the number of rows as a last value and fails unless it touched as many.
    pub counted: bool,
    /// What it means when a row was not touched.
    pub missed: &'static str,
}

/// Rows for one [`Write`].
pub(crate) struct Rows<'a> {
    pub write: &'static Write,
    pub rows: Vec<Vec<Value<'a>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text)
    }
}
impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(text)
    }
}
impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}
impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Value::Null, Value::Int)
    }
}
impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Value::Null, Value::Text)
    }
}

/// Builds a `Vec<Value>` from expressions that convert.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::sql::Value::from($value)),*] };
}
pub(crate) use values;

/// The same for the values of one query.
macro_rules! given {
    ($($value:expr),* $(,)?) => { [$($crate::sql::Value::from($value)),*] };
}
pub(crate) use given;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Text(String),
}

/// A row that came back. Columns are taken by position; a surprise is [`Error::Corrupt`].
pub(crate) struct Row(pub Vec<Cell>);

impl Row {
    pub fn int(&self, n: usize) -> Result<i64, Error> {
        match self.0.get(n) {
            Some(Cell::Int(number)) => Ok(*number),
            other => Err(Error::Corrupt(format!("column {n} holds {other:?} instead of a number"))),
        }
    }

    pub fn maybe_int(&self, n: usize) -> Option<i64> {
        self.int(n).ok()
    }

    pub fn text(&mut self, n: usize) -> Result<String, Error> {
        self.maybe_text(n).ok_or_else(|| Error::Corrupt(format!("column {n} holds no text")))
    }

    /// Takes the text out, if there is one.
    pub fn maybe_text(&mut self, n: usize) -> Option<String> {
        match self.0.get_mut(n) {
            Some(Cell::Text(text)) => Some(std::mem::take(text)),
            _ => None,
        }
    }
}

/// A row where it lies, in an engine's own buffer: a list parses each body from there, without a copy of it.
pub(crate) trait Cells {
    fn number(&self, n: usize) -> Result<i64, Error>;
    fn borrowed(&self, n: usize) -> Result<&str, Error>;
}

impl Cells for Row {
    fn number(&self, n: usize) -> Result<i64, Error> {
        self.int(n)
    }

    fn borrowed(&self, n: usize) -> Result<&str, Error> {
        match self.0.get(n) {
            Some(Cell::Text(text)) => Ok(text),
            _ => Err(Error::Corrupt(format!("column {n} holds no text"))),
        }
    }
}

/// What is done with each row of an answer.
pub(crate) type Each<'a> = dyn FnMut(&dyn Cells) -> Result<(), Error> + 'a;

pub(crate) static META: Sql = Sql::new("SELECT value FROM meta WHERE name = $1");
pub(crate) static META_SET: Sql =
    Sql::new("INSERT INTO meta(name, value) VALUES($1, $2) ON CONFLICT(name) DO UPDATE SET value = excluded.value");
/// Fails (a value cannot be null) unless the revision is still the one that was read: it travels with the COMMIT.
pub(crate) static REV_RAISE: Sql =
    Sql::new("UPDATE meta SET value = CASE WHEN value = $2 THEN CAST($1 AS BIGINT) END WHERE name = 'rev'");

/// Fails (nothing can be divided by 0) unless the revision is still the one that is known: it travels with the BEGIN.
pub(crate) static REV_IS: Sql =
    Sql::new("SELECT 1 / (CASE WHEN value = $1 THEN 1 ELSE 0 END) FROM meta WHERE name = 'rev'");

pub(crate) static GET: Sql =
    Sql::new("SELECT id, project_id, rev, created, updated, body FROM document WHERE kind = $1 AND id = $2");
pub(crate) static GET_UNIQUE: Sql = Sql::new(
    "SELECT d.id, d.project_id, d.rev, d.created, d.updated, d.body FROM unique_entry u
     JOIN document d ON d.kind = u.kind AND d.id = u.id WHERE u.kind = $1 AND u.name = $2 AND u.value = $3",
);
pub(crate) static OWNER: Sql = Sql::new("SELECT id FROM unique_entry WHERE kind = $1 AND name = $2 AND value = $3");

/// Forward and backward lists take (kind, [project | name, value,] created, id, limit).
pub(crate) static LIST_ALL: [Sql; 2] = [
    Sql::new(
        "SELECT id, project_id, rev, created, updated, body FROM document
         WHERE kind = $1 AND (created, id) > ($2, $3) ORDER BY created, id LIMIT $4",
    ),
    Sql::new(
        "SELECT id, project_id, rev, created, updated, body FROM document
         WHERE kind = $1 AND (created, id) < ($2, $3) ORDER BY created DESC, id DESC LIMIT $4",
    ),
];
pub(crate) static LIST_PROJECT: [Sql; 2] = [
    Sql::new(
        "SELECT id, project_id, rev, created, updated, body FROM document
         WHERE kind = $1 AND project_id = $2 AND project_id <> '' AND (created, id) > ($3, $4)
         ORDER BY created, id LIMIT $5",
    ),
    Sql::new(
        "SELECT id, project_id, rev, created, updated, body FROM document
         WHERE kind = $1 AND project_id = $2 AND project_id <> '' AND (created, id) < ($3, $4)
         ORDER BY created DESC, id DESC LIMIT $5",
    ),
];
pub(crate) static LIST_INDEX: [Sql; 2] = [
    Sql::new(
        "SELECT d.id, d.project_id, d.rev, d.created, d.updated, d.body FROM index_entry i
         JOIN document d ON d.kind = i.kind AND d.id = i.id
         WHERE i.kind = $1 AND i.name = $2 AND i.value = $3 AND (i.sort, i.id) > ($4, $5)
         ORDER BY i.sort, i.id LIMIT $6",
    ),
    Sql::new(
        "SELECT d.id, d.project_id, d.rev, d.created, d.updated, d.body FROM index_entry i
         JOIN document d ON d.kind = i.kind AND d.id = i.id
         WHERE i.kind = $1 AND i.name = $2 AND i.value = $3 AND (i.sort, i.id) < ($4, $5)
         ORDER BY i.sort DESC, i.id DESC LIMIT $6",
    ),
];
pub(crate) static COUNT_ALL: Sql = Sql::new("SELECT count(*) FROM document WHERE kind = $1");
pub(crate) static COUNT_PROJECT: Sql =
    Sql::new("SELECT count(*) FROM document WHERE kind = $1 AND project_id = $2 AND project_id <> ''");
pub(crate) static COUNT_INDEX: Sql =
    Sql::new("SELECT count(*) FROM index_entry WHERE kind = $1 AND name = $2 AND value = $3");

pub(crate) static USAGE: Sql = Sql::new("SELECT used, lim FROM ledger WHERE scope = $1 AND resource = $2");
/// Walks through the whole ledger: for who counts it again, never for a request.
pub(crate) static LEDGER: Sql = Sql::new("SELECT scope, resource, used, lim FROM ledger ORDER BY scope, resource");
pub(crate) static USAGES: Sql = Sql::new("SELECT resource, used, lim FROM ledger WHERE scope = $1 ORDER BY resource");

/// A delete is written with the row it replaces, so `seq` alone orders everything. See `past.rs`.
pub(crate) static PAST_GET: Sql = Sql::new(
    "SELECT id, project_id, seq, created, COALESCE(updated, at), body FROM history
     WHERE kind = $1 AND id = $2 AND seq < $3 ORDER BY seq DESC LIMIT 1",
);
/// Lists of the past, forward and backward, take (kind, [project,] bound, created, id, limit). They have no index in
/// their order: what lived then is found by the newest row of each document, and sorted.
pub(crate) static PAST_ALL: [Sql; 2] = [
    Sql::new(
        "SELECT h.id, h.project_id, h.seq, h.created, COALESCE(h.updated, h.at), h.body FROM
         (SELECT max(seq) AS seq FROM history WHERE kind = $1 AND seq < $2 GROUP BY id) m
         JOIN history h ON h.seq = m.seq WHERE h.body IS NOT NULL AND (h.created, h.id) > ($3, $4)
         ORDER BY h.created, h.id LIMIT $5",
    ),
    Sql::new(
        "SELECT h.id, h.project_id, h.seq, h.created, COALESCE(h.updated, h.at), h.body FROM
         (SELECT max(seq) AS seq FROM history WHERE kind = $1 AND seq < $2 GROUP BY id) m
         JOIN history h ON h.seq = m.seq WHERE h.body IS NOT NULL AND (h.created, h.id) < ($3, $4)
         ORDER BY h.created DESC, h.id DESC LIMIT $5",
    ),
];
pub(crate) static PAST_PROJECT: [Sql; 2] = [
    Sql::new(
        "SELECT h.id, h.project_id, h.seq, h.created, COALESCE(h.updated, h.at), h.body FROM
         (SELECT max(seq) AS seq FROM history WHERE kind = $1 AND project_id = $2 AND project_id <> '' AND seq < $3
          GROUP BY id) m
         JOIN history h ON h.seq = m.seq WHERE h.body IS NOT NULL AND (h.created, h.id) > ($4, $5)
         ORDER BY h.created, h.id LIMIT $6",
    ),
    Sql::new(
        "SELECT h.id, h.project_id, h.seq, h.created, COALESCE(h.updated, h.at), h.body FROM
         (SELECT max(seq) AS seq FROM history WHERE kind = $1 AND project_id = $2 AND project_id <> '' AND seq < $3
          GROUP BY id) m
         JOIN history h ON h.seq = m.seq WHERE h.body IS NOT NULL AND (h.created, h.id) < ($4, $5)
         ORDER BY h.created DESC, h.id DESC LIMIT $6",
    ),
];
pub(crate) static PAST_COUNT_ALL: Sql = Sql::new(
    "SELECT count(*) FROM (SELECT max(seq) AS seq FROM history WHERE kind = $1 AND seq < $2 GROUP BY id) m
     JOIN history h ON h.seq = m.seq WHERE h.body IS NOT NULL",
);
pub(crate) static PAST_COUNT_PROJECT: Sql = Sql::new(
    "SELECT count(*) FROM
     (SELECT max(seq) AS seq FROM history WHERE kind = $1 AND project_id = $2 AND project_id <> '' AND seq < $3
      GROUP BY id) m
     JOIN history h ON h.seq = m.seq WHERE h.body IS NOT NULL",
);
/// What lived of a kind then, $4 documents after the id $3; deletions come along, so that the next page is known.
pub(crate) static PAST_PAGE: Sql = Sql::new(
    "SELECT h.id, h.project_id, h.seq, h.created, COALESCE(h.updated, h.at), h.body FROM
     (SELECT max(seq) AS seq FROM history WHERE kind = $1 AND seq < $2 AND id > $3 GROUP BY id ORDER BY id LIMIT $4) m
     JOIN history h ON h.seq = m.seq",
);
pub(crate) static PAST_OF: Sql = Sql::new(
    "SELECT seq, actor, request_id, what, at, body FROM history
     WHERE kind = $1 AND id = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4",
);
/// The last column is 1 where the row before of the same document is no deletion.
pub(crate) static PAST_SINCE: Sql = Sql::new(
    "SELECT h.seq, h.kind, h.id, h.project_id, h.created, COALESCE(h.updated, h.at), h.body,
     COALESCE((SELECT CASE WHEN p.body IS NULL THEN CAST(0 AS BIGINT) ELSE CAST(1 AS BIGINT) END FROM history p
               WHERE p.kind = h.kind AND p.id = h.id AND p.seq < h.seq ORDER BY p.seq DESC LIMIT 1), 0)
     FROM history h WHERE h.seq >= $1 AND h.seq < $2 AND h.kind <> '#ledger' ORDER BY h.seq LIMIT $3",
);
/// What has rows from $1 on, $2 of them.
pub(crate) static PAST_MOVED: Sql = Sql::new("SELECT kind, id FROM history WHERE seq >= $1 ORDER BY seq LIMIT $2");
pub(crate) static PAST_AT: Sql = Sql::new("SELECT seq, at FROM history WHERE seq >= $1 ORDER BY seq LIMIT 1");
pub(crate) static PAST_LAST: Sql = Sql::new("SELECT seq, at FROM history ORDER BY seq DESC LIMIT 1");
pub(crate) static PAST_BEFORE: Sql = Sql::new("SELECT seq, at FROM history WHERE seq < $1 ORDER BY seq DESC LIMIT 1");
pub(crate) static PAST_REQUEST: Sql = Sql::new("SELECT request_id, COALESCE(updated, at) FROM history WHERE seq = $1");
/// The revisions of a request, and what each charged.
pub(crate) static REQUEST: Sql =
    Sql::new("SELECT rev, charged FROM request WHERE request_id = $1 ORDER BY rev LIMIT $2");
pub(crate) static REQUEST_TRIM: Sql = Sql::new("DELETE FROM request WHERE rev < $1");
/// The rows of one revision: who, what, when, and each document.
pub(crate) static PAST_REV: Sql = Sql::new(
    "SELECT seq, kind, id, project_id, at, body, actor, what FROM history WHERE seq >= $1 AND seq < $2
     AND kind <> '#ledger' ORDER BY seq",
);
/// Where the next $3 rows from $1 on and below $2 end.
pub(crate) static PAST_WINDOW: Sql =
    Sql::new("SELECT max(seq) FROM (SELECT seq FROM history WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT $3) w");
/// Deletes from $1 to $2 what is not the newest row below $3 of a document that lives there.
pub(crate) static PAST_TRIM: Sql = Sql::new(
    "DELETE FROM history WHERE seq IN (SELECT h.seq FROM history h WHERE h.seq >= $1 AND h.seq <= $2
       AND (h.body IS NULL OR EXISTS
            (SELECT 1 FROM history n WHERE n.kind = h.kind AND n.id = h.id AND n.seq > h.seq AND n.seq < $3)))",
);

pub(crate) static LEASE_TAKE: Sql = Sql::new(
    "INSERT INTO lease(name, owner, until) VALUES($1, $2, $3)
     ON CONFLICT(name) DO UPDATE SET owner = excluded.owner, until = excluded.until
     WHERE lease.owner = excluded.owner OR lease.until <= $4",
);
pub(crate) static LEASE_DROP: Sql = Sql::new("DELETE FROM lease WHERE name = $1 AND owner = $2");

pub(crate) static DROP_INDEXES: Sql = Sql::new("DELETE FROM index_entry WHERE kind = $1");
pub(crate) static DROP_UNIQUES: Sql = Sql::new("DELETE FROM unique_entry WHERE kind = $1");

pub(crate) static SQLITE_VERSION: Sql = Sql::new("SELECT sqlite_version()");
pub(crate) static SQLITE_SIZE: Sql =
    Sql::new("SELECT c.page_count * s.page_size FROM pragma_page_count() c, pragma_page_size() s");
pub(crate) static POSTGRES_VERSION: Sql = Sql::new("SELECT current_setting('server_version')");
pub(crate) static POSTGRES_SIZE: Sql = Sql::new("SELECT pg_database_size(current_database())");

/// What fsck looks at, and mends.
pub(crate) static CHECK_KINDS: Sql = Sql::new("SELECT DISTINCT kind FROM document");
pub(crate) static CHECK_INDEXES: Sql = Sql::new("SELECT name, value, sort, id FROM index_entry WHERE kind = $1");
pub(crate) static CHECK_UNIQUES: Sql = Sql::new("SELECT name, value, id FROM unique_entry WHERE kind = $1");
pub(crate) static CHECK_PAST: Sql = Sql::new(
    "SELECT h.id, h.seq, h.project_id, h.created, COALESCE(h.updated, h.at), h.body FROM history h WHERE h.kind = $1
     AND h.seq = (SELECT MAX(n.seq) FROM history n WHERE n.kind = h.kind AND n.id = h.id)",
);
pub(crate) static CHECK_PAST_ONE: Sql = Sql::new(
    "SELECT id, seq, project_id, created, COALESCE(updated, at), body FROM history WHERE kind = $1 AND id = $2
     ORDER BY seq DESC LIMIT 1",
);
pub(crate) static MEND_DOCUMENT: Sql = Sql::new("DELETE FROM document WHERE kind = $1 AND id = $2");
pub(crate) static MEND_INDEXES: Sql = Sql::new("DELETE FROM index_entry WHERE kind = $1 AND id = $2");
pub(crate) static MEND_UNIQUES: Sql = Sql::new("DELETE FROM unique_entry WHERE kind = $1 AND id = $2");
pub(crate) static MEND_CLAIM: Sql = Sql::new("DELETE FROM unique_entry WHERE kind = $1 AND name = $2 AND value = $3");

use Column::{Int, Text};

/// PostgreSQL's form of a statement that might touch fewer rows than it was given: their number comes as a last value,
/// and if another number was touched the statement fails (nothing can be divided by 0), and the transaction with it. So
/// nobody has to hear of the rows before the COMMIT is sent.
macro_rules! counted {
    ($statement:literal, $number:literal) => {
        concat!(
            "WITH done AS (",
            $statement,
            " RETURNING 1) SELECT 1 / (CASE WHEN count(*) = ",
            $number,
            "::bigint THEN 1 ELSE 0 END) FROM done"
        )
    };
}

pub(crate) static LEDGER_INSERT: Write = Write {
    sqlite: Sql::new("INSERT INTO ledger(scope, resource, used, lim) VALUES($1, $2, $3, $4)"),
    postgres: "INSERT INTO ledger(scope, resource, used, lim)
               SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])",
    columns: &[Text, Text, Int, Int],
    counted: false,
    missed: "a ledger row appeared",
};
pub(crate) static LEDGER_UPDATE: Write = Write {
    sqlite: Sql::new("UPDATE ledger SET used = $3, lim = $4 WHERE scope = $1 AND resource = $2 AND used = $5"),
    postgres: counted!(
        "UPDATE ledger l SET used = n.used, lim = n.lim
               FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
                    AS n(scope, resource, used, lim, old)
               WHERE l.scope = n.scope AND l.resource = n.resource AND l.used = n.old",
        "$6"
    ),
    columns: &[Text, Text, Int, Int, Int],
    counted: true,
    missed: "a ledger row changed meanwhile",
};
pub(crate) static UNIQUE_DELETE: Write = Write {
    sqlite: Sql::new("DELETE FROM unique_entry WHERE kind = $1 AND name = $2 AND value = $3 AND id = $4"),
    postgres: counted!(
        "DELETE FROM unique_entry u USING unnest($1::text[], $2::text[], $3::text[], $4::text[])
                    AS n(kind, name, value, id)
               WHERE u.kind = n.kind AND u.name = n.name AND u.value = n.value AND u.id = n.id",
        "$5"
    ),
    columns: &[Text, Text, Text, Text],
    counted: true,
    missed: "a unique entry is missing: keys() changed without INDEX_VERSION",
};
pub(crate) static UNIQUE_INSERT: Write = Write {
    sqlite: Sql::new("INSERT INTO unique_entry(kind, name, value, id) VALUES($1, $2, $3, $4)"),
    postgres: "INSERT INTO unique_entry(kind, name, value, id)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])",
    columns: &[Text, Text, Text, Text],
    counted: false,
    missed: "a unique entry appeared",
};
pub(crate) static INDEX_DELETE: Write = Write {
    sqlite: Sql::new("DELETE FROM index_entry WHERE kind = $1 AND name = $2 AND value = $3 AND sort = $4 AND id = $5"),
    postgres: counted!(
        "DELETE FROM index_entry i USING unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
                    AS n(kind, name, value, sort, id)
               WHERE i.kind = n.kind AND i.name = n.name AND i.value = n.value AND i.sort = n.sort AND i.id = n.id",
        "$6"
    ),
    columns: &[Text, Text, Text, Int, Text],
    counted: true,
    missed: "an index entry is missing: keys() changed without INDEX_VERSION",
};
pub(crate) static INDEX_INSERT: Write = Write {
    sqlite: Sql::new("INSERT INTO index_entry(kind, name, value, sort, id) VALUES($1, $2, $3, $4, $5)"),
    postgres: "INSERT INTO index_entry(kind, name, value, sort, id)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])",
    columns: &[Text, Text, Text, Int, Text],
    counted: false,
    missed: "an index entry appeared",
};
pub(crate) static DOCUMENT_DELETE: Write = Write {
    sqlite: Sql::new("DELETE FROM document WHERE kind = $1 AND id = $2 AND rev = $3"),
    postgres: counted!(
        "DELETE FROM document d USING unnest($1::text[], $2::text[], $3::bigint[]) AS n(kind, id, rev)
               WHERE d.kind = n.kind AND d.id = n.id AND d.rev = n.rev",
        "$4"
    ),
    columns: &[Text, Text, Int],
    counted: true,
    missed: "a document changed meanwhile",
};
pub(crate) static DOCUMENT_UPDATE: Write = Write {
    sqlite: Sql::new(
        "UPDATE document SET project_id = $3, rev = $4, created = $5, updated = $6, body = $7
         WHERE kind = $1 AND id = $2 AND rev = $8",
    ),
    postgres: counted!(
        "UPDATE document d SET project_id = n.project_id, rev = n.rev, created = n.created,
                      updated = n.updated, body = n.body
               FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                           $7::text[], $8::bigint[]) AS n(kind, id, project_id, rev, created, updated, body, old)
               WHERE d.kind = n.kind AND d.id = n.id AND d.rev = n.old",
        "$9"
    ),
    columns: &[Text, Text, Text, Int, Int, Int, Text, Int],
    counted: true,
    missed: "a document changed meanwhile",
};
pub(crate) static DOCUMENT_INSERT: Write = Write {
    sqlite: Sql::new(
        "INSERT INTO document(kind, id, project_id, rev, created, updated, body) VALUES($1, $2, $3, $4, $5, $6, $7)",
    ),
    postgres: "INSERT INTO document(kind, id, project_id, rev, created, updated, body)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                                    $7::text[])",
    columns: &[Text, Text, Text, Int, Int, Int, Text],
    counted: false,
    missed: "a document appeared",
};
pub(crate) static HISTORY_INSERT: Write = Write {
    sqlite: Sql::new(
        "INSERT INTO history(seq, kind, id, project_id, created, actor, request_id, what, at, body, updated)
         VALUES($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    ),
    postgres: "INSERT INTO history(seq, kind, id, project_id, created, actor, request_id, what, at, body, updated)
               SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[],
                                    $7::text[], $8::text[], $9::bigint[], $10::text[], $11::bigint[])",
    columns: &[Int, Text, Text, Text, Int, Text, Text, Text, Int, Text, Int],
    counted: false,
    missed: "a history row appeared",
};
/// What a request has to do with a revision; its documents stand in history.
pub(crate) static REQUEST_INSERT: Write = Write {
    sqlite: Sql::new("INSERT INTO request(rev, request_id, charged) VALUES($1, $2, $3)"),
    postgres: "INSERT INTO request(rev, request_id, charged)
               SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])",
    columns: &[Int, Text, Text],
    counted: false,
    missed: "a request's row appeared",
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What requests ask, over and over.
    pub(crate) fn everyday() -> Vec<&'static Sql> {
        let lists = LIST_ALL.iter().chain(&LIST_PROJECT).chain(&LIST_INDEX);
        let single = [&GET, &GET_UNIQUE, &OWNER, &META, &USAGE, &USAGES, &COUNT_ALL, &COUNT_PROJECT, &COUNT_INDEX];
        let past = [
            &REQUEST,
            &REQUEST_TRIM,
            &PAST_REV,
            &PAST_GET,
            &PAST_OF,
            &PAST_SINCE,
            &PAST_AT,
            &PAST_BEFORE,
            &PAST_REQUEST,
            &PAST_TRIM,
            &PAST_COUNT_ALL,
            &PAST_PAGE,
        ];
        lists.chain(single).chain(past).chain(PAST_ALL.iter().chain(&PAST_PROJECT)).collect()
    }

    /// Writes that have to find their rows.
    pub(crate) fn searching() -> [&'static Write; 5] {
        [&LEDGER_UPDATE, &UNIQUE_DELETE, &INDEX_DELETE, &DOCUMENT_DELETE, &DOCUMENT_UPDATE]
    }

    /// Lists of the past sort what they found.
    pub(crate) fn sorts(sql: &Sql) -> bool {
        PAST_ALL.iter().chain(&PAST_PROJECT).any(|past| std::ptr::eq(past, sql))
    }

    /// The trap itself: `$n` in any order but the first appearance is bound wrongly by SQLite, without an error.
    #[test]
    fn sqlite_binds_numbers_and_not_names() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        let sql = Sql::new("SELECT $2 || '-' || $1 || '-' || $2");
        let row: String = conn.query_row(sql.sqlite(), ["one", "two"], |row| row.get(0)).unwrap();
        assert_eq!(row, "two-one-two");
        let raw: String = conn.query_row(sql.postgres(), ["one", "two"], |row| row.get(0)).unwrap();
        assert_eq!(raw, "one-two-one", "SQLite now numbers $n as PostgreSQL does: the translation can go");
    }

    /// No statement of every day walks through a table or sorts: each has an index in its own order.
    #[test]
    fn every_statement_searches_an_index() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch(&crate::schema::sqlite()).unwrap();
        for sql in everyday().into_iter().chain(searching().map(|write| &write.sqlite)) {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", sql.sqlite())).unwrap();
            let count = explain.parameter_count();
            let rows = explain.query_map(rusqlite::params_from_iter(vec![0; count]), |row| row.get(3)).unwrap();
            let plan: Vec<String> = rows.map(Result::unwrap).collect();
            let plan = plan.join("; ");
            assert!(plan.contains("SEARCH"), "{}: {plan}", sql.text);
            assert!(sorts(sql) || !plan.contains("TEMP B-TREE"), "{}: {plan}", sql.text);
            // What stands in a list of its own (m) may be walked through.
            assert!(!plan.replace("SCAN m", "").contains("SCAN"), "{}: {plan}", sql.text);
        }
    }

    #[test]
    fn every_multi_row_statement_has_one_array_per_column() {
        for write in [
            &LEDGER_INSERT,
            &LEDGER_UPDATE,
            &UNIQUE_DELETE,
            &UNIQUE_INSERT,
            &INDEX_DELETE,
            &INDEX_INSERT,
            &DOCUMENT_DELETE,
            &DOCUMENT_UPDATE,
            &DOCUMENT_INSERT,
            &HISTORY_INSERT,
            &REQUEST_INSERT,
        ] {
            for (n, column) in write.columns.iter().enumerate() {
                let array = format!("${}::{}[]", n + 1, if *column == Column::Text { "text" } else { "bigint" });
                assert!(write.postgres.contains(&array), "{array} in {}", write.postgres);
                assert!(write.sqlite.text.contains(&format!("${}", n + 1)), "${} in {}", n + 1, write.sqlite.text);
            }
        }
    }
}
