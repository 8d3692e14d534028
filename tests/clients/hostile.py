"""What the tests of bad input share: plain HTTP to every service, envelopes, lists before and after, hostile disks."""

import base64
import json
import pathlib
import re
import sqlite3
import struct
import time
import uuid

import requests

MIB = 1 << 20
PATHS = {"identity": "/identity/v3", "compute": "/compute/v2.1", "network": "/network/v2.0", "image": "/image/v2"}
REQUEST_ID = re.compile(r"^req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

# Every list in which a refused request could leave something: (service, path, key).
LISTS = [
    ("identity", "/projects", "projects"), ("identity", "/users", "users"), ("identity", "/roles", "roles"),
    ("identity", "/domains", "domains"), ("identity", "/groups", "groups"), ("identity", "/services", "services"),
    ("identity", "/endpoints", "endpoints"), ("identity", "/role_assignments", "role_assignments"),
    ("compute", "/servers/detail?all_tenants=1", "servers"), ("compute", "/flavors/detail?is_public=None", "flavors"),
    ("compute", "/os-keypairs", "keypairs"), ("network", "/networks", "networks"), ("network", "/subnets", "subnets"),
    ("network", "/ports", "ports"), ("network", "/routers", "routers"), ("network", "/floatingips", "floatingips"),
    ("network", "/security-groups", "security_groups"), ("image", "/images", "images"),
]


class Api:
    """One cloud as a program without a client library sees it. Checks what holds for every answer."""

    def __init__(self, cloud):
        self.url = cloud.url
        self.state = cloud.clouds.parent
        self.http = requests.Session()
        self.admin = cloud.sdk("nubo").auth_token

    def ask(self, method, service, path, token=None, headers=None, **body):
        headers = {"X-Auth-Token": self.admin if token is None else token, **(headers or {})}
        headers = {name: value for name, value in headers.items() if value != ""}
        answer = self.http.request(method, self.url + PATHS[service] + path, headers=headers, timeout=60, **body)
        assert REQUEST_ID.match(answer.headers.get("X-Openstack-Request-Id", "")), (method, path, answer.headers)
        return answer

    def good(self, method, service, path, token=None, **body):
        """What must be answered well."""
        answer = self.ask(method, service, path, token, **body)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else {}

    def make(self, service, path, key, token=None, **fields):
        made = self.good("POST", service, path, token, json={key: fields} if key else fields)
        return made[key] if key else made

    def token(self, user, password, project=None):
        scope = {"scope": {"project": {"id": project}}} if project else {}
        who = {"user": {"name": user, "domain": {"id": "default"}, "password": password}}
        body = {"auth": {"identity": {"methods": ["password"], "password": who}, **scope}}
        answer = self.ask("POST", "identity", "/auth/tokens", "", json=body)
        assert answer.status_code == 201, answer.text
        return answer.headers["X-Subject-Token"]

    def files(self):
        """Every file of the image folder, those of transfers and names by content included."""
        files = (path for path in (self.state / "control/images").rglob("*") if path.is_file())
        return sorted((path.name, path.stat().st_size) for path in files)

    def all(self):
        """Everything that the cloud shows, and the bytes that it keeps."""
        shown = {}
        for service, path, key in LISTS:
            rows = self.good("GET", service, path)[key]
            shown[path] = sorted(json.dumps(row, sort_keys=True) for row in rows)
        return shown, self.files()


def refusal(answer, service, status):
    """The message of a refusal in the envelope of its service, after the condition's name where there is one."""
    assert answer.status_code == status, f"{answer.status_code} instead of {status}: {answer.text[:500]}"
    assert answer.headers["Content-Type"].startswith("application/json"), answer.headers
    body = answer.json()
    if status == 401 or service == "identity":
        assert set(body) == {"error"} and body["error"]["code"] == status and body["error"]["title"], body
        text = body["error"]["message"]
    elif service == "network":
        assert set(body) == {"NeutronError"} and set(body["NeutronError"]) == {"type", "message", "detail"}, body
        assert re.fullmatch(r"[A-Za-z]+", body["NeutronError"]["type"]), body
        text = f"{body['NeutronError']['type']} {body['NeutronError']['message']}"
    elif service == "compute":
        (name, fault), = body.items()
        names = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 405: "badMethod", 406: "notAcceptable",
                 409: "conflictingRequest", 413: "overLimit", 414: "computeFault"}
        assert name == names[status] and fault["code"] == status, body
        text = fault["message"]
    else:
        assert set(body) == {"code", "title", "message"} and body["code"].startswith(str(status)), body
        text = body["message"]
    assert len(text) > 5 and not re.search(r"Traceback|unexpected error|panicked|expected struct", text), body
    return text


class Populated:
    """Two projects with a thing of each kind, so that there is something to reach for and to be in use."""

    def __init__(self, api):
        self.api, self.tag = api, uuid.uuid4().hex[:8]
        self.ids, self.tokens, self.users = {}, {}, {}
        self.ids["image"] = self.image(api.admin, visibility="public")
        self.ids["flavor"] = api.make("compute", "/flavors", "flavor", name=f"bad-{self.tag}", ram=64, vcpus=1, disk=1)["id"]
        self.ids["member"] = next(r["id"] for r in api.good("GET", "identity", "/roles")["roles"] if r["name"] == "member")
        for who in ("mine", "other"):
            self.project(who)

    def project(self, who):
        api, name, ids = self.api, f"{who}-{self.tag}", self.ids
        project = ids[f"{who}_project"] = api.make("identity", "/projects", "project", name=name)["id"]
        user = ids[f"{who}_user"] = api.make("identity", "/users", "user", name=name, password="secret")["id"]
        api.good("PUT", "identity", f"/projects/{project}/users/{user}/roles/{ids['member']}")
        token = self.tokens[who] = api.token(name, "secret", project)
        net = ids[f"{who}_net"] = api.make("network", "/networks", "network", token, name=name)["id"]
        subnet = ids[f"{who}_subnet"] = api.make(
            "network", "/subnets", "subnet", token, network_id=net, ip_version=4, cidr="10.77.0.0/24")["id"]
        group = ids[f"{who}_group"] = api.make("network", "/security-groups", "security_group", token, name=name)["id"]
        ids[f"{who}_rule"] = api.make("network", "/security-group-rules", "security_group_rule", token,
                                      security_group_id=group, direction="ingress", protocol="tcp")["id"]
        ids[f"{who}_port"] = api.make("network", "/ports", "port", token, network_id=net, security_groups=[group],
                                      fixed_ips=[{"ip_address": "10.77.0.50"}])["id"]
        router = ids[f"{who}_router"] = api.make("network", "/routers", "router", token, name=name)["id"]
        api.good("PUT", "network", f"/routers/{router}/add_router_interface", token, json={"subnet_id": subnet})
        ids[f"{who}_image"] = self.image(token)
        api.make("compute", "/os-keypairs", "keypair", token, name=f"key-{who}")
        server = ids[f"{who}_server"] = api.make(
            "compute", "/servers", "server", token, name=name, imageRef=ids["image"], flavorRef=ids["flavor"],
            networks=[{"uuid": net}])["id"]
        self.settled(server, "ACTIVE")

    def image(self, token, **fields):
        made = self.api.make("image", "/images", None, token, disk_format="raw", container_format="bare", **fields)
        stream = {"Content-Type": "application/octet-stream"}
        self.api.good("PUT", "image", f"/images/{made['id']}/file", token, headers=stream, data=b"\0" * 65536)
        return made["id"]

    def settled(self, server, status, seconds=60):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            shown = self.api.good("GET", "compute", f"/servers/{server}")["server"]
            if shown["status"] == status and not shown["OS-EXT-STS:task_state"]:
                return shown
            time.sleep(0.05)
        raise AssertionError(f"{server} is {shown['status']}, not {status}")

    def fill(self, text):
        """Ids in place of `$name`."""
        return re.sub(r"\$([a-z_]+)", lambda found: self.ids.get(found[1], found[0]), text)

    def remove(self):
        api, ids = self.api, self.ids
        for who in ("mine", "other"):
            api.good("DELETE", "compute", f"/servers/{ids[f'{who}_server']}")
        for who in ("mine", "other"):
            token = self.tokens[who]
            gone = f"/servers/{ids[f'{who}_server']}"
            until = time.monotonic() + 60
            while api.ask("GET", "compute", gone).status_code != 404 and time.monotonic() < until:
                time.sleep(0.05)
            api.good("DELETE", "compute", f"/os-keypairs/key-{who}", token)
            api.good("PUT", "network", f"/routers/{ids[f'{who}_router']}/remove_router_interface", token,
                     json={"subnet_id": ids[f"{who}_subnet"]})
            for kind in ("router", "port", "net"):
                api.good("DELETE", "network", f"/{'network' if kind == 'net' else kind}s/{ids[f'{who}_{kind}']}", token)
            api.good("DELETE", "network", f"/security-groups/{ids[f'{who}_group']}", token)
            api.good("DELETE", "image", f"/images/{ids[f'{who}_image']}", token)
            api.good("DELETE", "identity", f"/users/{ids[f'{who}_user']}")
            api.good("DELETE", "identity", f"/projects/{ids[f'{who}_project']}")
        api.good("DELETE", "compute", f"/flavors/{ids['flavor']}")
        api.good("DELETE", "image", f"/images/{ids['image']}")


def token_key(state):
    """The key that seals tokens, opened with the cloud's secret key as an operator could."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    with sqlite3.connect(f"file:{state}/control/nubo.db?mode=ro", uri=True) as store:
        (key_id, body), = store.execute("SELECT id, body FROM document WHERE kind = 'token_keys'")
    primary = json.loads(body)["primary"]
    secret = json.loads(pathlib.Path(state, "setup.json").read_text())["secret_keys"][primary["key"] - 1]
    sealed = base64.b64decode(primary["sealed"])
    place = "\0".join(["token_keys", key_id, "primary"]).encode()
    return ChaCha20Poly1305(base64.b64decode(secret)).decrypt(sealed[:12], sealed[12:], place).decode()


def with_expiry(state, token, moment):
    """The same token, sealed by the cloud's own key, but with another end."""
    import msgpack
    from cryptography.fernet import Fernet

    seal = Fernet(token_key(state))
    padded = token + "=" * (-len(token) % 4)
    payload = msgpack.unpackb(seal.decrypt(padded.encode()), raw=False, strict_map_key=False)
    payload = [float(moment) if isinstance(part, float) else part for part in payload]
    sealed = seal.encrypt_at_time(msgpack.packb(payload), seal.extract_timestamp(padded.encode()))
    return sealed.decode().rstrip("=")


def put(data, at, value):
    data[at:at + len(value)] = value
    return data


def qcow2(size=64 * MIB, l1_entries=1):
    """An empty disk as qcow2 version 3, clusters of 64 KiB."""
    data = put(bytearray(4 << 16), 0, b"QFI\xfb" + struct.pack(">I", 3))
    put(data, 20, struct.pack(">IQIIQQII", 16, size, 0, l1_entries, 3 << 16, 1 << 16, 1, 0))
    return put(data, 96, struct.pack(">II", 4, 104))


def backed():
    data = put(qcow2(), 8, struct.pack(">QI", 512, 11))
    return put(data, 512, b"/etc/shadow")


def iso():
    return put(bytearray(MIB), 32768, b"\x01CD001\x01")


NOT_WHAT_THEY_SAY = {
    "backing file": ("qcow2", backed, "a backing file ('/etc/shadow')"),
    "external data file": ("qcow2", lambda: put(qcow2(), 72, struct.pack(">Q", 4)), "an external data file"),
    "size bomb": ("qcow2", lambda: qcow2(3 << 40, 6144), "unfolds to a disk of 3 TiB"),
    "truncated": ("qcow2", lambda: qcow2()[:3 << 16], "truncated"),
    "VMDK called raw": ("raw", lambda: b"KDMV" + bytes(MIB), "a VMDK file"),
    "VMDK descriptor called raw": ("raw", lambda: b"# Disk DescriptorFile\nversion=1\n", "a VMDK file"),
    "ISO called raw": ("raw", iso, "an ISO 9660/UDF file"),
    "qcow2 called raw": ("raw", qcow2, "a qcow2 file"),
    "raw called qcow2": ("qcow2", lambda: b"\x55" * MIB, "no image format that is known"),
}
