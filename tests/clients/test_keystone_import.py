"""A real Keystone's database is taken over: `tests/conformance/keystone-dump DIR` made the folder `keystone` beside this
file, vacuumed into small pages. Its tokens have ended long since; crates/identity holds that tokens of one validate on the
other."""

import contextlib
import hashlib
import json
import pathlib
import shutil
import sqlite3
import subprocess

import lib
import pytest
import requests

HERE = pathlib.Path(__file__).parent / "keystone"
FACTS = json.loads((HERE / "facts.json").read_text())
RULE = "0" * 31 + "7"


@pytest.fixture(scope="module")
def cloud():
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    simulated = lib.Simulated(hosts=1)
    yield simulated.cloud
    assert simulated.stop() == 0


def nubo(cloud, *words):
    import openstack.config

    auth = openstack.config.OpenStackConfig(config_files=[str(cloud.clouds)], load_envvars=False).get_one("nubo").config["auth"]
    env = {"PATH": "/usr/bin:/bin", "OS_AUTH_URL": auth["auth_url"], "OS_USERNAME": auth["username"],
           "OS_PASSWORD": auth["password"], "OS_PROJECT_NAME": auth["project_name"]}
    return subprocess.run([str(lib.NUBO), *map(str, words)], env=env, capture_output=True, text=True, timeout=60)


def login(cloud, user, password, domain, scope=None):
    who = {"name": user, "domain": {"id": domain}, "password": password}
    auth = {"identity": {"methods": ["password"], "password": {"user": who}}}
    if scope:
        auth["scope"] = scope
    return requests.post(cloud.url + "/identity/v3/auth/tokens", json={"auth": auth})


def test_users_of_a_keystone_keep_their_passwords_and_rights(cloud):
    database = HERE / "keystone.db"
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    words = ["keystone", "import", database, "--credential-keys", HERE / "credential-keys"]
    refused = nubo(cloud, *words)
    assert refused.returncode != 0 and "project admin" in refused.stderr and "user admin" in refused.stderr, refused.stderr
    corp, users, roles = FACTS["domain"], FACTS["users"], FACTS["roles"]
    assert login(cloud, "ada", "ada-second", corp).status_code == 401, "nothing was imported"
    words += ["--rename=-keystone", "--fernet-keys", HERE / "fernet-keys"]
    planned = nubo(cloud, *words, "--dry-run")
    assert planned.returncode == 0 and login(cloud, "ada", "ada-second", corp).status_code == 401, planned.stderr
    done = nubo(cloud, *words)
    assert done.returncode == 0, done.stderr
    assert "renamed: admin is admin-keystone" in done.stdout and "keys verify tokens now" in done.stdout
    again = nubo(cloud, *words)
    assert again.returncode == 0 and "user" not in again.stdout.replace("renamed", ""), again.stdout + again.stderr
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before, "the file is only read"

    token = login(cloud, "ada", "ada-second", corp, {"project": {"id": FACTS["projects"]["web"]}})
    assert token.status_code == 201, token.text
    body = token.json()["token"]
    assert body["user"]["id"] == users["ada"]
    assert {"member", "reader"} <= {role["name"] for role in body["roles"]}
    below = login(cloud, "ada", "ada-second", corp, {"project": {"id": FACTS["projects"]["below"]}}).json()["token"]
    assert [role["name"] for role in below["roles"]] == ["reader"], "inherited by the group from the domain"
    domain = login(cloud, "ada", "ada-second", corp, {"domain": {"id": corp}}).json()["token"]
    assert "manager" in {role["name"] for role in domain["roles"]}
    assert login(cloud, "ada", "ada-first", corp).status_code == 401
    assert login(cloud, "bob", "bob-first", corp).status_code == 401, "disabled there, disabled here"
    eve = login(cloud, "eve", "eve-first", "default", {"project": {"id": FACTS["projects"]["lab"]}}).json()["token"]
    assert {role["name"] for role in eve["roles"]} == {"sailor", "reader"}
    assert login(cloud, "eve", "eve-first", "default", {"system": {"all": True}}).status_code == 201
    assert login(cloud, "admin-keystone", "keystone-admin", "default").status_code == 201

    credential = {"id": FACTS["application_credential"], "secret": "robot-secret"}
    robot = {"identity": {"methods": ["application_credential"], "application_credential": credential}}
    assert requests.post(cloud.url + "/identity/v3/auth/tokens", json={"auth": robot}).status_code == 201
    shown = cloud.json("ec2", "credentials", "list", "--user", users["eve"])
    assert [(row["Access"], row["Secret"]) for row in shown] == [(FACTS["ec2"]["access"], FACTS["ec2"]["secret"])]
    ada = cloud.json("user", "show", users["ada"])
    assert ada["email"] == "ada@corp" and ada["options"]["ignore_password_expiry"] is True
    assert set(cloud.json("project", "show", FACTS["projects"]["web"])["tags"]) == {"blue", "green"}
    assert cloud.json("identity", "provider", "show", "idp")["remote_ids"] == ["https://idp"]
    assert cloud.json("role", "show", "sailor")["id"] == roles["sailor"]
    # The history came along: the password before cannot be chosen where it must be new; here it is only kept.
    assert requests.post(
        cloud.url + f"/identity/v3/users/{users['ada']}/password",
        json={"user": {"original_password": "ada-second", "password": "ada-third"}},
    ).status_code == 204
    assert login(cloud, "ada", "ada-third", corp).status_code == 201


def test_a_credential_keeps_what_restricts_it(cloud, tmp_path):
    database = tmp_path / "keystone.db"
    shutil.copy(HERE / "keystone.db", database)
    with contextlib.closing(sqlite3.connect(database)) as tables, tables:
        tables.execute("INSERT INTO access_rule VALUES (7, 'identity', '/v3/auth/projects', 'GET', ?, '')", (RULE,))
        columns = "internal_id, id, name, secret_hash, user_id, project_id, unrestricted"
        (internal,) = tables.execute("SELECT max(internal_id) + 1 FROM application_credential").fetchone()
        tables.execute(
            f"INSERT INTO application_credential ({columns}) SELECT ?, 'bound', 'bound', secret_hash, user_id, project_id, 0 "
            "FROM application_credential WHERE id = ?", (internal, FACTS["application_credential"]))
        tables.execute("UPDATE access_rule SET user_id = (SELECT user_id FROM application_credential WHERE id = 'bound')")
        tables.execute("INSERT INTO application_credential_role SELECT ?, role_id FROM application_credential_role LIMIT 1",
                       (internal,))
        tables.execute("INSERT INTO application_credential_access_rule VALUES (?, 7)", (internal,))
    done = nubo(cloud, "keystone", "import", database, "--rename=-keystone")
    assert done.returncode == 0, done.stderr

    credential = {"id": "bound", "secret": "robot-secret"}
    robot = {"identity": {"methods": ["application_credential"], "application_credential": credential}}
    answer = requests.post(cloud.url + "/identity/v3/auth/tokens", json={"auth": robot})
    assert answer.status_code == 201, answer.text
    (rule,) = answer.json()["token"]["application_credential"]["access_rules"]
    assert (rule["id"], rule["path"]) == (RULE, "/v3/auth/projects")
    headers = {"X-Auth-Token": answer.headers["X-Subject-Token"], "OpenStack-Identity-Access-Rules": "1.0"}
    assert requests.get(cloud.url + "/identity/v3/auth/projects", headers=headers).status_code == 200
    assert requests.get(cloud.url + "/identity/v3/auth/catalog", headers=headers).status_code == 401


def test_what_is_no_database_is_refused(cloud, tmp_path):
    nothing = tmp_path / "nothing.db"
    nothing.write_bytes(b"no database" * 100)
    for path, said in ((nothing, "not a database"), (tmp_path / "missing.db", "cannot open")):
        refused = nubo(cloud, "keystone", "import", path)
        assert refused.returncode != 0 and said in refused.stderr, refused.stderr
