"""Domains whose users stand in a directory: a real slapd, the real client, and logins as users see them."""

import contextlib
import hashlib
import json
import pathlib
import shutil
import socket
import sqlite3
import subprocess

import lib
import pytest
import requests

SUFFIX = "dc=corp,dc=example"
PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
READER = f"cn=reader,{SUFFIX}"
SCHEMAS = pathlib.Path("/etc/ldap/schema")


def person(uid, name, **more):
    lines = [f"dn: uid={uid},{PEOPLE}", "objectClass: inetOrgPerson", f"uid: {uid}", f"cn: {name}", f"sn: {name}"]
    lines += [f"mail: {uid}@corp.example", f"userPassword: {uid}-secret"]
    return "\n".join(lines + [f"{key}: {value}" for key, value in more.items()]) + "\n"


def group(name, *members):
    lines = [f"dn: cn={name},{GROUPS}", "objectClass: groupOfNames", f"cn: {name}", f"ou: {name}", "description: of the corp"]
    return "\n".join(lines + [f"member: {member}" for member in members]) + "\n"


LDIF = "\n".join([
    f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: corp\ndc: corp\n",
    f"dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n",
    f"dn: {GROUPS}\nobjectClass: organizationalUnit\nou: groups\n",
    f"dn: {READER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: reader\nuserPassword: reader-secret\n",
    person("ada", "Ada Lovelace", employeeType="TRUE", l="London"),
    person("bob", "Bob, of Rome", employeeType="TRUE"),
    person("eve", "Eve", employeeType="FALSE"),
    person("paren(the)sis", "Odd", employeeType="TRUE"),
    group("crew", f"uid=ada,{PEOPLE}", f"uid=paren(the)sis,{PEOPLE}", f"uid=long-gone,{PEOPLE}"),
    group("others", f"uid=bob,{PEOPLE}"),
    *[person(f"many{n:03}", f"Many {n}") for n in range(150)],
])


class Directory:
    """A slapd of its own, on ports of its own, with TLS by a certificate of its own."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        self.ports = [free_port(), free_port()]
        self.ca = folder / "ca.pem"
        certificate(folder)
        (folder / "db").mkdir()
        includes = "\n".join(f"include {SCHEMAS}/{name}.schema" for name in ["core", "cosine", "inetorgperson"])
        (folder / "slapd.conf").write_text(f"""{includes}
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
sizelimit size.soft=100 size.hard=100 size.prtotal=unlimited
disallow bind_anon
database mdb
suffix "{SUFFIX}"
rootdn "cn=root,{SUFFIX}"
rootpw root-secret
directory {folder}/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{READER}" read by * none
""")
        (folder / "all.ldif").write_text(LDIF)
        self.tool("slapadd", "-f", folder / "slapd.conf", "-l", folder / "all.ldif")
        self.start()

    def tool(self, *words, stdin=None):
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, input=stdin, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stderr}"

    @property
    def urls(self):
        return f"ldap://127.0.0.1:{self.ports[0]}/", f"ldaps://localhost:{self.ports[1]}/"

    def start(self):
        words = ["slapd", "-f", self.folder / "slapd.conf", "-h", " ".join(self.urls), "-d", "0"]
        self.process = subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lib.wait_for("slapd listens", lambda: all(listens(port) for port in self.ports))

    def stop(self):
        self.process.terminate()
        self.process.wait(30)

    def modify(self, ldif):
        words = ["ldapmodify", "-x", "-H", self.urls[0], "-D", f"cn=root,{SUFFIX}", "-w", "root-secret"]
        self.tool(*words, stdin=ldif)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def certificate(folder):
    """An authority, and a certificate of it for localhost and 127.0.0.1."""
    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "ca.key", "-out", folder / "ca.pem",
            "-days", "2", "-subj", "/CN=corp authority", "-addext", "basicConstraints=critical,CA:TRUE")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "server.key", "-out", folder / "server.csr",
            "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", folder / "server.csr", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
            "-CAcreateserial", "-out", folder / "server.pem", "-days", "2", "-extfile", folder / "names")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    lib.require("slapd", all(map(shutil.which, ["slapd", "slapadd", "ldapmodify", "openssl"])), "no slapd, ldap-utils or openssl")
    made = Directory(tmp_path_factory.mktemp("slapd"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def cloud(directory, tmp_path_factory):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    state = tmp_path_factory.mktemp("ldap")
    (state / "nubo.toml").write_text("[login_limit]\nuser_burst = 0\nsource_burst = 0\n")
    simulated = lib.Simulated(hosts=1, NUBO_STATE=str(state))
    simulated.cloud.run("domain", "create", "corp")
    configure(simulated.cloud, directory)
    yield simulated.cloud
    assert simulated.stop() == 0


def options(directory, **more):
    return {
        "url": directory.urls[0], "user": READER, "password": "reader-secret", "suffix": SUFFIX, "query_scope": "sub",
        "page_size": 50, "user_tree_dn": PEOPLE, "user_objectclass": "inetOrgPerson", "user_id_attribute": "uid",
        "user_name_attribute": "uid", "user_mail_attribute": "mail", "user_description_attribute": "cn",
        "user_enabled_attribute": "employeeType", "user_additional_attribute_mapping": ["l:city"],
        "group_tree_dn": GROUPS, "group_objectclass": "groupOfNames", "group_id_attribute": "cn",
        "group_name_attribute": "cn", "group_member_attribute": "member", "group_desc_attribute": "description", **more,
    }


def admin(cloud, method, path, **words):
    token = cloud.run("token", "issue", "-f", "value", "-c", "id").stdout.strip()
    return requests.request(method, cloud.url + "/identity" + path, headers={"X-Auth-Token": token}, timeout=60, **words)


def configure(cloud, directory, domain="corp", **more):
    known = cloud.json("domain", "show", domain)["id"]
    config = {"config": {"identity": {"driver": "ldap"}, "ldap": options(directory, **more)}}
    answer = admin(cloud, "PUT", f"/v3/domains/{known}/config", json=config)
    assert answer.status_code in (200, 201), answer.text
    return known


@pytest.fixture
def corp(cloud):
    return cloud.json("domain", "show", "corp")["id"]


@pytest.fixture(scope="module")
def ship(cloud):
    """A project in which the crew are members, and bob is a reader."""
    cloud.run("project", "create", "ship")
    cloud.run("role", "add", "--group", "crew", "--group-domain", "corp", "--project", "ship", "member")
    cloud.run("role", "add", "--user", "bob", "--user-domain", "corp", "--project", "ship", "reader")


def public_id(domain, kind, local):
    return hashlib.sha256(f"{domain}{kind}{local}".encode()).hexdigest()


def login(cloud, name, password, domain="corp", scope=None):
    who = {"name": name, "domain": {"name": domain}, "password": password}
    auth = {"identity": {"methods": ["password"], "password": {"user": who}}}
    if scope:
        auth["scope"] = scope
    return requests.post(cloud.url + "/identity/v3/auth/tokens", json={"auth": auth}, timeout=60)


class Of(lib.Cloud):
    """The client of a user of the directory."""

    def __init__(self, cloud, name, password, project):
        super().__init__(cloud.url, cloud.clouds)
        self.who = {
            "OS_AUTH_URL": cloud.url + "/identity/v3", "OS_IDENTITY_API_VERSION": "3", "OS_USERNAME": name,
            "OS_PASSWORD": password, "OS_USER_DOMAIN_NAME": "corp", "OS_PROJECT_NAME": project,
            "OS_PROJECT_DOMAIN_NAME": "Default",
        }

    def env(self, cloud="nubo"):
        env = {key: value for key, value in super().env().items() if not key.startswith("OS_")}
        return {**env, **self.who}


def as_user(cloud, name, password, project, *words, check=True):
    return Of(cloud, name, password, project).run(*words, check=check)


def test_the_real_client_lists_what_the_directory_has(cloud, corp):
    users = {row["Name"]: row["ID"] for row in cloud.json("user", "list", "--domain", "corp")}
    assert len(users) == 154, "in pages: the directory gives no more than 100 at once"
    assert users["ada"] == public_id(corp, "user", "ada"), "as a Keystone would have it"
    ada = cloud.json("user", "show", "--domain", "corp", "ada")
    assert (ada["email"], ada["description"], ada["enabled"]) == ("ada@corp.example", "Ada Lovelace", True)
    assert admin(cloud, "GET", f"/v3/users/{users['ada']}").json()["user"]["city"] == "London"
    assert cloud.json("user", "show", "--domain", "corp", "eve")["enabled"] is False
    groups = {row["Name"]: row["ID"] for row in cloud.json("group", "list", "--domain", "corp")}
    assert groups == {name: public_id(corp, "group", name) for name in ["crew", "others"]}
    assert cloud.json("group", "show", "--domain", "corp", "crew")["description"] == "of the corp"
    # By this way the client hands the domain on as it is.
    members = cloud.json("user", "list", "--domain", corp, "--group", "crew")
    assert sorted(row["Name"] for row in members) == ["ada", "paren(the)sis"]
    assert [row["Name"] for row in cloud.json("group", "list", "--user", "ada", "--user-domain", "corp")] == ["crew"]
    contains = ["group", "contains", "user", "--group-domain", "corp", "--user-domain", "corp"]
    assert "in group" in cloud.run(*contains, "crew", "ada").stdout
    assert "not in group" in cloud.run(*contains, "crew", "bob").stderr
    assert {row["Name"] for row in cloud.json("user", "list")} >= {"admin", "ada"}, "what was seen is in the list of all"


def test_a_user_of_the_directory_works_with_the_roles_of_its_groups(cloud, ship, corp):
    token = json.loads(as_user(cloud, "ada", "ada-secret", "ship", "token", "issue", "-f", "json").stdout)
    assert token["user_id"] == public_id(corp, "user", "ada")
    as_user(cloud, "ada", "ada-secret", "ship", "volume", "create", "--size", "1", "of-ada")
    assert "of-ada" in as_user(cloud, "paren(the)sis", "paren(the)sis-secret", "ship", "volume", "list").stdout
    refused = as_user(cloud, "bob", "bob-secret", "ship", "volume", "create", "--size", "1", "x", check=False)
    assert refused.returncode != 0, "a reader makes nothing"
    names = {(row["User"], row["Role"]) for row in cloud.json("role", "assignment", "list", "--effective", "--names", "--project", "ship")}
    assert {("ada@corp", "member"), ("paren(the)sis@corp", "member"), ("bob@corp", "reader")} <= names
    made = json.loads(as_user(cloud, "ada", "ada-secret", "ship", "application", "credential", "create", "-f", "json", "key").stdout)
    key = {name.lower(): value for name, value in made.items()}
    by_key = {"identity": {"methods": ["application_credential"], "application_credential": {"id": key["id"], "secret": key["secret"]}}}
    answer = requests.post(cloud.url + "/identity/v3/auth/tokens", json={"auth": by_key}, timeout=60)
    assert answer.status_code == 201 and answer.json()["token"]["user"]["name"] == "ada"


def test_logins_that_do_not_hold(cloud):
    assert login(cloud, "ada", "ada-secret").status_code == 201
    assert login(cloud, "ADA", "ada-secret").json()["token"]["user"]["name"] == "ada", "as the directory compares"
    for name, password in [
        ("ada", "wrong"), ("ada", ""), ("eve", "eve-secret"), ("nobody", "x"), ("", "x"), ("*", "ada-secret"),
        ("a*", "ada-secret"), ("*)(uid=*", "ada-secret"), ("ada)(objectClass=*", "ada-secret"), ("ada\\", "ada-secret"),
        ("ada,ou=people", "ada-secret"), ("ada", "a" * 5000), ("reader", "reader-secret"), ("a\u0000da", "ada-secret"),
    ]:
        assert login(cloud, name, password).status_code in (400, 401), (name, password)
    refused = as_user(cloud, "ada", "wrong", "ship", "token", "issue", check=False)
    assert "401" in refused.stderr, refused.stderr
    for name in ["*)(uid=*", "*", "a*", "(", "\\2a"]:
        known = admin(cloud, "GET", "/v3/users", params={"name": name, "domain_id": cloud.json("domain", "show", "corp")["id"]})
        assert known.status_code == 200 and known.json()["users"] == [], name


def test_nothing_is_written_to_the_directory(cloud, corp):
    for words in [
        ["user", "create", "--domain", "corp", "new"],
        ["user", "set", "--domain", "corp", "--email", "x@x", "ada"],
        ["user", "set", "--domain", "corp", "--password", "x", "ada"],
        ["user", "delete", "--domain", "corp", "ada"],
        ["group", "create", "--domain", "corp", "new"],
        ["group", "set", "--domain", "corp", "--description", "x", "crew"],
        ["group", "delete", "--domain", "corp", "crew"],
        ["group", "add", "user", "--group-domain", "corp", "--user-domain", "corp", "crew", "bob"],
        ["group", "remove", "user", "--group-domain", "corp", "--user-domain", "corp", "crew", "ada"],
    ]:
        refused = cloud.run(*words, check=False)
        assert refused.returncode != 0, words
    answer = admin(cloud, "DELETE", f"/v3/users/{public_id(corp, 'user', 'ada')}")
    assert answer.status_code == 403 and answer.json()["error"]["message"].startswith("LDAP does not support write operations")
    assert cloud.json("user", "show", "--domain", "corp", "ada")["email"] == "ada@corp.example"
    assert "secret" not in json.dumps(admin(cloud, "GET", f"/v3/domains/{corp}/config").json()["config"]["ldap"])


def test_the_directory_has_the_last_word(cloud, directory, ship, corp):
    where = {"project": {"name": "ship", "domain": {"name": "Default"}}}
    assert login(cloud, "bob", "bob-secret", scope=where).json()["token"]["roles"][0]["name"] == "reader"
    directory.modify(f"dn: cn=crew,{GROUPS}\nchangetype: modify\nadd: member\nmember: uid=bob,{PEOPLE}\n")
    roles = login(cloud, "bob", "bob-secret", scope=where).json()["token"]["roles"]
    assert sorted(role["name"] for role in roles) == ["member", "reader"]
    directory.modify(f"dn: cn=crew,{GROUPS}\nchangetype: modify\ndelete: member\nmember: uid=bob,{PEOPLE}\n")
    directory.modify(f"dn: uid=bob,{PEOPLE}\nchangetype: modify\nreplace: userPassword\nuserPassword: other\n")
    assert login(cloud, "bob", "bob-secret").status_code == 401
    roles = login(cloud, "bob", "other", scope=where).json()["token"]["roles"]
    assert [role["name"] for role in roles] == ["reader"]
    directory.modify(f"dn: uid=bob,{PEOPLE}\nchangetype: delete\n")
    assert login(cloud, "bob", "other").status_code == 401
    bob = public_id(corp, "user", "bob")
    assert admin(cloud, "GET", f"/v3/users/{bob}").status_code == 404
    role = cloud.json("role", "show", "reader")["id"]
    ship = cloud.json("project", "show", "ship")["id"]
    assert admin(cloud, "PUT", f"/v3/projects/{ship}/users/{bob}/roles/{role}").status_code == 404
    assert admin(cloud, "DELETE", f"/v3/projects/{ship}/users/{bob}/roles/{role}").status_code == 204, "what is left can go"


@pytest.mark.parametrize("how", ["ldaps", "use_tls"])
def test_over_tls_by_an_authority_of_its_own(cloud, directory, how):
    name = f"tls-{how}"
    cloud.run("domain", "create", name)
    words = {"url": directory.urls[1]} if how == "ldaps" else {"use_tls": True}
    configure(cloud, directory, name, tls_cacertfile=str(directory.ca), **words)
    assert login(cloud, "ada", "ada-secret", name).status_code == 201
    assert login(cloud, "ada", "wrong", name).status_code == 401
    configure(cloud, directory, name, **words)
    refused = login(cloud, "ada", "ada-secret", name)
    assert refused.status_code == 503 and name in refused.json()["error"]["message"], "nobody here knows that authority"
    configure(cloud, directory, name, tls_req_cert="never", **words)
    assert login(cloud, "ada", "ada-secret", name).status_code == 201


def test_a_directory_that_lists_too_much_says_how_to_ask(cloud, directory):
    cloud.run("domain", "create", "unpaged")
    domain = configure(cloud, directory, "unpaged", page_size=0)
    answer = admin(cloud, "GET", "/v3/users", params={"domain_id": domain})
    assert answer.status_code == 413 and "page_size" in answer.json()["error"]["message"], answer.text
    assert len(admin(cloud, "GET", "/v3/users", params={"domain_id": domain, "name__startswith": "many00"}).json()["users"]) == 10
    configure(cloud, directory, "unpaged", user_filter="(|(uid=ada)(uid=many149))")
    assert len(admin(cloud, "GET", "/v3/users", params={"domain_id": domain}).json()["users"]) == 2
    configure(cloud, directory, "unpaged", user_filter="(uid=ada")
    answer = admin(cloud, "GET", "/v3/users", params={"domain_id": domain})
    assert answer.status_code == 503 and "user_filter" in answer.json()["error"]["message"], answer.text


def test_a_directory_that_is_away_is_named_and_nobody_else_notices(cloud, directory, ship, corp):
    where = {"project": {"name": "ship", "domain": {"name": "Default"}}}
    token = login(cloud, "ada", "ada-secret", scope=where).headers["X-Subject-Token"]
    directory.stop()
    try:
        refused = login(cloud, "ada", "ada-secret", scope=where)
        said = refused.json()["error"]["message"]
        assert refused.status_code == 503 and "domain corp" in said, refused.text
        assert "secret" not in refused.text and "127.0.0.1" not in refused.text
        refused = cloud.run("user", "list", "--domain", "corp", check=False)
        assert refused.returncode != 0 and "directory of the domain corp" in refused.stderr, refused.stderr
        assert len(cloud.json("user", "list", "--domain", "default")) >= 2
        assert cloud.run("token", "issue").returncode == 0
        mine = requests.get(cloud.url + "/identity/v3/auth/projects", headers={"X-Auth-Token": token}, timeout=60)
        assert [project["name"] for project in mine.json()["projects"]] == ["ship"], "a token that is there goes on"
    finally:
        directory.start()
    assert login(cloud, "ada", "ada-secret", scope=where).status_code == 201


def test_a_directory_that_says_nothing_is_given_up(cloud, directory):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cloud.run("domain", "create", "silent")
        configure(cloud, directory, "silent", url=f"ldap://127.0.0.1:{silent.getsockname()[1]}")
        refused = login(cloud, "ada", "ada-secret", "silent")
        assert refused.status_code == 503 and "silent does not answer in time" in refused.json()["error"]["message"], refused.text
    with socket.create_server(("127.0.0.1", 0)) as dead:
        gone = dead.getsockname()[1]
    # The second of two servers answers where the first is away.
    configure(cloud, directory, "silent", url=f"ldap://127.0.0.1:{gone},{directory.urls[0]}")
    assert login(cloud, "ada", "ada-secret", "silent").status_code == 201


def test_users_of_a_directory_that_a_keystone_knew_keep_ids_and_rights(directory, tmp_path):
    source = pathlib.Path(__file__).parent / "keystone" / "sqlite"
    facts = json.loads((source / "facts.json").read_text())
    shutil.copy(source / "keystone.db", tmp_path / "keystone.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "keystone.db")) as tables, tables:
        tables.execute(f"INSERT INTO id_mapping VALUES ('id-of-many007', '{facts['domain']}', 'many007', 'user')")
        tables.execute(f"INSERT INTO id_mapping VALUES ('id-of-crew', '{facts['domain']}', 'crew', 'group')")
        for kind, actor in (("UserProject", "id-of-many007"), ("GroupProject", "id-of-crew")):
            tables.execute("INSERT INTO assignment VALUES (?, ?, ?, ?, 0)", (kind, actor, facts["projects"]["lab"], facts["roles"]["reader"]))
    simulated = lib.Simulated(hosts=1)
    try:
        cloud = simulated.cloud
        done = nubo(cloud, "keystone", "import", tmp_path / "keystone.db", "--rename=-keystone")
        assert done.returncode == 0, done.stderr
        domain = admin(cloud, "GET", f"/v3/domains/{facts['domain']}").json()["domain"]["name"]
        early = admin(cloud, "GET", "/v3/users/id-of-many007")
        assert early.status_code == 503, "the directory that the Keystone had is not there"
        configure(cloud, directory, domain)
        where = {"project": {"id": facts["projects"]["lab"]}}
        answer = login(cloud, "many007", "many007-secret", domain, where)
        assert answer.status_code == 201, answer.text
        assert answer.json()["token"]["user"]["id"] == "id-of-many007"
        assert login(cloud, "paren(the)sis", "paren(the)sis-secret", domain, where).status_code == 201, "by the group"
        assert login(cloud, "many008", "many008-secret", domain, where).status_code == 401
    finally:
        assert simulated.stop() == 0


def nubo(cloud, *words):
    import openstack.config

    auth = openstack.config.OpenStackConfig(config_files=[str(cloud.clouds)], load_envvars=False).get_one("nubo").config["auth"]
    env = {"PATH": "/usr/bin:/bin", "OS_AUTH_URL": auth["auth_url"], "OS_USERNAME": auth["username"],
           "OS_PASSWORD": auth["password"], "OS_PROJECT_NAME": auth["project_name"]}
    return subprocess.run([str(lib.NUBO), *map(str, words)], env=env, capture_output=True, text=True, timeout=60)
