"""Images in S3 and in RBD: a real Ceph with radosgw, real clients, and processes that are killed."""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.parse

import pytest

import ceph as ceph_of
import lib

PART = 16 << 20
# Several parts, and no whole number of them.
SIZE = 2 * PART + 4 * (1 << 20) + 123


@pytest.fixture(scope="module")
def ceph():
    with ceph_of.ceph() as made:
        yield made


class Stored:
    """A cloud on simulated hosts whose images go to the Ceph; it can be killed and started again."""

    def __init__(self, ceph, state):
        self.ceph, self.state = ceph, state
        state.mkdir()
        (state / "nubo.toml").write_text(f"""
image_default_store = "s3"
[image_stores.s3]
type = "s3"
endpoint = "{ceph.endpoint}"
bucket = "{ceph.bucket}"
prefix = "nubo/"
access_key = "{ceph.access_key}"
secret_file = "{ceph.secret_file}"
weight = 10
[image_stores.rbd]
type = "rbd"
pool = "{ceph.pool}"
user = "{ceph.user}"
conf = "{ceph.conf}"
description = "disks of Ceph"
""")
        self.start()

    def start(self):
        self.simulated = lib.Simulated(hosts=1, NUBO_STATE=str(self.state))
        self.cloud = self.simulated.cloud
        self.token = self.cloud.json("token", "issue")["id"]

    def kill(self):
        self.simulated.process.kill()
        self.simulated.process.wait()

    def connect(self):
        return http.client.HTTPConnection(urllib.parse.urlsplit(self.cloud.url).netloc, timeout=120)

    def call(self, method, path, body=None, **headers):
        return self.raw(method, f"/image/v2{path}", body, **headers)

    def raw(self, method, path, body=None, **headers):
        """Status, headers and bytes."""
        connection = self.connect()
        headers = {"X-Auth-Token": self.token, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if isinstance(body, dict):
            headers["Content-Type"], body = "application/json", json.dumps(body)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def image(self):
        status, _, body = self.call("POST", "/images", {"name": "i", "disk_format": "raw", "container_format": "bare"})
        assert status == 201, body
        return json.loads(body)["id"]

    def upload(self, data, store=None):
        image = self.image()
        headers = {"Content_Type": "application/octet-stream", **({"x_image_meta_store": store} if store else {})}
        status, _, body = self.call("PUT", f"/images/{image}/file", data, **headers)
        assert status == 204, body
        return image

    def show(self, image):
        return json.loads(self.call("GET", f"/images/{image}")[2])

    def data(self, image, query="", **headers):
        status, _, body = self.call("GET", f"/images/{image}/file{query}", **headers)
        assert status in (200, 206), body
        return body

    def copy(self, image, store):
        status, _, body = self.call("POST", f"/images/{image}/import", {"method": {"name": "copy-image"}, "stores": [store]})
        assert status == 202, body
        there = lib.wait_for("the copy", lambda: (it := self.show(image)) and not it.get("os_glance_import_task") and it, 120)
        assert store in there["stores"].split(","), there

    def delete(self, *images):
        for image in images:
            status, _, body = self.call("DELETE", f"/images/{image}")
            assert status == 204, body

    def local(self):
        """Files of images on the machine, without the folder of their contents."""
        return [path.name for path in (self.state / "control/images").iterdir() if path.is_file()]

    def is_clean(self):
        return not self.ceph.in_bucket() and not self.ceph.in_pool() and not self.local()

    def wait_clean(self):
        lib.wait_for("nothing is left", self.is_clean, 60, 0.5)


@pytest.fixture(scope="module")
def stored(ceph, tmp_path_factory):
    made = Stored(ceph, tmp_path_factory.mktemp("stored") / "state")
    try:
        yield made
    finally:
        made.simulated.stop()


def test_the_drivers_conform(ceph):
    """The conformance of all drivers, which is a test of the crate, on this Ceph: S3 with TLS, which the others are without."""
    lib.require("cargo", (lib.ROOT / "Cargo.toml").exists() and lib.shutil.which("cargo"), "no cargo")
    stores = {
        "s3": {"type": "s3", "endpoint": f"https://127.0.0.1:{ceph.tls_port}", "ca_file": str(ceph.ca_file),
               "bucket": ceph.bucket, "prefix": "c/",
               "access_key": ceph.access_key, "secret_file": str(ceph.secret_file)},
        "rbd": {"type": "rbd", "pool": ceph.pool, "user": ceph.user, "conf": str(ceph.conf), "prefix": "c."},
    }
    run = subprocess.run(["cargo", "test", "-q", "-p", "image", "real_ones_conform", "--", "--ignored"], cwd=lib.ROOT,
                         env={**os.environ, "NUBO_TEST_STORES": json.dumps(stores)}, capture_output=True, text=True, timeout=1500)
    assert run.returncode == 0 and "1 passed" in run.stdout, run.stdout + run.stderr
    assert ceph.in_bucket() == [] and ceph.in_pool() == []


def test_bytes_go_to_each_store_and_come_back(ceph, stored, tmp_path):
    data = os.urandom(SIZE)
    file = tmp_path / "disk.raw"
    file.write_bytes(data)
    first = stored.cloud.json("image", "create", "--disk-format", "raw", "--container-format", "bare", "--file", file, "a")["id"]
    second = stored.upload(data, "rbd")
    assert [stored.show(image)["stores"] for image in (first, second)] == ["s3", "rbd"]
    assert stored.local() == []
    sha512 = hashlib.sha512(data).hexdigest()
    (name,), (disk,) = ceph.in_bucket(), ceph.in_pool()
    assert name.startswith(f"nubo/{sha512}-") and disk.startswith(f"{sha512}-")
    (snap,) = json.loads(ceph.run("rbd", "snap", "ls", "--format", "json", f"{ceph.pool}/{disk}"))
    assert (snap["name"], snap["size"], snap["protected"]) == ("snap", SIZE, "true")
    for image in (first, second):
        saved = tmp_path / image
        stored.cloud.run("image", "save", "--file", saved, image)
        assert saved.read_bytes() == data
        for begin, end in ((0, 0), (PART - 5, PART + 5), (SIZE - 7, SIZE - 1)):
            assert stored.data(image, Range=f"bytes={begin}-{end}") == data[begin:end + 1]
        assert stored.data(image, "?verify=true") == data
    detail = json.loads(stored.call("GET", "/info/stores/detail")[2])["stores"]
    assert [(it["id"], it["type"], it.get("default")) for it in detail] == [
        ("local", "file", None), ("rbd", "rbd", None), ("s3", "s3", "true")]
    # The same bytes again are the same objects, until the last image that has them is gone.
    again = [stored.upload(data), stored.upload(data, "rbd")]
    assert ceph.in_bucket() == [name] and ceph.in_pool() == [disk]
    stored.delete(first, second)
    assert stored.data(again[0]) == data and stored.data(again[1]) == data
    stored.delete(*again)
    stored.wait_clean()


def test_copies_go_from_one_to_the_other_and_back(ceph, stored):
    data = os.urandom(3 << 20)
    image = stored.upload(data)
    stored.copy(image, "rbd")
    assert stored.call("DELETE", f"/stores/s3/{image}")[0] == 204
    lib.wait_for("the object is gone", lambda: ceph.in_bucket() == [], 30, 0.5)
    assert stored.data(image) == data
    stored.copy(image, "s3")
    stored.copy(image, "local")
    assert stored.call("DELETE", f"/stores/rbd/{image}")[0] == 204
    lib.wait_for("the disk is gone", lambda: ceph.in_pool() == [], 30, 0.5)
    assert stored.data(image, "?verify=true") == data
    stored.delete(image)
    stored.wait_clean()


def test_a_server_boots_from_an_image_in_s3(stored):
    image = stored.upload(os.urandom(1 << 20))
    stored.cloud.run("flavor", "create", "small", "--ram", "64", "--disk", "1", "--vcpus", "1")
    server = stored.cloud.json("server", "create", "--flavor", "small", "--image", image, "--nic", "none", "--wait", "s")
    assert server["status"] == "ACTIVE"
    # And its disk becomes an image, which goes where all go.
    stored.cloud.run("server", "image", "create", "--name", "shot", "--wait", server["id"])
    shot = stored.cloud.json("image", "show", "shot")
    assert shot["status"] == "active" and stored.show(shot["id"])["stores"] == "s3"
    stored.cloud.run("server", "delete", "--wait", server["id"])
    stored.delete(image, shot["id"])
    stored.wait_clean()


@contextlib.contextmanager
def half_sent(stored, image, store, data):
    """An upload of which half has come."""
    split = urllib.parse.urlsplit(stored.cloud.url)
    with socket.create_connection((split.hostname, split.port)) as connection:
        head = (f"PUT /image/v2/images/{image}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {stored.token}\r\n"
                f"Content-Type: application/octet-stream\r\nContent-Length: {len(data)}\r\nx-image-meta-store: {store}\r\n\r\n")
        connection.sendall(head.encode() + data[:len(data) // 2])
        lib.wait_for("the upload begins", lambda: stored.show(image)["status"] == "saving", 30)
        yield connection


@pytest.mark.parametrize("store", ["s3", "rbd"])
def test_a_kill_leaves_nothing(ceph, stored, store):
    data = os.urandom(6 * PART)
    arriving = {
        "s3": lambda: ceph.in_bucket(),
        "rbd": lambda: [name for name in ceph.in_pool() if name.endswith(".arriving")],
    }[store]
    # In the middle of the upload, and in the middle of the put.
    for while_put in (False, True):
        image = stored.image()
        with half_sent(stored, image, store, data) as connection:
            if while_put:
                connection.sendall(data[len(data) // 2:])
                lib.wait_for("it is being put", arriving, 60, 0.01)
            stored.kill()
        stored.start()
        lib.wait_for("the image is queued again", lambda: stored.show(image)["status"] == "queued", 60)
        stored.wait_clean()
        stored.delete(image)


def test_a_store_that_does_not_answer_holds_nobody_up(ceph, stored):
    data = os.urandom(100_000)
    alone, twice = stored.upload(data), stored.upload(data[::-1])
    stored.copy(twice, "rbd")
    ceph.stop("rgw")
    try:
        new = stored.image()
        began = time.monotonic()
        status, _, body = stored.call("PUT", f"/images/{new}/file", data, Content_Type="application/octet-stream")
        assert status == 503 and b"image store 's3' does not answer: connection refused" in body, body
        assert stored.show(new)["status"] == "queued"
        status, _, body = stored.call("GET", f"/images/{alone}/file")
        assert status == 503 and b"image store 's3' does not answer" in body, body
        assert stored.data(twice) == data[::-1], "from the other copy"
        stored.delete(alone)
        assert time.monotonic() - began < 30
    finally:
        ceph.start_rgw()
    lib.wait_for("the deletion is finished", lambda: len(ceph.in_bucket()) == 1, 120, 0.5)
    # One that takes what is said to it and answers nothing.
    rgw = ceph.daemons["rgw"]
    rgw.send_signal(signal.SIGSTOP)
    try:
        status, _, body = stored.call("PUT", f"/images/{new}/file", data, Content_Type="application/octet-stream")
        assert status == 503 and b"nothing came for 10 seconds" in body, body
    finally:
        rgw.send_signal(signal.SIGCONT)
    stored.delete(twice, new)
    stored.wait_clean()


def test_damage_is_found_on_demand(ceph, stored):
    data = os.urandom(200_000)
    image = stored.upload(data)
    stored.copy(image, "rbd")
    (name,) = ceph.in_bucket()
    ceph.swift("PUT", name, b"x" * len(data))
    assert stored.data(image) == b"x" * len(data), "nobody has asked"
    assert stored.data(image, "?verify=true") == data, "from the other copy"
    # Nobody joins what is known to be damaged.
    other = stored.upload(data)
    assert stored.data(other) == data and len(ceph.in_bucket()) == 2
    assert stored.call("DELETE", f"/stores/rbd/{image}")[0] == 204
    status, _, body = stored.call("GET", f"/images/{image}/file?verify=true")
    assert status == 503 and b"the copy in 's3' has other bytes" in body, body
    stored.delete(image, other)
    stored.wait_clean()


def test_fsck_tells_what_does_not_agree(ceph, stored):
    def audit():
        status, _, body = stored.raw("GET", "/nubo/v1/audit")
        assert status == 200, body
        return [(it["kind"], it["id"], it["what"]) for it in json.loads(body)["findings"]]

    image = stored.upload(os.urandom(1000))
    assert audit() == []
    (name,) = ceph.in_bucket()
    ceph.swift("DELETE", name)
    nobodys = "ab" * 64 + "-0123456789abcdef"
    ceph.swift("PUT", f"nubo/{nobodys}", b"nobody's")
    ceph.swift("PUT", "nubo/notes.txt", b"no object of ours")
    lost = ("image_object", f"s3/{name.removeprefix('nubo/')}", "it is not in the image store 's3'")
    stray = ("image_object", f"s3/{nobodys}", "it lies in the image store 's3' and has no owner")
    assert sorted(audit()) == sorted([lost, stray])
    wanted = {"objects": [{"kind": kind, "id": name} for kind, name, _ in (lost, stray)]}
    status, _, body = stored.raw("POST", "/nubo/v1/repair", wanted)
    assert status == 200 and len(json.loads(body)["done"]) == 1, body
    lib.wait_for("it is gone", lambda: ceph.in_bucket() == ["nubo/notes.txt"], 30, 0.5)
    assert audit() == [lost]
    stored.delete(image)
    ceph.swift("DELETE", "nubo/notes.txt")
    stored.wait_clean()
    lib.wait_for("all agrees", lambda: audit() == [], 30, 0.5)
