"""Every resource of identity with the commands that a user types, one after the other.

The commands run inside this process, as `openstack` would run them: a hundred starts of Python would take minutes.
"""

import importlib.util
import io
import json
import logging
import os
import pathlib
import uuid
from unittest import mock

import lib
import pytest
import requests


class Commands:
    """`openstack`, without a process for each command."""

    def __init__(self, cloud):
        self.cloud = cloud

    def run(self, *words, check=True, **env):
        from openstackclient import shell

        out, err = io.StringIO(), io.StringIO()
        base = {k: v for k, v in os.environ.items() if not k.startswith("OS_")}
        if not env:
            env = {"OS_CLIENT_CONFIG_FILE": str(self.cloud.clouds), "OS_CLOUD": "nubo"}
        with mock.patch.dict(os.environ, {**base, **env}, clear=True):
            with mock.patch("sys.stderr", err), mock.patch("sys.stdout", out):
                app = shell.OpenStackShell()
                try:
                    code = app.run([str(word) for word in words])
                except SystemExit as ended:
                    code = ended.code
        # Each shell leaves its handlers behind.
        for handler in list(logging.getLogger("").handlers):
            if isinstance(handler, logging.StreamHandler) and getattr(handler, "stream", None) is err:
                logging.getLogger("").removeHandler(handler)
        if check and code:
            pytest.fail(f"openstack {' '.join(map(str, words))}: {err.getvalue().strip()}")
        return code, out.getvalue()

    def json(self, *words, **env):
        return json.loads(self.run(*words, "-f", "json", **env)[1])

    def fails(self, *words, **env):
        return self.run(*words, check=False, **env)[0] != 0

    def names(self, *words, column="Name"):
        return [row[column] for row in self.json(*words)]


@pytest.fixture(scope="module")
def os_(sim):
    return Commands(sim)


@pytest.fixture
def tag():
    return uuid.uuid4().hex[:8]


def test_domains_projects_and_tags(os_, tag):
    domain = os_.json("domain", "create", f"d-{tag}", "--description", "one")
    os_.run("domain", "set", domain["id"], "--description", "two")
    assert os_.json("domain", "show", f"d-{tag}")["description"] == "two"
    assert f"d-{tag}" in os_.names("domain", "list")
    top = os_.json("project", "create", f"top-{tag}", "--domain", domain["id"], "--tag", "red")
    low = os_.json("project", "create", f"low-{tag}", "--domain", domain["id"], "--parent", top["id"])
    assert low["parent_id"] == top["id"]
    os_.run("project", "set", top["id"], "--tag", "blue", "--description", "two")
    shown = os_.json("project", "show", top["id"])
    assert sorted(shown["tags"]) == ["blue", "red"] and shown["description"] == "two"
    assert os_.names("project", "list", "--domain", domain["id"], "--tags", "red") == [f"top-{tag}"]
    assert low["id"] in str(os_.json("project", "show", top["id"], "--children")["subtree"])
    assert os_.fails("project", "delete", top["id"]), "it has a child"
    assert os_.fails("project", "set", top["id"], "--disable"), "a child is enabled"
    os_.run("project", "delete", low["id"], top["id"])
    assert os_.fails("domain", "delete", domain["id"]), "it is enabled"
    os_.run("domain", "set", domain["id"], "--disable")
    os_.run("domain", "delete", domain["id"])
    assert os_.fails("domain", "show", domain["id"])


def test_users_groups_and_their_options(os_, tag):
    user = os_.json("user", "create", f"u-{tag}", "--password", "one", "--email", "a@b", "--enable-lock-password")
    assert os_.json("user", "show", user["id"])["options"]["lock_password"] is True
    os_.run("user", "set", user["id"], "--disable-lock-password", "--multi-factor-auth-rule", "password",
            "--disable-multi-factor-auth", "--description", "d")
    shown = os_.json("user", "show", f"u-{tag}")
    assert shown["options"]["multi_factor_auth_rules"] == [["password"]] and shown["email"] == "a@b"
    assert f"u-{tag}" in os_.names("user", "list")
    group = os_.json("group", "create", f"g-{tag}", "--description", "one")["id"]
    os_.run("group", "set", group, "--description", "two")
    assert os_.json("group", "show", group)["description"] == "two"
    os_.run("group", "add", "user", group, user["id"])
    os_.run("group", "contains", "user", group, user["id"])
    assert os_.names("user", "list", "--group", group) == [f"u-{tag}"]
    assert os_.names("group", "list", "--user", user["id"]) == [f"g-{tag}"]
    os_.run("group", "remove", "user", group, user["id"])
    assert os_.names("user", "list", "--group", group) == []
    os_.run("user", "password", "set", "--original-password", "one", "--password", "two", **as_user(os_, tag, "one"))
    assert os_.fails("token", "issue", **as_user(os_, tag, "one"))
    os_.run("token", "issue", **as_user(os_, tag, "two"))
    os_.run("group", "delete", group)
    os_.run("user", "delete", user["id"])


def as_user(os_, tag, password):
    return {
        "OS_AUTH_URL": f"{os_.cloud.url}/identity", "OS_USERNAME": f"u-{tag}", "OS_PASSWORD": password,
        "OS_USER_DOMAIN_ID": "default", "OS_IDENTITY_API_VERSION": "3",
    }


def test_roles_assignments_and_what_roles_imply(os_, tag):
    role = os_.json("role", "create", f"r-{tag}", "--description", "one")["id"]
    other = os_.json("role", "create", f"s-{tag}")["id"]
    os_.run("role", "set", role, "--description", "two")
    assert os_.json("role", "show", role)["description"] == "two"
    domain = os_.json("domain", "create", f"d-{tag}")["id"]
    inner = os_.json("role", "create", f"inner-{tag}", "--domain", domain)["id"]
    assert os_.names("role", "list", "--domain", domain) == [f"inner-{tag}"]
    os_.run("implied", "role", "create", role, "--implied-role", other)
    assert role in os_.names("implied", "role", "list", column="Prior Role ID")
    project, user = os_.json("project", "create", f"p-{tag}")["id"], os_.json("user", "create", f"u-{tag}")["id"]
    group = os_.json("group", "create", f"g-{tag}")["id"]
    os_.run("group", "add", "user", group, user)
    os_.run("role", "add", role, "--user", user, "--project", project)
    os_.run("role", "add", role, "--group", group, "--domain", domain, "--inherited")
    os_.run("role", "add", role, "--user", user, "--system", "all")
    rows = os_.json("role", "assignment", "list", "--user", user, "--names")
    assert {(row["Role"], row["Project"], row["System"]) for row in rows} == {
        (f"r-{tag}", f"p-{tag}@Default", ""), (f"r-{tag}", "", "all")}
    effective = os_.json("role", "assignment", "list", "--user", user, "--project", project, "--effective", "--names")
    assert {row["Role"] for row in effective} == {f"r-{tag}", f"s-{tag}"}
    assert os_.json("role", "assignment", "list", "--group", group, "--domain", domain)[0]["Inherited"] is True
    os_.run("role", "remove", role, "--user", user, "--system", "all")
    os_.run("role", "remove", role, "--group", group, "--domain", domain, "--inherited")
    os_.run("role", "remove", role, "--user", user, "--project", project)
    assert os_.json("role", "assignment", "list", "--user", user) == []
    os_.run("implied", "role", "delete", role, "--implied-role", other)
    os_.run("role", "delete", inner, "--domain", domain)
    os_.run("role", "delete", role, other)
    os_.run("user", "delete", user)
    os_.run("group", "delete", group)
    os_.run("project", "delete", project)
    os_.run("domain", "set", domain, "--disable")
    os_.run("domain", "delete", domain)


def test_regions_services_endpoints_and_limits(os_, tag):
    region = os_.json("region", "create", f"reg-{tag}", "--description", "one")["region"]
    os_.run("region", "set", region, "--description", "two")
    assert os_.json("region", "show", region)["description"] == "two"
    assert region in os_.names("region", "list", column="Region")
    service = os_.json("service", "create", f"type-{tag}", "--name", f"svc-{tag}", "--description", "one")["id"]
    os_.run("service", "set", service, "--description", "two")
    assert os_.json("service", "show", service)["description"] == "two"
    assert f"svc-{tag}" in os_.names("service", "list")
    endpoint = os_.json("endpoint", "create", service, "public", "http://one/", "--region", region)["id"]
    os_.run("endpoint", "set", endpoint, "--url", "http://two/")
    assert os_.json("endpoint", "show", endpoint)["url"] == "http://two/"
    assert os_.names("endpoint", "list", "--service", service, column="ID") == [endpoint]
    wide = os_.json("registered", "limit", "create", "--service", service, "--default-limit", 5, "--region", region,
                    f"res-{tag}")["id"]
    os_.run("registered", "limit", "set", wide, "--default-limit", 6)
    assert os_.json("registered", "limit", "show", wide)["default_limit"] == 6
    assert wide in os_.names("registered", "limit", "list", "--service", service, column="ID")
    project = os_.json("project", "create", f"p-{tag}")["id"]
    limit = os_.json("limit", "create", "--project", project, "--service", service, "--resource-limit", 3,
                     "--region", region, f"res-{tag}")["id"]
    os_.run("limit", "set", limit, "--resource-limit", 4)
    assert os_.json("limit", "show", limit)["resource_limit"] == 4
    assert os_.names("limit", "list", "--service", service, column="ID") == [limit]
    assert os_.fails("registered", "limit", "delete", wide), "a limit stands against it"
    os_.run("limit", "delete", limit)
    os_.run("registered", "limit", "delete", wide)
    os_.run("project", "delete", project)
    os_.run("endpoint", "delete", endpoint)
    os_.run("service", "delete", service)
    os_.run("region", "delete", region)


def test_credentials_of_all_kinds(os_, tag):
    seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    user = os_.json("user", "create", f"u-{tag}", "--password", "one")["id"]
    kept = os_.json("credential", "create", "--type", "totp", user, seed)["id"]
    os_.run("credential", "set", kept, "--type", "totp", "--user", user, "--data", "MFRGG")
    assert os_.json("credential", "show", kept)["blob"] == "MFRGG"
    assert kept in os_.names("credential", "list", "--user", user, column="ID")
    os_.run("credential", "delete", kept)
    key = os_.json("ec2", "credentials", "create")
    assert key["access"] in os_.names("ec2", "credentials", "list", column="Access")
    assert os_.json("ec2", "credentials", "show", key["access"])["secret"] == key["secret"]
    assert exchanged(os_, key).status_code == 200
    os_.run("ec2", "credentials", "delete", key["access"])
    assert exchanged(os_, key).status_code == 404
    os_.run("user", "delete", user)


def exchanged(os_, key):
    """What a service gets for a request that was signed with the key, by Keystone's own signer."""
    lib.require("clients", importlib.util.find_spec("keystoneclient"), "no keystoneclient, which signs for EC2")
    from keystoneclient.contrib.ec2.utils import Ec2Signer

    signed = {"access": key["access"], "host": "h:1", "verb": "GET", "path": "/", "params": {"SignatureVersion": "2"}}
    signed["signature"] = Ec2Signer(key["secret"]).generate(signed)
    token = os_.json("token", "issue")["id"]
    return requests.post(f"{os_.cloud.url}/identity/v3/ec2tokens", json={"credentials": signed}, timeout=10,
                         headers={"X-Auth-Token": token})


def test_a_login_with_a_password_and_a_code(os_, tag):
    """keystoneauth's plugin for several factors against rules that ask for two."""
    from keystoneauth1 import session
    from keystoneauth1.exceptions import auth
    from keystoneauth1.identity import v3

    seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    user = os_.json("user", "create", f"u-{tag}", "--password", "one", "--multi-factor-auth-rule", "password,totp",
                    "--enable-multi-factor-auth")["id"]
    os_.run("credential", "create", "--type", "totp", user, seed)
    url, of = f"{os_.cloud.url}/identity/v3", {"username": f"u-{tag}", "user_domain_id": "default"}
    password = v3.PasswordMethod(password="one", **of)
    with pytest.raises(auth.MissingAuthMethods) as missing:
        session.Session(auth=v3.Auth(url, [password])).get_token()
    assert missing.value.required_auth_methods == [["totp", "password"]]
    code = v3.TOTPMethod(passcode=passcode(seed), **of)
    assert session.Session(auth=v3.Auth(url, [password, code])).get_token()
    receipt = {"Openstack-Auth-Receipt": missing.value.receipt}
    body = {"auth": {"identity": {"methods": ["totp"], "totp": {"user": {"id": user, "passcode": passcode(seed)}}}}}
    assert requests.post(f"{url}/auth/tokens", json=body, headers=receipt, timeout=10).status_code == 201
    os_.run("user", "delete", user)


def passcode(seed):
    import base64
    import hashlib
    import hmac
    import struct
    import time

    digest = hmac.new(base64.b32decode(seed), struct.pack(">Q", int(time.time()) // 30), hashlib.sha1).digest()
    at = digest[19] & 15
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


def test_a_consumer_is_lent_a_role(os_, tag):
    lib.require("clients", importlib.util.find_spec("oauthlib"), "no oauthlib, which the commands want")
    consumer = os_.json("consumer", "create", "--description", tag)
    keys = ["--consumer-key", consumer["id"], "--consumer-secret", consumer["secret"]]
    project = os_.json("project", "show", "admin")["id"]
    request = os_.json("request", "token", "create", *keys, "--project", project)
    allowed = os_.json("request", "token", "authorize", "--request-key", request["id"], "--role", "member")
    access = os_.json("access", "token", "create", *keys, "--request-key", request["id"], "--request-secret",
                      request["secret"], "--verifier", allowed["oauth_verifier"])
    token = os_.json(
        "token", "issue", OS_AUTH_TYPE="v3oauth1", OS_AUTH_URL=f"{os_.cloud.url}/identity/v3",
        OS_CONSUMER_KEY=consumer["id"], OS_CONSUMER_SECRET=consumer["secret"],
        OS_ACCESS_KEY=access["id"], OS_ACCESS_SECRET=access["secret"], OS_IDENTITY_API_VERSION="3")
    assert token["project_id"] == project
    os_.run("token", "revoke", token["id"])
    os_.run("consumer", "delete", consumer["id"])


def test_trusts_and_application_credentials(os_, tag):
    user = os_.json("user", "create", f"u-{tag}", "--password", "one")["id"]
    trust = os_.json("trust", "create", "--project", "admin", "--role", "member", "admin", user)["id"]
    assert os_.json("trust", "show", trust)["trustee_user_id"] == user
    assert trust in os_.names("trust", "list", column="ID")
    token = os_.json("token", "issue", OS_TRUST_ID=trust, **as_user(os_, tag, "one"))
    assert token["project_id"]
    os_.run("trust", "delete", trust)
    assert os_.fails("token", "issue", OS_TRUST_ID=trust, **as_user(os_, tag, "one"))
    made = os_.json("application", "credential", "create", f"app-{tag}", "--role", "reader")
    secret = made.get("secret") or made["Secret"]
    of = {"OS_AUTH_TYPE": "v3applicationcredential", "OS_AUTH_URL": f"{os_.cloud.url}/identity",
          "OS_APPLICATION_CREDENTIAL_ID": made.get("id") or made["ID"], "OS_APPLICATION_CREDENTIAL_SECRET": secret}
    os_.run("token", "issue", **of)
    assert f"app-{tag}" in os_.names("application", "credential", "list")
    os_.run("application", "credential", "delete", f"app-{tag}")
    assert os_.fails("token", "issue", **of)
    os_.run("user", "delete", user)


def test_keys_are_rotated_written_and_taken_over(os_, sim, tmp_path):
    import subprocess

    before = os_.json("token", "issue")["id"]
    login = {"OS_AUTH_URL": f"{sim.url}/identity", **account(sim)}

    def keys(*words):
        base = {k: v for k, v in os.environ.items() if not k.startswith("OS_")}
        return subprocess.run([str(lib.NUBO), "keys", *map(str, words)], env={**base, **login}, capture_output=True,
                              text=True, timeout=60)

    assert keys("rotate").returncode == 0
    out = tmp_path / "fernet-keys"
    assert keys("export", out).returncode == 0
    assert keys("export", out).returncode != 0, "never over what is there"
    names = sorted(int(path.name) for path in out.iterdir())
    assert names == list(range(len(names))) and len(names) >= 3
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}
    fernet = pytest.importorskip("cryptography.fernet", reason="no cryptography to check a token with")
    after = os_.json("token", "issue")["id"]
    sealed = fernet.Fernet((out / str(names[-1])).read_text())
    assert sealed.decrypt(after + "=" * (-len(after) % 4)), "the highest number seals"
    fresh = fernet.Fernet.generate_key().decode()
    (out / str(len(names))).write_text(fresh)
    done = keys("import", out)
    assert done.returncode == 0, done.stderr
    made = os_.json("token", "issue")["id"]
    assert fernet.Fernet(fresh).decrypt(made + "=" * (-len(made) % 4))
    check = lambda token: requests.get(f"{sim.url}/identity/v3/auth/tokens", timeout=10, headers={
        "X-Auth-Token": made, "X-Subject-Token": token}).status_code
    assert [check(token) for token in (before, after, made)] == [200, 200, 200], "nobody is logged out"
    assert keys("import", tmp_path).returncode != 0, "there is no key"


def account(sim):
    text = pathlib.Path(sim.clouds).with_name("openrc").read_text()
    lines = [line.removeprefix("export ").split("=", 1) for line in text.splitlines() if line.startswith("export ")]
    found = {name: value.strip("'") for name, value in lines}
    return {name: found[name] for name in ("OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME")}
