//! The tables, written once for both engines.

/// Raised when the tables change; a store of a newer version is refused.
pub(crate) const VERSION: i64 = 2;

/// What makes tables of version 1 ones of version 2: history knows what a document that came back said of its times.
pub(crate) const FROM_1: &str = "ALTER TABLE history ADD COLUMN updated BIGINT";

/// `{c}` orders text by bytes on PostgreSQL, `{wr}` saves SQLite a B-tree, `{key}` is SQLite's row number. `{room}` leaves
/// room for the next version of a row on its own page of PostgreSQL: without it each change of a document writes three
/// index entries, too, and a list of documents that have changed reads many times the pages until a vacuum.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta(name TEXT{c} PRIMARY KEY, value BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS document(kind TEXT{c} NOT NULL, id TEXT{c} NOT NULL, project_id TEXT{c} NOT NULL,
  rev BIGINT NOT NULL, created BIGINT NOT NULL, updated BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY(kind, id)){room};
CREATE INDEX IF NOT EXISTS document_order ON document(kind, created, id);
CREATE INDEX IF NOT EXISTS document_project ON document(kind, project_id, created, id) WHERE project_id <> '';
CREATE TABLE IF NOT EXISTS index_entry(kind TEXT{c} NOT NULL, name TEXT{c} NOT NULL, value TEXT{c} NOT NULL,
  sort BIGINT NOT NULL, id TEXT{c} NOT NULL, PRIMARY KEY(kind, name, value, sort, id)){wr};
CREATE TABLE IF NOT EXISTS unique_entry(kind TEXT{c} NOT NULL, name TEXT{c} NOT NULL, value TEXT{c} NOT NULL,
  id TEXT{c} NOT NULL, PRIMARY KEY(kind, name, value)){wr};
CREATE TABLE IF NOT EXISTS history(seq {key} PRIMARY KEY, kind TEXT{c} NOT NULL, id TEXT{c} NOT NULL,
  project_id TEXT{c} NOT NULL, created BIGINT NOT NULL, actor TEXT{c} NOT NULL, request_id TEXT{c} NOT NULL,
  what TEXT{c} NOT NULL, at BIGINT NOT NULL, body TEXT, updated BIGINT);
CREATE INDEX IF NOT EXISTS history_doc ON history(kind, id, seq);
CREATE INDEX IF NOT EXISTS history_project ON history(kind, project_id, id, seq) WHERE project_id <> '';
CREATE TABLE IF NOT EXISTS ledger(scope TEXT{c} NOT NULL, resource TEXT{c} NOT NULL, used BIGINT NOT NULL,
  lim BIGINT, PRIMARY KEY(scope, resource)){wr}{room};
CREATE TABLE IF NOT EXISTS request(rev {key} PRIMARY KEY, request_id TEXT{c} NOT NULL, charged TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS request_id ON request(request_id, rev);
CREATE TABLE IF NOT EXISTS lease(name TEXT{c} PRIMARY KEY, owner TEXT{c} NOT NULL, until BIGINT NOT NULL);
INSERT INTO meta(name, value) VALUES('rev', 0) ON CONFLICT(name) DO NOTHING;
INSERT INTO meta(name, value) VALUES('trim', 0) ON CONFLICT(name) DO NOTHING;
";

pub(crate) fn sqlite() -> String {
    TABLES.replace("{c}", "").replace("{wr}", " WITHOUT ROWID").replace("{room}", "").replace("{key}", "INTEGER")
}

pub(crate) fn postgres() -> String {
    let tables = TABLES.replace("{c}", " COLLATE \"C\"").replace("{wr}", "").replace("{key}", "BIGINT");
    tables.replace("{room}", " WITH (fillfactor = 50)")
}
