"""A Ceph of one node on loopback, with radosgw: everything in a temporary folder, every daemon a child of the test."""

import contextlib
import json
import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
import uuid

import pytest

import lib

PROGRAMS = ("ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "radosgw-admin", "rbd", "ceph-authtool", "monmaptool",
            "openssl")
OSD_BYTES = 2 << 30

CONF = """
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:127.0.0.1:{mon}]
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_ipv6 = false
auth_allow_insecure_global_id_reclaim = false
# One disk, and a machine whose own disk may be nearly full: the pools are small.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_warn = 0
mon_data_avail_crit = -1
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 500
mgr_initial_modules =
osd_objectstore = bluestore
osd_memory_target = 939524096
osd_memory_base = 268435456
osd_memory_cache_min = 67108864
bluestore_block_size = {osd_bytes}
bluestore_block_db_size = 0
bluestore_block_wal_size = 0
run_dir = {folder}/run
crash_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
pid_file = {folder}/run/$name.pid
log_file = {folder}/log/$name.log
keyring = {folder}/$name.keyring
rgw_frontends = beast endpoint=127.0.0.1:{rgw} ssl_endpoint=127.0.0.1:{tls} ssl_certificate={folder}/rgw.pem
rgw_data = {folder}/rgw
mon_data = {folder}/mon
mgr_data = {folder}/mgr
osd_data = {folder}/osd
"""


def free_port():
    """Below those that the kernel gives to connections, so that none takes it before its daemon does."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


class Ceph:
    """`endpoint`, `bucket`, `access_key` and `secret_file` of its S3; `conf`, `pool` and `user` of its RBD."""

    bucket, pool, user, access_key = "images", "images", "glance", "AK"

    def __init__(self, folder):
        self.folder, self.conf = folder, folder / "ceph.conf"
        self.daemons = {}
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.tls_port, self.ca_file = free_port(), folder / "rgw.crt"
        self.secret_file = folder / "secret"
        self.secret_file.write_text("SK\n")
        self.secret_file.chmod(0o600)

    def run(self, program, *words, stdin=None):
        command = [program, "-c", str(self.conf), *map(str, words)]
        try:
            done = subprocess.run(command, cwd=self.folder, input=stdin, capture_output=True, timeout=60)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{' '.join(command)}: no answer\n{self.logs()}")
        if done.returncode != 0:
            pytest.fail(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-2000:]}\n{self.logs()}")
        return done.stdout

    def logs(self):
        """Which daemons have ended, and the last words of all."""
        ended = {name: daemon.poll() for name, daemon in self.daemons.items() if daemon.poll() is not None}
        texts = [f"ended: {ended}"]
        for path in sorted((self.folder / "log").iterdir()):
            texts.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-12:]))
        return "\n".join(texts)[-12000:]

    def tool(self, *words):
        subprocess.run(list(map(str, words)), cwd=self.folder, check=True, capture_output=True, timeout=60)

    def start(self, name, *words):
        log = open(self.folder / "log" / f"{name}.out", "ab")
        self.daemons[name] = subprocess.Popen([*words, "-f", "-c", str(self.conf)], cwd=self.folder,
                                              stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self, name):
        daemon = self.daemons.pop(name, None)
        if daemon is not None:
            daemon.kill()
            daemon.wait()

    def up(self):
        for folder in ("mon", "mgr", "osd", "run", "log", "rgw"):
            (self.folder / folder).mkdir()
        fsid, mon = str(uuid.uuid4()), free_port()
        self.conf.write_text(CONF.format(fsid=fsid, mon=mon, rgw=self.port, tls=self.tls_port, folder=self.folder, osd_bytes=OSD_BYTES))
        self.tool("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                  "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "rgw.key", "-out",
                  self.ca_file)
        (self.folder / "rgw.pem").write_bytes(self.ca_file.read_bytes() + (self.folder / "rgw.key").read_bytes())
        caps = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"]
        self.tool("ceph-authtool", "-C", "mon.a.keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self.tool("ceph-authtool", "-C", "client.admin.keyring", "--gen-key", "-n", "client.admin", *caps)
        self.tool("ceph-authtool", "mon.a.keyring", "--import-keyring", "client.admin.keyring")
        self.tool("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon}]", "--fsid", fsid, "monmap")
        self.tool("ceph-mon", "-c", self.conf, "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "mon.a.keyring")
        self.start("mon", "ceph-mon", "-i", "a")
        self.key("mgr.x", "mgr.x.keyring", "mon", "allow profile mgr", "osd", "allow *", "mds", "allow *")
        self.start("mgr", "ceph-mgr", "-i", "x")
        self.make_osd()
        self.start("osd", "ceph-osd", "-i", "0")
        lib.wait_for("the disk of Ceph is up", lambda: b"1 up" in self.run("ceph", "osd", "stat"), 60, 0.5)
        self.run("ceph", "osd", "pool", "create", self.pool, "4")
        self.run("rbd", "pool", "init", self.pool)
        # What Glance's documentation gives its user, and no more.
        self.key(f"client.{self.user}", f"client.{self.user}.keyring", "mon", "profile rbd",
                 "osd", f"profile rbd pool={self.pool}", "mgr", f"profile rbd pool={self.pool}")
        self.key("client.rgw.a", "client.rgw.a.keyring", "mon", "allow rw", "osd", "allow rwx")
        self.start_rgw()
        self.run("radosgw-admin", "user", "create", "--uid=nubo", "--display-name=nubo", "--access-key=AK", "--secret=SK")
        self.run("radosgw-admin", "subuser", "create", "--uid=nubo", "--subuser=nubo:swift", "--access=full",
                 "--secret-key=SW", "--key-type=swift")
        self.swift("PUT", "")

    def key(self, name, file, *caps):
        (self.folder / file).write_bytes(self.run("ceph", "auth", "get-or-create", name, *caps))

    def make_osd(self):
        key = subprocess.run(["ceph-authtool", "--gen-print-key"], check=True, capture_output=True, text=True).stdout.strip()
        name = str(uuid.uuid4())
        self.run("ceph", "osd", "new", name, "-i", "-", stdin=json.dumps({"cephx_secret": key}).encode())
        self.tool("ceph-authtool", "-C", "osd.0.keyring", "--name", "osd.0", "--add-key", key)
        self.tool("ceph-osd", "-c", self.conf, "-i", "0", "--mkfs", "--osd-uuid", name)

    def start_rgw(self):
        self.start("rgw", "radosgw", "-n", "client.rgw.a")

        def answers():
            try:
                return urllib.request.urlopen(self.endpoint, timeout=5).status == 200
            except OSError:
                return False

        lib.wait_for("radosgw answers", answers, 60, 0.2)

    def swift(self, method, name, body=None):
        """A request to the other API of radosgw, past whoever uses S3: containers are its buckets."""
        login = urllib.request.Request(f"{self.endpoint}/auth/v1.0", headers={"X-Auth-User": "nubo:swift", "X-Auth-Key": "SW"})
        with urllib.request.urlopen(login, timeout=30) as answer:
            url, token = answer.headers["X-Storage-Url"], answer.headers["X-Auth-Token"]
        path = f"{url}/{self.bucket}" + (f"/{name}" if name else "")
        request = urllib.request.Request(path, data=body, method=method, headers={"X-Auth-Token": token})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def in_bucket(self):
        """The names of everything in the bucket, parts of unfinished uploads included."""
        listed = json.loads(self.run("radosgw-admin", "bucket", "list", f"--bucket={self.bucket}", "--allow-unordered"))
        return sorted(entry["name"] for entry in listed)

    def in_pool(self):
        return sorted(json.loads(self.run("rbd", "ls", "--format", "json", self.pool)))

    def down(self):
        for name in list(self.daemons):
            self.stop(name)


@contextlib.contextmanager
def ceph():
    """A running Ceph, gone again at the end whatever happens."""
    lib.require_root()
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    lib.require("ceph", not missing, f"no {', '.join(missing)}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nubo-ceph-", dir="/var/tmp"))
    made = Ceph(folder)
    try:
        made.up()
        yield made
    finally:
        made.down()
        shutil.rmtree(folder)
