"""A real Keystone's database is taken over, from SQLite and from MariaDB: `tests/conformance/keystone-dump DIR [--mariadb]`
made the folders in `keystone` beside this file. Their tokens have ended long since; crates/identity holds that tokens of
one validate on the other."""

import contextlib
import gzip
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import sqlite3

import lib
import pytest
import requests

# Others that were made a moment ago serve as well.
HERE = pathlib.Path(os.environ.get("NUBO_KEYSTONES", pathlib.Path(__file__).parent / "keystone"))
LOCKOUT = """
[security_compliance]
lockout_failure_attempts = 3
lockout_duration = 2000000000
"""


class Keystone:
    """What one of them was, and a fresh cloud that takes it over."""

    def __init__(self, kind, cloud):
        self.folder, self.cloud = HERE / kind, cloud
        self.database = self.folder / {"sqlite": "keystone.db", "mariadb": "keystone.sql"}[kind]
        self.facts = json.loads((self.folder / "facts.json").read_text())


def simulated(folder, settings):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    (folder / "nubo.toml").write_text(settings)
    return lib.Simulated(hosts=1, NUBO_STATE=str(folder))


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def keystone(request, tmp_path_factory):
    running = simulated(tmp_path_factory.mktemp("state"), LOCKOUT)
    yield Keystone(request.param, running.cloud)
    assert running.stop() == 0


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    running = simulated(tmp_path_factory.mktemp("state"), LOCKOUT)
    yield running.cloud
    assert running.stop() == 0


def login(cloud, user, password, domain, scope=None):
    who = {"name": user, "domain": {"id": domain}, "password": password}
    auth = {"identity": {"methods": ["password"], "password": {"user": who}}}
    if scope:
        auth["scope"] = scope
    return requests.post(cloud.url + "/identity/v3/auth/tokens", json={"auth": auth})


def test_users_of_a_keystone_keep_their_passwords_and_rights(keystone):
    cloud, database, facts = keystone.cloud, keystone.database, keystone.facts
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    words = ["keystone", "import", database, "--credential-keys", keystone.folder / "credential-keys"]
    refused = cloud.nubo(*words)
    assert refused.returncode != 0 and "project admin" in refused.stderr and "user admin" in refused.stderr, refused.stderr
    corp, users, roles = facts["domain"], facts["users"], facts["roles"]
    assert login(cloud, "ada", "ada-second", corp).status_code == 401, "nothing was imported"
    words += ["--rename=-keystone", "--fernet-keys", keystone.folder / "fernet-keys"]
    planned = cloud.nubo(*words, "--dry-run")
    assert planned.returncode == 0 and login(cloud, "ada", "ada-second", corp).status_code == 401, planned.stderr
    done = cloud.nubo(*words)
    assert done.returncode == 0, done.stderr
    assert "renamed: admin is admin-keystone" in done.stdout and "keys verify tokens now" in done.stdout
    left_out = {line for line in done.stdout.splitlines() if line.startswith("left out")}
    assert left_out == {f"left out: {n} {what}" for n, what in (
        (2, "service"), (2, "endpoint"), (1, "endpoint_group"), (1, "policy_association"), (1, "project_endpoint"),
        (1, "project_endpoint_group"), (1, "request_token"))}, "all that is not taken over is named"
    again = cloud.nubo(*words)
    assert again.returncode == 0 and " user" not in again.stdout.replace("renamed", ""), again.stdout + again.stderr
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before, "the file is only read"

    token = login(cloud, "ada", "ada-second", corp, {"project": {"id": facts["projects"]["web"]}})
    assert token.status_code == 201, token.text
    body = token.json()["token"]
    assert body["user"]["id"] == users["ada"]
    assert {"member", "reader"} <= {role["name"] for role in body["roles"]}
    assert [entry["id"] for entry in body["service_providers"]] == ["other"]
    below = login(cloud, "ada", "ada-second", corp, {"project": {"id": facts["projects"]["below"]}}).json()["token"]
    assert [role["name"] for role in below["roles"]] == ["reader"], "inherited by the group from the domain"
    domain = login(cloud, "ada", "ada-second", corp, {"domain": {"id": corp}}).json()["token"]
    assert "manager" in {role["name"] for role in domain["roles"]}
    assert login(cloud, "ada", "ada-first", corp).status_code == 401
    assert login(cloud, "bob", "bob-first", corp).status_code == 401, "disabled there, disabled here"
    assert login(cloud, "mal", "mal-first", corp).status_code == 401, "locked there, locked here"
    eve = login(cloud, "eve", "eve-first", "default", {"project": {"id": facts["projects"]["lab"]}}).json()["token"]
    assert {role["name"] for role in eve["roles"]} == {"sailor", "reader"}
    assert login(cloud, "eve", "eve-first", "default", {"system": {"all": True}}).status_code == 201
    assert login(cloud, "admin-keystone", "keystone-admin", "default").status_code == 201

    credential = {"id": facts["application_credential"], "secret": "robot-secret"}
    robot = {"identity": {"methods": ["application_credential"], "application_credential": credential}}
    assert requests.post(cloud.url + "/identity/v3/auth/tokens", json={"auth": robot}).status_code == 201
    shown = cloud.json("ec2", "credentials", "list", "--user", users["eve"])
    assert [(row["Access"], row["Secret"]) for row in shown] == [(facts["ec2"]["access"], facts["ec2"]["secret"])]
    ada = cloud.json("user", "show", users["ada"])
    assert ada["email"] == "ada@corp" and ada["options"]["ignore_password_expiry"] is True
    assert set(cloud.json("project", "show", facts["projects"]["web"])["tags"]) == {"blue", "green"}
    assert cloud.json("project", "show", facts["projects"]["lab"])["description"] == facts["odd"]
    assert cloud.json("identity", "provider", "show", "idp")["remote_ids"] == ["https://idp"]
    assert cloud.json("role", "show", "sailor")["id"] == roles["sailor"]
    # The history came along: the password before cannot be chosen where it must be new; here it is only kept.
    assert requests.post(
        cloud.url + f"/identity/v3/users/{users['ada']}/password",
        json={"user": {"original_password": "ada-second", "password": "ada-third"}},
    ).status_code == 204
    assert login(cloud, "ada", "ada-third", corp).status_code == 201


def oauth_token(cloud, facts, secret):
    lib.require("clients", importlib.util.find_spec("oauthlib"), "no oauthlib")
    import oauthlib.oauth1

    client = oauthlib.oauth1.Client(
        facts["consumer"]["id"], client_secret=facts["consumer"]["secret"], resource_owner_key=facts["access_token"]["id"],
        resource_owner_secret=secret)
    url = cloud.url + "/identity/v3/auth/tokens"
    _, headers, _ = client.sign(url, "POST")
    return requests.post(url, headers=headers, json={"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}})


def test_the_rest_comes_along_and_the_catalog_when_asked(keystone):
    cloud, facts = keystone.cloud, keystone.facts
    (compute,) = [row["ID"] for row in cloud.json("service", "list") if row["Type"] == "compute"]
    for catalog in (False, True):
        done = cloud.nubo("keystone", "import", keystone.database, "--rename=-keystone", *["--catalog"] * catalog)
        assert done.returncode == 0, done.stderr
        assert "left out: 1 credential\n" in done.stdout, "their keys were not given"
        registered = cloud.json("registered", "limit", "show", facts["registered_limit"])
        assert (registered["service_id"], registered["region_id"], registered["default_limit"]) == (compute, "north", 10)
        limit = cloud.json("limit", "show", facts["limit"])
        assert (limit["project_id"], limit["resource_limit"]) == (facts["projects"]["web"], 3)
        assert ("left out: 1 service of the type identity" in done.stdout) == catalog, done.stdout
        assert (facts["endpoint"] in {row["ID"] for row in cloud.json("endpoint", "list")}) == catalog
    assert cloud.json("policy", "show", facts["policy"])["rules"] == '{"rule": "it\'s"}'
    identity = cloud.sdk().identity
    config = identity.get(f"/domains/{facts['domain']}/config").json()["config"]
    assert config == {"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://corp"}}
    groups = identity.get(f"/OS-EP-FILTER/projects/{facts['projects']['lab']}/endpoint_groups").json()
    assert [group["id"] for group in groups["endpoint_groups"]] == [facts["endpoint_group"]]
    seen = login(cloud, "ada", "ada-third", facts["domain"], {"project": {"id": facts["projects"]["web"]}}).json()["token"]
    assert [entry["id"] for entry in seen["catalog"]] == [facts["service"]], "its project was confined to that endpoint"

    lent = oauth_token(cloud, facts, facts["access_token"]["secret"])
    assert lent.status_code == 201, lent.text
    assert {role["name"] for role in lent.json()["token"]["roles"]} == {"sailor", "reader"}
    assert oauth_token(cloud, facts, "another").status_code == 401


def test_a_credential_keeps_what_restricts_it(keystone):
    cloud, facts = keystone.cloud, keystone.facts
    credential = {"id": facts["bound"], "secret": "bound-secret"}
    robot = {"identity": {"methods": ["application_credential"], "application_credential": credential}}
    answer = requests.post(cloud.url + "/identity/v3/auth/tokens", json={"auth": robot})
    assert answer.status_code == 201, answer.text
    (rule,) = answer.json()["token"]["application_credential"]["access_rules"]
    assert (rule["id"], rule["path"]) == (facts["rule"], "/v3/auth/projects")
    headers = {"X-Auth-Token": answer.headers["X-Subject-Token"], "OpenStack-Identity-Access-Rules": "1.0"}
    assert requests.get(cloud.url + "/identity/v3/auth/projects", headers=headers).status_code == 200
    assert requests.get(cloud.url + "/identity/v3/auth/catalog", headers=headers).status_code == 401


def test_what_would_lose_a_restriction_is_refused_or_named(cloud, tmp_path):
    facts = json.loads((HERE / "sqlite" / "facts.json").read_text())

    def changed(*statements):
        database = tmp_path / "keystone.db"
        shutil.copy(HERE / "sqlite" / "keystone.db", database)
        with contextlib.closing(sqlite3.connect(database)) as tables, tables:
            for statement in statements:
                tables.execute(statement)
        return cloud.nubo("keystone", "import", database, "--rename=-keystone")

    for statement, said in (
        ("DELETE FROM access_rule", "an access rule of application credential"),
        (f"INSERT INTO user_option VALUES ('{facts['users']['ada']}', 'MFAR', '[[')", "multi_factor_auth_rules"),
        ("UPDATE user SET extra = '{'", "a row of"),
        ("UPDATE revocation_event SET issued_before = 'some day'", "no date"),
        ("DROP TABLE access_rule", "this is no database of a Keystone"),
    ):
        refused = changed(statement)
        assert refused.returncode != 0 and said in refused.stderr, (statement, refused.stderr)
    assert login(cloud, "eve", "eve-first", "default").status_code == 401, "nothing was imported"
    done = changed(
        "INSERT INTO user VALUES ('far', '{}', 1, NULL, NULL, NULL, 'default')",
        "INSERT INTO nonlocal_user VALUES ('default', 'far', 'far')",
        "INSERT INTO id_mapping VALUES ('near', 'default', 'near', 'user'), ('crew', 'default', 'crew', 'group')",
        f"INSERT INTO id_mapping VALUES ('{facts['users']['ada']}', '{facts['domain']}', '{facts['users']['ada']}', 'user')",
        "INSERT INTO id_mapping VALUES ('lost', 'nowhere', 'lost', 'user')",
        f"INSERT INTO assignment VALUES ('GroupProject', 'crew', '{facts['projects']['lab']}', '{facts['roles']['reader']}', 0)",
        f"INSERT INTO assignment VALUES ('UserProject', 'far', '{facts['projects']['lab']}', '{facts['roles']['reader']}', 0)",
        f"INSERT INTO expiring_user_group_membership VALUES ('{facts['users']['eve']}', '{facts['group']}', 'idp', '2026-12-01 00:00:00')",
        "UPDATE identity_provider SET authorization_ttl = 50000000",
        "INSERT INTO registered_limit VALUES ('r', 'nowhere', NULL, 'x', 1, NULL, 99)",
        f"INSERT INTO user_option VALUES ('{facts['users']['ada']}', 'NEWS', 'true')",
        "INSERT INTO revocation_event (project_id, user_id, issued_before, revoked_at) VALUES "
        "('p', 'u', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
    )
    assert done.returncode == 0, done.stderr
    for line in ("1 user of a directory (LDAP) that id_mapping does not name", "1 id_mapping of a domain that is not there", "1 role_assignment of somebody, or to something, that is not here",
                 "1 registered_limit of a service that is not here", "1 user_option NEWS",
                 "2 service"):
        assert f"left out: {line}\n" in done.stdout, (line, done.stdout)
    with contextlib.closing(sqlite3.connect(tmp_path / "keystone.db")) as tables:
        (events,) = tables.execute(
            "SELECT count(*) FROM revocation_event WHERE role_id IS NULL AND trust_id IS NULL AND consumer_id IS NULL "
            "AND access_token_id IS NULL").fetchone()
    assert f"\n{events} revocation\n" in done.stdout, "that of a user on a project is among them"
    by_group = login(cloud, "eve", "eve-first", "default", {"project": {"id": facts["projects"]["web"]}})
    assert by_group.status_code == 201, "an identity provider says that she is of the group, and still for long"


def test_what_is_no_database_is_refused(cloud, tmp_path):
    dump = (HERE / "mariadb" / "keystone.sql").read_bytes()
    for name, content, said in (
        ("nothing.db", b"no database" * 100, "not a database"),
        ("empty.sql", b"", "not a database"),
        ("packed.sql.gz", gzip.compress(dump), "not a database"),
        ("half.sql", dump[:len(dump) // 2], "of the dump"),
        ("other.sql", b"-- MySQL dump\nCREATE TABLE `t` (`a` int);\n", "this is no database of a Keystone"),
        ("latin.sql", dump.replace(b"SET NAMES utf8mb4", b"SET NAMES latin1"), "line 11 of the dump"),
        ("foreign.sql", dump + b"DELIMITER ;;\n", "'DELIMITER' begins no statement"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        refused = cloud.nubo("keystone", "import", path)
        assert refused.returncode != 0 and said in refused.stderr, (name, refused.stderr)
    refused = cloud.nubo("keystone", "import", tmp_path / "missing.db")
    assert refused.returncode != 0 and "cannot open" in refused.stderr, refused.stderr
