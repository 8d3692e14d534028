"""A Keystone is taken over while it runs: what it has issued means the same here, and what is issued here after the import
means the same there, field by field."""

import datetime
import hashlib
import pathlib
import subprocess

import lib
import pytest
import requests

PYTHON = lib.ROOT / ".venv-keystone" / "bin" / "python"
SERVE = pathlib.Path(__file__).parent / "keystone-serve"
# What may differ in the bodies of one token, and why. Everything else is the same, and so is what there is.
MAY_DIFFER = {
    "catalog": "each side has endpoints of its own",
    "roles": "one of the same name as a role that was here has the id of that role: names are compared, and ids where "
             "the role came from there",
}


class Side:
    """Somebody's `/v3`."""

    def __init__(self, url):
        self.url = url

    def request(self, method, path, token=None, json=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            headers["X-Auth-Token"] = token
        return requests.request(method, self.url + path, json=json, headers=headers, timeout=60)

    def call(self, method, path, token=None, json=None):
        answer = self.request(method, path, token, json)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def login(self, identity, scope=None):
        """The answer to `POST /auth/tokens`."""
        return self.request("POST", "/auth/tokens", json={"auth": {"identity": identity, **({"scope": scope} if scope else {})}})

    def token(self, identity, scope=None):
        answer = self.login(identity, scope)
        assert answer.status_code == 201, answer.text
        return answer.headers["X-Subject-Token"], answer.json()["token"]

    def validate(self, admin, token):
        """As a service does that knows access rules: the status, and what the token says."""
        answer = self.request("GET", "/auth/tokens", admin, X_Subject_Token=token, OpenStack_Identity_Access_Rules="1.0")
        return answer.status_code, answer.json().get("token")


def password(user, secret):
    return {"methods": ["password"], "password": {"user": {"id": user, "password": secret}}}


def credential(id, secret):
    return {"methods": ["application_credential"], "application_credential": {"id": id, "secret": secret}}


def by_token(token):
    return {"methods": ["token"], "token": {"id": token}}


class Keystone(Side):
    """One that runs, with people who use it."""

    def __init__(self, folder):
        self.folder = folder
        self.log = (folder.parent / "keystone.log").open("w")
        self.process = subprocess.Popen([str(PYTHON), str(SERVE), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        super().__init__(self.process.stdout.readline().strip())
        assert self.url, pathlib.Path(self.log.name).read_text()
        name = {"name": "admin", "domain": {"id": "default"}, "password": "keystone-admin"}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        self.admin, _ = self.token({"methods": ["password"], "password": {"user": name}}, scope)
        self.fill()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.log.close()

    def make(self, path, kind, token=None, **what):
        return self.call("POST", path, token or self.admin, {kind: what})[kind]

    def fill(self):
        put = lambda path: self.call("PUT", path, self.admin)
        self.corp = self.make("/domains", "domain", name="corp")["id"]
        self.web = self.make("/projects", "project", name="web", domain_id=self.corp)["id"]
        self.below = self.make("/projects", "project", name="below", domain_id=self.corp, parent_id=self.web)["id"]
        self.uma, self.tess, self.bob = (
            self.make("/users", "user", name=name, domain_id=self.corp, password=f"{name}-secret")["id"]
            for name in ("uma", "tess", "bob"))
        self.crew = self.make("/groups", "group", name="crew", domain_id=self.corp)["id"]
        put(f"/groups/{self.crew}/users/{self.uma}")
        roles = {role["name"]: role["id"] for role in self.call("GET", "/roles", self.admin)["roles"]}
        self.theirs = {name: self.make("/roles", "role", name=name)["id"] for name in ("sailor", "captain")}
        roles.update(self.theirs)
        put(f"/roles/{roles['captain']}/implies/{roles['sailor']}")
        put(f"/projects/{self.web}/users/{self.uma}/roles/{roles['captain']}")
        put(f"/projects/{self.web}/groups/{self.crew}/roles/{roles['member']}")
        put(f"/OS-INHERIT/domains/{self.corp}/users/{self.uma}/roles/{roles['sailor']}/inherited_to_projects")
        put(f"/domains/{self.corp}/users/{self.uma}/roles/{roles['manager']}")
        put(f"/system/users/{self.uma}/roles/{roles['reader']}")
        put(f"/projects/{self.web}/users/{self.bob}/roles/{roles['member']}")
        uma, _ = self.token(password(self.uma, "uma-secret"), {"project": {"id": self.web}})
        credentials = f"/users/{self.uma}/application_credentials"
        self.robot = self.make(credentials, "application_credential", uma, name="robot", secret="robot-secret",
                               roles=[{"name": "sailor"}], expires_at="2090-01-01T00:00:00")["id"]
        self.ruled = self.make(credentials, "application_credential", uma, name="ruled", secret="ruled-secret", unrestricted=True,
                               access_rules=[{"service": "identity", "method": "GET", "path": "/v3/auth/projects"}])["id"]
        trust = {"trustor_user_id": self.uma, "trustee_user_id": self.tess, "project_id": self.web,
                 "roles": [{"name": "captain"}]}
        self.lent = self.make("/OS-TRUST/trusts", "trust", uma, impersonation=True, **trust)["id"]
        self.shared = self.make("/OS-TRUST/trusts", "trust", uma, impersonation=False, **trust)["id"]
        self.ec2 = self.call("POST", f"/users/{self.uma}/credentials/OS-EC2", uma, {"tenant_id": self.web})["credential"]


def signed(ec2, secret=None, version="2"):
    """The body of `POST /v3/ec2tokens`: a request to a service of EC2's kind, which Keystone's client has signed."""
    from keystoneclient.contrib.ec2.utils import Ec2Signer

    now = datetime.datetime.now(datetime.UTC)
    request = {"host": "ec2.example", "verb": "GET", "path": "/", "params": {"Action": "DescribeInstances"}}
    if version == "2":
        request["params"].update(AWSAccessKeyId=ec2["access"], SignatureVersion="2", SignatureMethod="HmacSHA256",
                                 Timestamp=now.strftime("%Y-%m-%dT%H:%M:%SZ"))
    else:
        scope = f"{ec2['access']}/{now:%Y%m%d}/north/ec2/aws4_request"
        request["body_hash"] = hashlib.sha256(b"").hexdigest()
        request["headers"] = {"Host": "ec2.example", "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}", "Authorization":
                              f"AWS4-HMAC-SHA256 Credential={scope},SignedHeaders=host;x-amz-date,Signature=none"}
    signature = Ec2Signer(secret or ec2["secret"]).generate(request)
    if version == "4":
        request["headers"]["Authorization"] = request["headers"]["Authorization"].replace("none", signature)
    return {"credentials": {"access": ec2["access"], "signature": signature, **request}}


def of_every_scope(side, keystone, admin):
    """Tokens that users of the Keystone get at one of the sides, and what it said of them when it made them."""
    uma, tess = password(keystone.uma, "uma-secret"), password(keystone.tess, "tess-secret")
    tokens = {
        "unscoped": side.token(tess),
        "project": side.token(uma, {"project": {"id": keystone.web}}),
        "project by inheritance": side.token(uma, {"project": {"id": keystone.below}}),
        "domain": side.token(uma, {"domain": {"id": keystone.corp}}),
        "system": side.token(uma, {"system": {"all": True}}),
        "trust": side.token(tess, {"OS-TRUST:trust": {"id": keystone.lent}}),
        "trust without impersonation": side.token(tess, {"OS-TRUST:trust": {"id": keystone.shared}}),
        "application credential": side.token(credential(keystone.robot, "robot-secret")),
        "application credential with rules": side.token(credential(keystone.ruled, "ruled-secret")),
    }
    tokens["token"] = side.token(by_token(tokens["project"][0]), {"domain": {"id": keystone.corp}})
    for version in ("2", "4"):
        answer = side.request("POST", "/ec2tokens", admin, signed(keystone.ec2, version=version))
        assert answer.status_code == 200, answer.text
        tokens[f"ec2 of version {version}"] = (answer.headers["X-Subject-Token"], answer.json()["token"])
    return tokens


def assert_same(here, there, theirs, what):
    """Two sides say the same of a token, except for what MAY_DIFFER."""
    assert here.keys() == there.keys(), what
    for field in here.keys() - MAY_DIFFER.keys():
        assert here[field] == there[field], (what, field)
    names = [{role["name"] for role in token.get("roles", [])} for token in (here, there)]
    assert names[0] == names[1], what
    for token in (here, there):
        assert all(theirs[role["name"]] == role["id"] for role in token.get("roles", []) if role["name"] in theirs), what


@pytest.fixture(scope="module")
def keystone(tmp_path_factory):
    lib.require("keystone", PYTHON.exists(), "no virtual environment with a Keystone: make conformance SUITE=keystone")
    running = Keystone(tmp_path_factory.mktemp("keystone") / "state")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def before(keystone):
    """Tokens of the Keystone, from before anybody took it over; one of them is revoked."""
    tokens = of_every_scope(keystone, keystone, keystone.admin)
    revoked, _ = keystone.token(password(keystone.uma, "uma-secret"))
    answer = keystone.request("DELETE", "/auth/tokens", keystone.admin, X_Subject_Token=revoked)
    assert answer.status_code == 204, answer.text
    return tokens, revoked


class Taken(Side):
    """A fresh cloud that has taken it over."""

    def __init__(self, cloud, keystone):
        super().__init__(cloud.url + "/identity/v3")
        self.cloud = cloud
        folder = keystone.folder
        done = cloud.nubo("keystone", "import", folder / "keystone.db", "--credential-keys", folder / "credential-keys",
                          "--fernet-keys", folder / "fernet-keys", "--rename=-keystone")
        assert done.returncode == 0, done.stderr
        self.report = done.stdout
        self.admin = cloud.sdk().auth_token


@pytest.fixture(scope="module")
def nubo(keystone, before, tmp_path_factory):
    running = lib.Simulated(hosts=1, NUBO_STATE=str(tmp_path_factory.mktemp("nubo")))
    yield Taken(running.cloud, keystone)
    assert running.stop() == 0


def test_tokens_of_the_keystone_mean_the_same_here(keystone, before, nubo):
    tokens, revoked = before
    for what, (token, made) in tokens.items():
        status, there = keystone.validate(keystone.admin, token)
        assert status == 200, what
        status, here = nubo.validate(nubo.admin, token)
        assert status == 200, what
        assert_same(here, there, keystone.theirs, what)
        assert nubo.request("HEAD", "/auth/tokens", nubo.admin, X_Subject_Token=token,
                            OpenStack_Identity_Access_Rules="1.0").status_code == 200, what
    for side in (keystone, nubo):
        assert side.validate(side.admin, revoked)[0] == 404
        assert side.request("GET", "/auth/tokens", side.admin, X_Subject_Token=tokens["application credential with rules"][0]
                            ).status_code == 404, "to a service that does not know access rules"


def test_tokens_of_the_keystone_open_the_same_doors_here(keystone, before, nubo):
    tokens, revoked = before
    for what, (token, _) in tokens.items():
        for path in ("/auth/projects", "/auth/domains"):
            there, here = (side.request("GET", path, token) for side in (keystone, nubo))
            if what == "application credential with rules" and path != "/auth/projects":
                # The middleware in front of services enforces rules, and Keystone's own API does not look at them.
                assert here.status_code == 401
                continue
            if what.startswith("ec2"):
                assert (here.status_code, there.status_code) == (403, 403), (what, "is good for other services only")
                continue
            assert (here.status_code, there.status_code) == (200, 200), (what, path, here.text)
            kind = path.rpartition("/")[2]
            assert sorted(one["id"] for one in here.json()[kind]) == sorted(one["id"] for one in there.json()[kind]), what
    servers = nubo.cloud.url + "/compute/v2.1/servers"
    for what in ("project", "ec2 of version 2"):
        assert requests.get(servers, headers={"X-Auth-Token": tokens[what][0]}).json() == {"servers": []}, what
    assert requests.get(servers, headers={"X-Auth-Token": revoked}).status_code == 401


def test_everybody_logs_in_as_before(keystone, nubo):
    for user, secret, expected in ((keystone.uma, "uma-secret", 201), (keystone.uma, "wrong", 401), (keystone.bob, "bob-secret", 201)):
        assert [side.login(password(user, secret)).status_code for side in (keystone, nubo)] == [expected] * 2
    for id, secret, expected in ((keystone.robot, "robot-secret", 201), (keystone.robot, "wrong", 401)):
        assert [side.login(credential(id, secret)).status_code for side in (keystone, nubo)] == [expected] * 2
    for version in ("2", "4"):
        wrong = signed(keystone.ec2, secret="another", version=version)
        assert [side.request("POST", "/ec2tokens", side.admin, wrong).status_code for side in (keystone, nubo)] == [401] * 2


def test_what_a_login_says_is_the_same_on_both_sides(keystone, nubo):
    of = {"audit_ids", "expires_at", "issued_at"}
    here, there = (of_every_scope(side, keystone, side.admin) for side in (nubo, keystone))
    for what in here:
        for made in (here, there):
            # Keystone has those of a new token in any order.
            made[what][1]["methods"].sort()
        mine, other = ({key: value for key, value in made[what][1].items() if key not in of} for made in (here, there))
        assert_same(mine, other, keystone.theirs, what)


def test_tokens_from_here_mean_the_same_on_the_keystone(keystone, before, nubo, tmp_path):
    done = nubo.cloud.nubo("keys", "export", tmp_path / "keys")
    assert done.returncode == 0, done.stderr
    repository = keystone.folder / "fernet-keys"
    repository.rename(keystone.folder / "old-keys")
    (tmp_path / "keys").rename(repository)
    for what, (token, made) in of_every_scope(nubo, keystone, nubo.admin).items():
        status, there = keystone.validate(keystone.admin, token)
        assert status == 200, what
        assert_same(made, there, keystone.theirs, what)
        status, here = nubo.validate(nubo.admin, token)
        assert (status, here) == (200, made), what
        wanted = 403 if what.startswith("ec2") else 200
        assert keystone.request("GET", "/auth/projects", token).status_code == wanted, what
    for what, (token, _) in before[0].items():
        assert keystone.validate(keystone.admin, token)[0] == 200, f"{what}: its own tokens are good as before"
    # Both seal with the same key now.
    token, made = keystone.token(password(keystone.bob, "bob-secret"), {"project": {"id": keystone.web}})
    status, here = nubo.validate(nubo.admin, token)
    assert status == 200
    assert_same(here, made, keystone.theirs, "a later one")
    repeated = nubo.cloud.nubo("keystone", "import", keystone.folder / "keystone.db", "--rename=-keystone")
    assert repeated.returncode == 0, repeated.stderr
    assert " user" not in repeated.stdout.replace("renamed", ""), repeated.stdout
