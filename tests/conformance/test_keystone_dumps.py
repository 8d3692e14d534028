"""Two databases of a real Keystone, made a moment ago by `keystone-dump` in the folder NUBO_KEYSTONES, hold what the
committed ones hold. Ids, times, salts and keys are others each time; tables, columns, numbers of rows and what an import
makes of them are not."""

import contextlib
import json
import os
import pathlib
import re
import sqlite3

import lib
import pytest

COMMITTED = lib.ROOT / "tests" / "clients" / "keystone"
FILES = {"sqlite": "keystone.db", "mariadb": "keystone.sql"}


@pytest.fixture(scope="module")
def fresh():
    made = os.environ.get("NUBO_KEYSTONES")
    lib.require("keystone", made, "NUBO_KEYSTONES names no folder with what keystone-dump has made")
    return pathlib.Path(made)


def of_sqlite(path):
    """Of each table how it was made, its columns, and its number of rows."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        made = dict(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"))
        columns = {name: [row[1] for row in database.execute(f"PRAGMA table_info('{name}')")] for name in made}
        rows = {name: database.execute(f"SELECT count(*) FROM '{name}'").fetchone()[0] for name in made}
        (version,) = database.execute("SELECT group_concat(version_num) FROM (SELECT * FROM alembic_version ORDER BY 1)").fetchone()
    return made, columns, rows, version


def of_mariadb(path):
    text = path.read_text()
    found = re.findall(r"^CREATE TABLE `(\w+)` \(\n(.*?)^\)(.*?);$", text, re.MULTILINE | re.DOTALL)
    # Indexes are made in any order.
    made = {name: (sorted(body.replace(",\n", "\n").splitlines()), re.sub(r" AUTO_INCREMENT=\d+", "", end)) for name, body, end in found}
    columns = {name: re.findall(r"^  `(\w+)`", body, re.MULTILINE) for name, body, _ in found}
    rows = dict.fromkeys(made, 0)
    version = ""
    for name, values in re.findall(r"^INSERT INTO `(\w+)` VALUES\n?(.*?);$", text, re.MULTILINE | re.DOTALL):
        rows[name] += re.sub(r"'(?:[^'\\]|\\.)*'", "", values, flags=re.DOTALL).count("(")
        if name == "alembic_version":
            version = ",".join(sorted(re.findall(r"'(\w+)'", values)))
    return made, columns, rows, version


READERS = {"sqlite": of_sqlite, "mariadb": of_mariadb}


@pytest.mark.parametrize("kind", FILES)
def test_tables_columns_and_numbers_of_rows_are_the_committed_ones(fresh, kind):
    (made, columns, rows, version), committed = (READERS[kind](folder / kind / FILES[kind]) for folder in (fresh, COMMITTED))
    assert len(made) > 40 and sum(rows.values()) > 80, "both were read"
    for what, new, old in zip(("made by", "columns", "rows", "version"), (made, columns, rows, version), committed):
        assert new == old, what


def test_both_databases_hold_the_same(fresh):
    (_, columns, rows, version), (_, *other) = (READERS[kind](fresh / kind / FILES[kind]) for kind in FILES)
    assert {name: sorted(names) for name, names in columns.items()} == {name: sorted(names) for name, names in other[0].items()}
    assert rows == other[1]
    assert version == other[2]


def plain(value):
    """The value without ids, times, hashes and secrets."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted(map(plain, value), key=json.dumps)
    if isinstance(value, str):
        value = re.sub(r"\$2b\$04\$[./\w]{53}|gAAAAA[-\w=]+|^[-\w]{22}$", "SECRET", value)
        value = re.sub(r"\d{16}$", "TIME", value)
        return re.sub(r"[0-9a-f]{32,}", "ID", value)
    return "TIME" if isinstance(value, int) and value > 1_000_000_000_000_000 else value


def test_an_import_makes_the_same_of_all_four(fresh, tmp_path):
    running = lib.Simulated(hosts=1, NUBO_STATE=str(tmp_path))
    results = {}
    for name, folder in (("fresh", fresh), ("committed", COMMITTED)):
        for kind, file in FILES.items():
            keys = ["--credential-keys", folder / kind / "credential-keys", "--fernet-keys", folder / kind / "fernet-keys"]
            done = running.cloud.nubo("keystone", "import", folder / kind / file, *keys, "--rename=-keystone", "--catalog", "--dry-run")
            assert done.returncode == 0, done.stderr
            *left_out, answer = done.stdout.splitlines()
            results[name, kind] = (left_out, plain(json.loads(answer)["dry_run"]["changes"]))
    assert running.stop() == 0
    left_out, changes = results["committed", "sqlite"]
    assert left_out == ["left out: 1 request_token"]
    assert len([change for change in changes if change["kind"] == "user"]) == 5
    for which, result in results.items():
        assert result[0] == left_out, which
        assert result[1] == changes, which
    facts = [plain(json.loads((folder / kind / "facts.json").read_text())) for folder in (fresh, COMMITTED) for kind in FILES]
    assert all(one == facts[0] for one in facts)
