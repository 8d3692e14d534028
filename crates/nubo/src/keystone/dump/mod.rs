//! Reads what `mariadb-dump` or `mysqldump` wrote of a Keystone's database into a database in memory.
//!
//! Only the tables that are asked for are kept; the rows of others are counted. The text is nobody's we know: its size,
//! lines, statements, tables, columns, rows and values have bounds, and what is not understood ends the reading with the
//! number of its line. Nothing of it is ever run as SQL here: names are quoted and values are bound.
//!
//! ```text
//! SET …; USE `x`; DROP TABLE …; LOCK TABLES …;       passed over
//! CREATE TABLE `t` ( `a` …, KEY …, … ) …;            the names of the columns
//! INSERT INTO `t` [(`a`, …)] VALUES (…), (…);        rows
//! ```

mod lexer;

use anyhow::{Context, Result, bail};
use lexer::{Lexer, Token};
use rusqlite::Connection;
use rusqlite::types::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The largest dump.
pub(super) const FILE_BYTES: u64 = 512 << 20;
const STATEMENTS: usize = 1_000_000;
const TABLES: usize = 4096;
const COLUMNS: usize = 256;
/// The most rows that are kept.
const ROWS: usize = 2_000_000;

/// The modes of a server in which text reads otherwise than here.
const MODES: [&str; 8] =
    ["ANSI", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL"];

/// What was read.
pub(super) struct Loaded {
    pub connection: Connection,
    /// Rows of tables that were not asked for.
    pub skipped: BTreeMap<String, usize>,
}

/// Begins as a dump does.
pub(super) fn looks_like(head: &[u8]) -> bool {
    let head = head.trim_ascii_start();
    ["--", "/*", "SET ", "CREATE ", "DROP ", "USE "].iter().any(|start| head.starts_with(start.as_bytes()))
}

/// Reads a dump and keeps the tables that are wanted.
pub(super) fn load(text: &[u8], wanted: &[&str]) -> Result<Loaded> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch("BEGIN")?;
    let mut reader = Reader {
        lexer: Lexer::new(text),
        wanted: wanted.iter().copied().collect(),
        database: None,
        columns: BTreeMap::new(),
        skipped: BTreeMap::new(),
        rows: 0,
        connection: &connection,
    };
    let read = reader.all();
    let (line, skipped) = (reader.lexer.line, std::mem::take(&mut reader.skipped));
    drop(reader);
    read.with_context(|| format!("line {line} of the dump"))?;
    connection.execute_batch("COMMIT")?;
    Ok(Loaded { connection, skipped })
}

struct Reader<'a> {
    lexer: Lexer<'a>,
    wanted: BTreeSet<&'a str>,
    /// What `USE` named.
    database: Option<String>,
    /// Of each table that was created.
    columns: BTreeMap<String, Vec<String>>,
    skipped: BTreeMap<String, usize>,
    rows: usize,
    connection: &'a Connection,
}

impl<'a> Reader<'a> {
    fn all(&mut self) -> Result<()> {
        for _ in 0..STATEMENTS {
            let first = self.lexer.next()?;
            match &first {
                Token::End => return Ok(()),
                Token::Mark(b';') => continue,
                Token::Word(word) => self.statement(&word.to_ascii_uppercase())?,
                other => bail!("{} begins no statement", other.shown()),
            }
        }
        bail!("it has more than {STATEMENTS} statements")
    }

    fn statement(&mut self, verb: &str) -> Result<()> {
        match verb {
            "SET" => self.set(),
            "USE" => self.choose(),
            "CREATE" => self.create(),
            "DROP" => self.discard(),
            "ALTER" => self.alter(),
            "INSERT" => self.insert(),
            "LOCK" | "UNLOCK" | "COMMIT" | "BEGIN" | "START" => self.rest(),
            _ => bail!(
                "'{}' begins no statement that is understood here; a dump has tables alone (--skip-triggers, without \
                 --routines and --events)",
                verb.chars().take(40).collect::<String>()
            ),
        }
    }

    /// To the end of the statement.
    fn rest(&mut self) -> Result<()> {
        loop {
            match self.lexer.next()? {
                Token::Mark(b';') => return Ok(()),
                Token::End => bail!("the statement does not end"),
                _ => {}
            }
        }
    }

    fn mark(&mut self, wanted: u8) -> Result<()> {
        match self.lexer.next()? {
            Token::Mark(found) if found == wanted => Ok(()),
            other => bail!("'{}' is expected, and {} stands there", char::from(wanted), other.shown()),
        }
    }

    fn named(&mut self, token: Token) -> Result<String> {
        match token {
            Token::Name(name) => Ok(name),
            other => bail!("a name in backticks is expected, and {} stands there", other.shown()),
        }
    }

    /// What makes texts mean something else is refused; anything else that is set has no effect on them.
    fn set(&mut self) -> Result<()> {
        let mut names = false;
        loop {
            let token = self.lexer.next()?;
            let word = match &token {
                Token::Mark(b';') => return Ok(()),
                Token::End => bail!("the statement does not end"),
                Token::Word(word) => (*word).to_owned(),
                Token::Text(text) => String::from_utf8_lossy(text).into_owned(),
                _ => continue,
            };
            let upper = word.to_ascii_uppercase();
            if names && !["UTF8", "UTF8MB3", "UTF8MB4"].contains(&upper.as_str()) {
                bail!("the dump is in the character set '{word}'; it is to be in utf8mb4");
            }
            names = upper == "NAMES";
            if let Some(mode) = upper.split(',').find(|mode| MODES.contains(&mode.trim())) {
                bail!("the mode {mode} of the server is not understood here");
            }
        }
    }

    fn choose(&mut self) -> Result<()> {
        let token = self.lexer.next()?;
        let name = self.named(token)?;
        if self.database.as_ref().is_some_and(|known| *known != name) {
            bail!("the dump has several databases; it is to have that of Keystone alone");
        }
        self.database = Some(name);
        self.mark(b';')
    }

    fn discard(&mut self) -> Result<()> {
        let mut tables = false;
        loop {
            match self.lexer.next()? {
                Token::Mark(b';') => return Ok(()),
                Token::End => bail!("the statement does not end"),
                Token::Name(name) if tables && self.columns.contains_key(&name) => {
                    bail!("the table `{name}` is dropped after it was made");
                }
                token => tables |= token.is("TABLE"),
            }
        }
    }

    /// `ALTER TABLE x DISABLE KEYS` alone.
    fn alter(&mut self) -> Result<()> {
        let first = self.lexer.next()?;
        if first.is("DATABASE") {
            return self.rest();
        }
        let name = self.lexer.next()?;
        let (switch, keys) = (self.lexer.next()?, self.lexer.next()?);
        let known = first.is("TABLE") && (switch.is("DISABLE") || switch.is("ENABLE")) && keys.is("KEYS");
        if !known {
            bail!("ALTER of {} is not understood here", name.shown());
        }
        self.mark(b';')
    }

    fn create(&mut self) -> Result<()> {
        let kind = self.lexer.next()?;
        if kind.is("DATABASE") || kind.is("SCHEMA") {
            return self.rest();
        }
        if !kind.is("TABLE") {
            bail!("CREATE {} is not understood here; a dump has tables alone", kind.shown());
        }
        let mut token = self.lexer.next()?;
        for word in ["IF", "NOT", "EXISTS"] {
            if token.is(word) {
                token = self.lexer.next()?;
            }
        }
        let name = self.named(token)?;
        if self.columns.contains_key(&name) {
            bail!("the table `{name}` is made twice");
        }
        if self.columns.len() >= TABLES {
            bail!("there are more than {TABLES} tables");
        }
        self.mark(b'(')?;
        let columns = self.definitions().with_context(|| format!("the table `{name}`"))?;
        if self.wanted.contains(name.as_str()) {
            let all: Vec<String> = columns.iter().map(|column| quote(column)).collect();
            // Without types values stay what they are.
            let sql = format!("CREATE TABLE {} ({})", quote(&name), all.join(", "));
            self.connection.execute(&sql, []).with_context(|| format!("the table `{name}`"))?;
        }
        self.columns.insert(name, columns);
        self.rest()
    }

    /// The names of the columns, up to the closing parenthesis.
    fn definitions(&mut self) -> Result<Vec<String>> {
        const KEYS: [&str; 9] =
            ["PRIMARY", "UNIQUE", "KEY", "INDEX", "CONSTRAINT", "FOREIGN", "FULLTEXT", "SPATIAL", "CHECK"];
        let mut columns = Vec::new();
        loop {
            match self.lexer.next()? {
                Token::Name(name) => columns.push(name),
                token if KEYS.iter().any(|word| token.is(word)) => {}
                other => bail!("a column in backticks or a key is expected, and {} stands there", other.shown()),
            }
            if columns.len() > COLUMNS {
                bail!("it has more than {COLUMNS} columns");
            }
            let mut depth = 0usize;
            loop {
                match self.lexer.next()? {
                    Token::Mark(b'(') => depth += 1,
                    Token::Mark(b')') if depth > 0 => depth -= 1,
                    Token::Mark(b')') if columns.is_empty() => bail!("it has no columns"),
                    Token::Mark(b')') => return Ok(columns),
                    Token::Mark(b',') if depth == 0 => break,
                    Token::Mark(b';') | Token::End => bail!("the statement does not end"),
                    _ => {}
                }
            }
        }
    }

    fn insert(&mut self) -> Result<()> {
        let mut token = self.lexer.next()?;
        for word in ["IGNORE", "INTO"] {
            if token.is(word) {
                token = self.lexer.next()?;
            }
        }
        let table = self.named(token)?;
        let Some(known) = self.columns.get(&table).cloned() else {
            bail!(
                "rows of the table `{table}` stand before the table; the dump is to have both (without --no-create-info)"
            );
        };
        let mut token = self.lexer.next()?;
        let mut columns = known.clone();
        if token == Token::Mark(b'(') {
            columns = self.list(&known).with_context(|| format!("the table `{table}`"))?;
            token = self.lexer.next()?;
        }
        if !token.is("VALUES") && !token.is("VALUE") {
            bail!("VALUES is expected, and {} stands there", token.shown());
        }
        if !self.wanted.contains(table.as_str()) {
            let rows = self.count()?;
            *self.skipped.entry(table).or_default() += rows;
            return Ok(());
        }
        let names: Vec<String> = columns.iter().map(|column| quote(column)).collect();
        let marks = vec!["?"; columns.len()].join(", ");
        let sql = format!("INSERT INTO {} ({}) VALUES ({marks})", quote(&table), names.join(", "));
        let connection = self.connection;
        let mut statement = connection.prepare_cached(&sql).with_context(|| format!("the table `{table}`"))?;
        loop {
            let row = self.row(columns.len()).with_context(|| format!("the table `{table}`"))?;
            self.rows += 1;
            if self.rows > ROWS {
                bail!("there are more than {ROWS} rows");
            }
            statement.execute(rusqlite::params_from_iter(row))?;
            match self.lexer.next()? {
                Token::Mark(b',') => {}
                Token::Mark(b';') => return Ok(()),
                other => bail!("',' or ';' is expected behind a row, and {} stands there", other.shown()),
            }
        }
    }

    /// The columns that a statement names, each once.
    fn list(&mut self, known: &[String]) -> Result<Vec<String>> {
        let mut columns = Vec::new();
        loop {
            let token = self.lexer.next()?;
            let name = self.named(token)?;
            if !known.contains(&name) || columns.contains(&name) {
                bail!("`{name}` is no column of it, or comes twice");
            }
            columns.push(name);
            match self.lexer.next()? {
                Token::Mark(b',') => {}
                Token::Mark(b')') => return Ok(columns),
                other => bail!("',' or ')' is expected, and {} stands there", other.shown()),
            }
        }
    }

    /// The rows of a statement that nobody reads.
    fn count(&mut self) -> Result<usize> {
        let (mut rows, mut depth) = (0, 0usize);
        loop {
            match self.lexer.next()? {
                Token::Mark(b'(') => {
                    rows += usize::from(depth == 0);
                    depth += 1;
                }
                Token::Mark(b')') => depth = depth.checked_sub(1).context("')' closes nothing")?,
                Token::Mark(b';') if depth == 0 => return Ok(rows),
                Token::Mark(b';') | Token::End => bail!("the statement does not end"),
                _ => {}
            }
        }
    }

    fn row(&mut self, columns: usize) -> Result<Vec<Value>> {
        self.mark(b'(')?;
        let mut row = Vec::with_capacity(columns);
        loop {
            row.push(self.value()?);
            match self.lexer.next()? {
                Token::Mark(b',') if row.len() < columns => {}
                Token::Mark(b')') if row.len() == columns => return Ok(row),
                Token::Mark(b',' | b')') => bail!("a row has not the {columns} values of its columns"),
                other => bail!("',' or ')' is expected behind a value, and {} stands there", other.shown()),
            }
        }
    }

    fn value(&mut self) -> Result<Value> {
        let mut token = self.lexer.next()?;
        if ["_binary", "_utf8", "_utf8mb3", "_utf8mb4"].iter().any(|set| token.is(set)) {
            token = self.lexer.next()?;
            if !matches!(token, Token::Text(_) | Token::Bytes(_)) {
                bail!("a text is expected, and {} stands there", token.shown());
            }
        }
        match token {
            Token::Text(bytes) | Token::Bytes(bytes) => {
                Ok(Value::Text(String::from_utf8(bytes).ok().context("a value is not UTF-8")?))
            }
            Token::Number(text) => number(text).context("a number is none, or too large"),
            token if token.is("NULL") => Ok(Value::Null),
            token if token.is("TRUE") => Ok(Value::Integer(1)),
            token if token.is("FALSE") => Ok(Value::Integer(0)),
            other => bail!("a value is expected, and {} stands there", other.shown()),
        }
    }
}

fn number(text: &str) -> Option<Value> {
    match text.parse::<i64>() {
        Ok(whole) => Some(Value::Integer(whole)),
        Err(_) if text.contains(['.', 'e', 'E']) => {
            text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Real)
        }
        Err(_) => None,
    }
}

/// A name in SQLite's quotes. No name has U+0000.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests;
