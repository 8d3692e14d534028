"""`nubo fsck` finds every kind of damage that is planted by hand, names its object, repairs it, and touches no healthy guest.

Damage is a function with the name of its group: what can be told apart is planted together, found by one look and
repaired by one call. It returns what one line of the listing must say. What is marked `by_hand` must be found and stay
for a person; its function then returns also how the test takes it back.
"""

import functools
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import uuid

import http_in_netns
import lib
import pytest
import real

DAMAGE = {}
FOUND, REPAIRED = set(), set()


def damage(group, by_hand=False):
    def note(function):
        DAMAGE.setdefault(group, []).append((function, by_hand))
        return function

    return note


class Lab:
    """The demo as a bystander, and things of its own that are damaged."""

    def __init__(self, cloud):
        self.cloud, self.api = cloud, http_in_netns.Api(cloud)
        self.id, self.state = cloud.cloud_id(), cloud.state
        self.stray = str(uuid.uuid4())
        self.started = []
        self.containers = pathlib.Path(tempfile.mkdtemp(prefix="nubo-containers-"))
        self.image = self.api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
        self.flavor = next(f["id"] for f in self.api.get("compute", "/flavors")["flavors"] if f["name"] == "m1.tiny")
        self.public = self.api.get("network", "/v2.0/networks?name=public")["networks"][0]["id"]
        self.networks = {"demo-net": self.api.get("network", "/v2.0/networks?name=demo-net")["networks"][0]["id"]}
        self.router = self.make("routers", "router", name="side-router", external_gateway_info={"network_id": self.public})
        for name, cidr in [("side-net", "10.77.1.0/24"), ("empty-net", "10.77.2.0/24")]:
            self.networks[name] = self.make("networks", "network", name=name)
            subnet = self.make("subnets", "subnet", name=f"{name}-sub", network_id=self.networks[name], ip_version=4,
                               cidr=cidr)
            self.api.call("PUT", "network", f"/v2.0/routers/{self.router}/add_router_interface", {"subnet_id": subnet})
            self.subnet = subnet if name == "side-net" else self.subnet
        self.group = self.make("security-groups", "security_group", name="odd")
        self.rule = self.make("security-group-rules", "security_group_rule", security_group_id=self.group,
                              direction="ingress", ethertype="IPv4", protocol="tcp", port_range_min=7, port_range_max=7)
        self.servers = {name: self.server(name) for name in ("victim-a", "victim-b", "halted")}
        for name in self.servers:
            self.wait(name, "ACTIVE")
        self.api.post("compute", f"/servers/{self.servers['halted']}/action", {"os-stop": None})
        self.wait("halted", "SHUTOFF")
        # Two layers, and nobody has it open.
        self.volume = self.api.post("block-storage", "/volumes", {"volume": {"size": 1, "name": "data"}})["volume"]["id"]
        self.volume_is("available")
        body = {"snapshot": {"volume_id": self.volume, "name": "kept"}}
        self.snapshot = self.api.post("block-storage", "/snapshots", body)["snapshot"]["id"]
        kept = lambda: self.api.get("block-storage", f"/snapshots/{self.snapshot}")["snapshot"]["status"] == "available"
        lib.wait_for("the snapshot is there", kept, 60, 0.2)
        self.demo = self.api.get("compute", "/servers?name=^demo$")["servers"][0]["id"]
        self.bystander = cloud.guests()[self.demo]

    def make(self, many, one, **fields):
        return self.api.post("network", f"/v2.0/{many}", {one: fields})[one]["id"]

    def server(self, name):
        body = {"name": name, "imageRef": self.image, "flavorRef": self.flavor,
                "networks": [{"uuid": self.networks["side-net"]}]}
        return self.api.post("compute", "/servers", {"server": body})["server"]["id"]

    def status(self, name):
        return self.api.get("compute", f"/servers/{self.servers[name]}")["server"]["status"]

    def wait(self, name, status):
        lib.wait_for(f"{name} is {status}", lambda: self.status(name) == status, 120, 0.2)

    def volume_is(self, status):
        there = lambda: self.api.get("block-storage", f"/volumes/{self.volume}")["volume"]["status"] == status
        lib.wait_for(f"the volume is {status}", there, 60, 0.2)

    def layers(self):
        """The folder of the volume, and its layers from the bottom."""
        folder = self.state / "hosts" / "volumes" / self.volume
        layers = json.loads((folder / "disk.json").read_text())["layers"]
        return folder, [f"{layer['number']}.{layer['format']}" for layer in layers]

    def port(self, name):
        return self.api.get("network", f"/v2.0/ports?device_id={self.servers[name]}")["ports"][0]["id"]

    def tap(self, name):
        return "tap" + self.port(name)[-12:]

    def pid(self, name):
        return self.cloud.guests()[self.servers[name]][0]

    def space(self, name):
        """The namespace of a network, or of the router."""
        if name == "side-router":
            return f"nubo-{self.id}-r-{self.router[-12:]}"
        return f"nubo-{self.id}-n-{self.networks[name][-12:]}"

    def ip(self, space, *words):
        subprocess.run(["ip", "-n", space, *words], check=True)

    def nft(self, space, *words):
        subprocess.run(["ip", "netns", "exec", space, "nft", *words], check=True)

    def tables(self, space):
        return [line.split()[1:3] for line in real.said("ip", "netns", "exec", space, "nft", "list", "tables").splitlines()]

    def folder(self, name):
        return self.state / "hosts" / "guests" / self.servers[name]

    def images(self):
        return self.state / "control" / "images"

    def image_file(self):
        (path,) = [path for path in self.images().iterdir() if path.name.startswith(self.image)]
        return path

    def cached(self):
        (path,) = [p for p in (self.state / "hosts" / "images").iterdir() if len(p.name) > 128 and p.stat().st_size > 1000]
        return path

    def account(self, part):
        import pwd

        return pwd.getpwnam(f"nubo-{self.id}-{part}")

    def sql(self, text, *values):
        store = sqlite3.connect(self.state / "control" / "nubo.db", timeout=30)
        try:
            with store:
                return store.execute(text, values).fetchall()
        finally:
            store.close()

    def bridge(self):
        links = json.loads(real.said("ip", "-n", self.cloud.netns, "-j", "link", "show", "type", "bridge"))
        (link,) = [link for link in links if link["ifname"].startswith("nubr-")]
        return link["ifname"]

    def cgroup(self, controller, *names):
        return pathlib.Path("/sys/fs/cgroup", controller, f"nubo-{self.id}", *names)

    def run(self, *words, **options):
        process = subprocess.Popen([str(word) for word in words], start_new_session=True, **options)
        self.started.append(process)
        return process

    def fsck(self, *words):
        done = self.cloud.nubo("fsck", *words, check=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done

    def held_still(self):
        """Stops the agent: every half minute it heals by itself what is planted, and would be faster than the look."""
        agent = self.cloud.pid("agent")
        os.kill(agent, signal.SIGSTOP)
        return agent

    def let_go(self, agent):
        if real.start_time(agent) is not None:
            os.kill(agent, signal.SIGCONT)

    def close(self):
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for folder in self.containers.iterdir():
            subprocess.run(["lxc-stop", "--kill", "-P", self.containers, "-n", folder.name], capture_output=True)
        shutil.rmtree(self.containers)


@pytest.fixture(scope="module")
def lab(cloud):
    lab = Lab(cloud)
    yield lab
    lab.close()
    for name, server in lab.servers.items():
        lab.api.delete("compute", f"/servers/{server}")
    gone = lambda: not [s for s in lab.api.get("compute", "/servers")["servers"] if s["id"] in lab.servers.values()]
    lib.wait_for("the victims are gone", gone, 60)
    lab.api.delete("block-storage", f"/volumes/{lab.volume}?cascade=true")
    for port in lab.api.get("network", f"/v2.0/ports?device_id={lab.router}")["ports"]:
        if port["device_owner"] == "network:router_interface":
            lab.api.call("PUT", "network", f"/v2.0/routers/{lab.router}/remove_router_interface", {"port_id": port["id"]})
    lab.api.delete("network", f"/v2.0/routers/{lab.router}")
    for name in ("side-net", "empty-net"):
        lab.api.delete("network", f"/v2.0/networks/{lab.networks[name]}")
    lab.api.delete("network", f"/v2.0/security-groups/{lab.group}")


# What the agent heals where it stands.


@damage("links")
def a_tap_leaves_its_bridge(lab):
    lab.ip(lab.space("side-net"), "link", "set", lab.tap("victim-a"), "nomaster")
    return "network side-net", lab.tap("victim-a")


@damage("links")
def a_tap_is_down(lab):
    lab.ip(lab.space("side-net"), "link", "set", lab.tap("victim-b"), "down")
    return "network side-net", lab.tap("victim-b")


@damage("links")
def a_bridge_loses_an_address(lab):
    show = json.loads(real.said("ip", "-n", lab.space("side-net"), "-4", "-j", "address", "show", "br0"))
    address = next(f"{a['local']}/{a['prefixlen']}" for a in show[0]["addr_info"] if a["local"].startswith("10.77"))
    lab.ip(lab.space("side-net"), "address", "delete", address, "dev", "br0")
    return "network side-net", f"address {address} on br0 is missing"


@damage("links")
def a_bridge_gets_an_address(lab):
    lab.ip(lab.space("empty-net"), "address", "add", "10.99.9.9/24", "dev", "br0")
    return "network empty-net", "unexpected address 10.99.9.9/24"


@damage("links")
def rules_of_a_network_are_gone(lab):
    family, table = lab.tables(lab.space("side-net"))[0]
    lab.nft(lab.space("side-net"), "delete", "table", family, table)
    return "network side-net", f"missing {family} {table}"


@damage("links")
def a_chain_is_empty(lab):
    family, table = lab.tables(lab.space("empty-net"))[0]
    lab.nft(lab.space("empty-net"), "flush", "table", family, table)
    return "network empty-net", f"missing {family} {table}"


@damage("links")
def a_router_loses_its_way_out(lab):
    lab.ip(lab.space("side-router"), "route", "delete", "default")
    return "router side-router", "route 0.0.0.0/0 is missing"


@damage("links")
def a_router_no_longer_forwards(lab):
    subprocess.run(["ip", "netns", "exec", lab.space("side-router"), "sysctl", "-qw", "net.ipv4.ip_forward=0"], check=True)
    return "router side-router", "ip_forward is 0"


@damage("links")
def a_stray_rule_stands_in_a_router(lab):
    family, table = lab.tables(lab.space("side-router"))[0]
    lab.nft(lab.space("side-router"), "add", "chain", family, table, "stray")
    return "router side-router", "unexpected", "chain stray"


@damage("links")
def a_stray_link_in_a_network(lab):
    lab.ip(lab.space("side-net"), "link", "add", "stray1", "type", "bridge")
    return "network side-net", "unexpected link stray1"


@damage("links")
def a_stray_table_in_a_router(lab):
    lab.nft(lab.space("side-router"), "add", "table", "inet", "stray")
    return "router side-router", "unexpected table inet stray"


@damage("links")
def a_stray_namespace(lab):
    name = f"nubo-{lab.id}-n-{lab.stray[-12:]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    return f"namespace {name}", "no owner"


@damage("links")
def a_stray_link_of_the_clouds(lab):
    lab.ip(lab.cloud.netns, "link", "add", "stray0", "type", "bridge")
    lab.ip(lab.cloud.netns, "link", "set", "stray0", "alias", f"nubo:{lab.id}:port:{lab.stray}")
    return "link stray0 in the cloud's namespace", lab.stray


@damage("links")
def a_tap_of_no_port(lab):
    lab.ip(lab.space("side-net"), "tuntap", "add", "dev", "tap000000000bad", "mode", "tap")
    lab.ip(lab.space("side-net"), "link", "set", "tap000000000bad", "alias", f"nubo:{lab.id}:port:{lab.stray}")
    return "link tap000000000bad", "no owner"


@damage("links")
def the_external_bridge_loses_its_address(lab):
    lab.ip(lab.cloud.netns, "address", "delete", "172.24.4.1/24", "dev", lab.bridge())
    return "external networks", "address 172.24.4.1/24"


@damage("namespaces")
def a_routers_namespace_is_gone(lab):
    subprocess.run(["ip", "netns", "delete", lab.space("side-router")], check=True)
    return "router side-router", "namespace", "is missing"


@damage("namespaces")
def an_empty_networks_namespace_is_gone(lab):
    subprocess.run(["ip", "netns", "delete", lab.space("empty-net")], check=True)
    return "network empty-net", "is missing"


@damage("namespaces")
def the_outer_rules_are_gone(lab):
    lab.nft(lab.cloud.netns, "delete", "table", "inet", f"nubo_{lab.id}")
    return "external networks", f"missing inet nubo_{lab.id}"


@damage("namespaces")
def the_agent_is_frozen(lab):
    os.kill(lab.cloud.pid("agent"), signal.SIGSTOP)
    return "process agent", "stopped by a signal"


@damage("pairs")
def a_routers_link_inward_is_gone(lab):
    names = [l["ifname"] for l in json.loads(real.said("ip", "-n", lab.space("side-router"), "-j", "link"))]
    name = next(name for name in names if name.startswith("qr-"))
    lab.ip(lab.space("side-router"), "link", "delete", name)
    return "router side-router", f"link {name} is missing"


@damage("pairs")
def the_external_bridge_is_gone(lab):
    name = lab.bridge()
    lab.ip(lab.cloud.netns, "link", "delete", name)
    return "external networks", f"link {name} is missing"


# Processes and control groups.


@damage("processes")
def a_guest_that_nobody_has(lab):
    process = lab.run("sh", "-c", "read x", "-name", f"guest=nubo-{lab.id}-{lab.stray}@host", "-uuid", lab.stray,
                      stdin=subprocess.PIPE, user=lab.account("vm").pw_uid)
    return f"process {process.pid} (guest)", "no owner"


@damage("processes")
def a_container_that_nobody_has(lab):
    name = f"nubo-{lab.id}-{lab.stray}"
    root = lab.containers / name / "rootfs"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    (lab.containers / name / "config").write_text(
        f"lxc.rootfs.path = dir:{root}\nlxc.net.0.type = empty\nlxc.init.cmd = /bin/busybox sleep 600\n")
    subprocess.run(["lxc-start", "-P", lab.containers, "-n", name], check=True)
    return f"container {name}", "no owner"


@damage("processes")
def a_second_netd(lab):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0nubo-test-{lab.stray}")
    listener.listen()
    account = lab.account("net")
    process = lab.run(lab.state / "bin" / "nubo", "netd", "--state", lab.state, "--uid", account.pw_uid, "--gid",
                      account.pw_gid, stdin=listener.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lab.listener = listener
    return f"process {process.pid} (", "no owner"


@damage("processes")
def a_guest_outside_its_control_group(lab):
    (pathlib.Path("/sys/fs/cgroup/pids") / "cgroup.procs").write_text(str(lab.pid("victim-a")))
    return "server victim-a", "is not in /sys/fs/cgroup/pids"


@damage("processes")
def a_guests_control_group_is_gone(lab):
    group = lab.cgroup("cpu", lab.servers["victim-b"])
    (pathlib.Path("/sys/fs/cgroup/cpu") / "cgroup.procs").write_text(str(lab.pid("victim-b")))
    group.rmdir()
    return "server victim-b", f"{group} is gone"


@damage("processes")
def stray_control_groups(lab):
    own = [path for path in map(pathlib.Path, real.cgroups()) if path.name == f"nubo-{lab.id}"]
    assert own, "the guests have no cgroups"
    for path in own:
        (path / lab.stray).mkdir()
    return f"cgroup {own[-1]}/{lab.stray}", "no owner"


@damage("processes")
def a_frozen_guest(lab):
    os.kill(lab.pid("victim-b"), signal.SIGSTOP)
    return "server victim-b", "stopped by a signal"


@damage("processes")
def a_pid_file_is_gone(lab):
    (lab.state / "run" / "agent.pid").unlink()
    return "process agent", "does not name it"


@damage("processes")
def a_pid_file_names_somebody_else(lab):
    (lab.state / "run" / "supervisor.pid").write_text("1")
    return "process supervise", "does not name it"


@damage("parts")
def control_is_not_heard_by_agents(lab):
    (lab.state / "run" / "control.sock").unlink()
    return "control.sock", "missing"


@damage("parts")
def netd_is_not_heard(lab):
    (lab.state / "run" / "netd.sock").unlink()
    return "netd.sock", "missing"


@damage("dead")
def the_supervisor_is_dead(lab):
    lab.cloud.kill("supervisor")
    return "process supervise", "does not run"


@damage("dead")
def the_agent_is_dead(lab):
    pid = lab.cloud.kill("agent")
    lib.wait_for("the agent is gone", lambda: real.start_time(pid) is None)
    return "process agent", "does not run"


@damage("dead")
def a_guest_died_unseen(lab):
    pid = lab.pid("victim-b")
    os.kill(pid, signal.SIGKILL)
    lib.wait_for("the guest is gone", lambda: real.start_time(pid) is None)
    return "server victim-b", "names a process that is gone"


# Files.


@damage("files")
def a_stray_guest_directory(lab):
    folder = lab.state / "hosts" / "guests" / lab.stray
    folder.mkdir()
    return f"guest directory {folder}", "no owner"


@damage("files")
def a_stray_file_beside_a_disk(lab):
    shutil.copy(lab.folder("victim-a") / "console.log", lab.folder("victim-a") / "copy-of-console")
    return "server victim-a", "copy-of-console"


@damage("files")
def memory_of_a_guest_that_runs(lab):
    (lab.folder("victim-a") / "memory").write_bytes(b"x" * 100)
    return "server victim-a", "saved memory"


@damage("files")
def a_ledger_is_gone(lab):
    (lab.folder("victim-a") / "ledger.json").unlink()
    return "server victim-a", "its ledger is missing"


@damage("files")
def a_ledger_is_garbage(lab):
    (lab.folder("victim-b") / "ledger.json").write_text("{")
    return "server victim-b", "its ledger cannot be read"


@damage("files")
def a_ledger_of_another_generation(lab):
    path = lab.folder("halted") / "ledger.json"
    ledger = json.loads(path.read_text())
    ledger["spec"]["generation"] -= 1
    path.write_text(json.dumps(ledger))
    return "server halted", "its ledger has generation"


@damage("files")
def a_disk_over_another_image(lab):
    path = lab.folder("halted") / "root.qcow2"
    name = lab.cached().name.encode()
    content = path.read_bytes()
    at = content.index(name)
    with open(path, "r+b") as disk:
        disk.seek(at)
        disk.write(b"f" * 16)
    return "server halted", "names another image"


@damage("files")
def a_copy_of_an_image(lab):
    path = lab.images() / f"{lab.stray}.copy"
    shutil.copy(lab.image_file(), path)
    return f"image file {path}", "no owner"


@damage("files")
def the_hosts_image_is_gone(lab):
    lab.cached().unlink()
    return "server", "the image below its disk is not on this host"


@damage("files")
def an_image_named_after_nothing(lab):
    path = lab.state / "hosts" / "images" / "backup.qcow2"
    path.write_bytes(b"x" * 100)
    return f"image file {path}", "named after no content"


@damage("files")
def an_image_with_another_content(lab):
    path = lab.state / "hosts" / "images" / ("0" * 128 + ".raw")
    path.write_bytes(b"x" * 100)
    return f"image file {path}", "not the one that it is named after"


@damage("files")
def a_name_by_content_of_other_bytes(lab):
    path = lab.images() / ".content" / ("0" * 128)
    os.link(lab.image_file(), path)
    return f"image file {path}", "not the one that it is named after"


@damage("volumes")
def a_stray_volume_directory(lab):
    folder = lab.state / "hosts" / "volumes" / lab.stray
    folder.mkdir()
    (folder / "1.qcow2").write_bytes(b"somebody's work")
    return f"volume directory {folder}", "no owner"


@damage("volumes")
def a_volumes_ledger_is_gone(lab):
    (lab.layers()[0] / "ledger.json").unlink()
    return "volume data", "its ledger is missing"


@damage("volumes")
def a_stray_file_beside_a_volume(lab):
    (lab.layers()[0] / "backup.img").write_bytes(b"x" * 100)
    return "volume data", "backup.img"


@damage("volumes")
def a_layer_names_another_one_below_it(lab):
    folder, layers = lab.layers()
    name = layers[-2].encode()
    content = (folder / layers[-1]).read_bytes()[:65536]
    with open(folder / layers[-1], "r+b") as disk:
        disk.seek(content.index(name))
        disk.write(b"9")
    return "volume data", f"its layer {layers[-1]} names"


@damage("volume ledgers")
def a_volumes_ledger_is_garbage(lab):
    (lab.layers()[0] / "ledger.json").write_text("{")
    return "volume data", "its ledger cannot be read"


@damage("images")
def an_images_file_is_gone(lab):
    path = lab.image_file()
    # The host's file and control's are names of the same bytes no longer: those by content are the last.
    cached = lab.cached()
    own = cached.with_name("own")
    shutil.copy2(cached, own)
    own.rename(cached)
    path.unlink()
    return "image tiny", f"its file {path.name} is missing"


@damage("rotten")
def an_images_file_rots(lab):
    path = lab.image_file()
    content = bytearray(path.read_bytes())
    content[100_000] ^= 1
    path.unlink()
    path.write_bytes(content)
    os.chown(path, lab.account("ctl").pw_uid, lab.account("ctl").pw_gid)
    return "image tiny", "another content"


@damage("rotten")
def secrets_lie_open(lab):
    (lab.state / "setup.json").chmod(0o644)
    return "setup.json", "mode 644"


@damage("rotten")
def a_folder_belongs_to_another(lab):
    os.chown(lab.state / "control" / "images", 0, 0)
    return "control/images", "belongs to 0:0"


@damage("rotten")
def controls_start_is_gone(lab):
    (lab.state / "control" / "bootstrap.json").unlink()
    return "bootstrap.json", "missing"


@damage("rotten")
def what_clients_read_is_gone(lab):
    (lab.state / "clouds.yaml").unlink()
    return "clouds.yaml", "missing"


@damage("rotten")
def the_apis_address_is_gone(lab):
    (lab.state / "run" / "url").unlink()
    return "run/url", "missing"


@damage("rotten")
def a_stray_account(lab):
    subprocess.run(["useradd", "--system", "--no-create-home", f"nubo-{lab.id}-odd"], check=True)
    return f"account nubo-{lab.id}-odd",


# What a process cannot be given back: its server is started anew.


@damage("anew")
def a_guest_has_lost_its_lock(lab):
    (lab.folder("victim-a") / "process.lock").unlink()
    return "server victim-a", "process.lock is gone"


@damage("anew")
def a_guest_has_lost_its_tap(lab):
    tap = lab.tap("victim-b")
    lab.ip(lab.space("side-net"), "link", "delete", tap)
    return "server victim-b", f"the link {tap} of its port"


# The store.


@damage("documents")
def a_document_is_edited(lab):
    lab.sql("UPDATE document SET body = replace(body, '\"victim-a\"', '\"edited-a\"') WHERE kind = 'server' AND id = ?",
            lab.servers["victim-a"])
    return "server", lab.servers["victim-a"], "not what its history says"


@damage("documents")
def a_document_is_gone(lab):
    port = lab.port("victim-b")
    lab.sql("DELETE FROM document WHERE kind = 'port' AND id = ?", port)
    return "port", port, "nothing deleted it"


@damage("documents")
def a_document_came_from_nowhere(lab):
    lab.sql("INSERT INTO document SELECT kind, ?, project_id, rev, created + 1, updated, replace(body, id, ?) FROM document "
            "WHERE kind = 'security_group_rule' AND id = ?", lab.stray, lab.stray, lab.rule)
    return "security_group_rule", lab.stray, "came from nowhere"


@damage("documents")
def a_document_changed_its_owner(lab):
    lab.sql("UPDATE document SET project_id = 'nobody' WHERE kind = 'network' AND id = ?", lab.networks["side-net"])
    return "network side-net", "its id or project"


@damage("documents")
def an_index_entry_is_gone(lab):
    lab.sql("DELETE FROM index_entry WHERE kind = 'subnet' AND id = ?", lab.subnet)
    return "subnet side-net-sub", "is missing"


@damage("documents")
def a_unique_key_of_nobody(lab):
    lab.sql("INSERT INTO unique_entry(kind, name, value, id) VALUES('user', 'name', 'default/ghost', ?)", lab.stray)
    return "user", lab.stray, "is too many"


@damage("documents")
def a_rule_of_no_group(lab):
    for table in ("document", "history"):
        lab.sql(f"UPDATE {table} SET body = replace(body, ?, ?) WHERE kind = 'security_group_rule' AND id = ?",
                lab.group, lab.stray, lab.rule)
    return "security_group_rule", lab.rule, "security_group", "which is not there"


@damage("documents")
def an_observation_of_nothing(lab):
    body = json.dumps({"id": lab.stray, "host": "h", "up": True, "fault": None})
    lab.sql("INSERT INTO document VALUES('port_observed', ?, '', 1, 1, 1, ?)", lab.stray, body)
    lab.sql("INSERT INTO history(seq, kind, id, project_id, created, actor, request_id, what, at, body)"
            " VALUES(1, 'port_observed', ?, '', 1, 'x', 'x', 'x', 1, ?)", lab.stray, body)
    return "port_observed", lab.stray


@damage("ledger")
def addresses_are_taken_by_nobody(lab):
    body = json.dumps({"id": lab.subnet, "used": [{"start": "10.77.1.200", "end": "10.77.1.201"}]})
    lab.sql("UPDATE document SET body = ? WHERE kind = 'subnet_addresses' AND id = ?", body, lab.subnet)
    return "subnet_addresses side-net-sub", "its taken addresses are not"


@damage("ledger")
def the_quota_ledger_counts_too_much(lab):
    ((scope, used),) = lab.sql("SELECT scope, used FROM ledger WHERE resource = 'network' AND used > 0 LIMIT 1") or [(None, 0)]
    lab.sql("UPDATE ledger SET used = used + 5 WHERE scope = ? AND resource = 'network'", scope)
    return "quota", f"{scope}/network", f"the ledger says {used + 5}"


@damage("ledger")
def a_row_of_the_quota_ledger_is_gone(lab):
    ((scope, resource),) = lab.sql("SELECT scope, resource FROM ledger WHERE used > 0 AND resource <> 'network' LIMIT 1")
    lab.sql("DELETE FROM ledger WHERE scope = ? AND resource = ?", scope, resource)
    return "quota", f"{scope}/{resource}", "the ledger says 0"


@damage("unreadable")
def a_document_is_garbage(lab):
    lab.sql("UPDATE document SET body = '{' WHERE kind = 'security_group' AND id = ?", lab.group)
    return "security_group", lab.group, "cannot be read"


# What only a person can decide.


@damage("hand", by_hand=True)
def a_disk_is_damaged(lab):
    path = lab.folder("halted") / "root.qcow2"
    content = path.read_bytes()[:4]
    write = lambda head: path.open("r+b").write(head)
    write(b"JUNK")
    return ("server halted", "its disk is damaged"), lambda: write(content)


@damage("hand", by_hand=True)
def a_layer_of_a_volume_is_gone(lab):
    folder, layers = lab.layers()
    away = lab.state / "layer-away"
    (folder / layers[0]).rename(away)
    return ("volume data", f"its layer {layers[0]} is gone"), lambda: away.rename(folder / layers[0])


@damage("hand", by_hand=True)
def a_document_of_an_unknown_kind(lab):
    lab.sql("INSERT INTO document VALUES('balloon', ?, '', 1, 1, 1, '{}')", lab.stray)
    return ("balloon", "unknown to this program"), lambda: lab.sql("DELETE FROM document WHERE kind = 'balloon'")


def unharmed(lab):
    assert lab.cloud.guests()[lab.demo] == lab.bystander, "the bystander was touched"


@functools.cache
def ready(lab):
    """Once: a clean cloud has nothing to say, and without a yes nothing happens."""
    done = lab.fsck()
    assert done.returncode == 0, done.stdout
    assert json.loads(lab.fsck("--json").stdout) == {"findings": []}


@pytest.mark.parametrize("group", DAMAGE)
def test_damage_is_found_by_name_and_repaired(lab, group):
    ready(lab)
    planted, undo = {}, []
    agent = lab.held_still()
    for function, by_hand in DAMAGE[group]:
        expected = function(lab)
        if by_hand:
            expected, back = expected
            undo.append(back)
        planted[function.__name__] = expected
    listing = lab.fsck().stdout
    if "the_agent_is_frozen" not in planted:
        lab.let_go(agent)
    missing = {name: words for name, words in planted.items()
               if not any(all(word in line for word in words) for line in listing.splitlines())}
    assert not missing, f"not found: {missing}\n{listing}"
    FOUND.update(planted)
    done = lab.fsck("--repair", "--yes")
    if undo:
        for words in planted.values():
            assert any(all(word in line for word in words) for line in done.stdout.splitlines())
        for back in undo:
            back()
    else:
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{lab.cloud.logs()}"
        assert "did not keep its process" not in done.stderr, done.stderr
        REPAIRED.update(planted)
    again = lab.fsck()
    assert again.returncode == 0, f"{again.stdout}after\n{done.stdout}{done.stderr}"
    unharmed(lab)
    if lab.status("victim-b") == "SHUTOFF":
        lab.api.post("compute", f"/servers/{lab.servers['victim-b']}/action", {"os-start": None})
    for name in ("victim-a", "victim-b"):
        lab.wait(name, "ACTIVE")


def test_forty_kinds_are_found_and_thirty_eight_repaired(lab):
    assert len(FOUND) >= 40 and len(REPAIRED) >= 38, f"{len(FOUND)} found, {len(REPAIRED)} repaired"
    print(f"{len(FOUND)} kinds of damage found, {len(REPAIRED)} repaired")
    unharmed(lab)
    lab.cloud.ssh(lab.cloud.demo_address(), "true")
    assert sorted(path.name for path in (lab.state / "lost+found").iterdir()), "what was moved aside is kept"


def test_without_a_terminal_nothing_is_repaired_without_a_yes(lab):
    folder = lab.state / "hosts" / "guests" / lab.stray
    folder.mkdir()
    try:
        done = lab.cloud.nubo("fsck", "--repair", check=False)
        assert done.returncode == 2 and "--yes" in done.stderr, done.stdout + done.stderr
        assert "lost+found" in done.stdout and folder.exists()
    finally:
        folder.rmdir()


def test_a_cloud_that_is_down_is_looked_at_offline(lab):
    cloud, store = lab.cloud, lab.state / "control"
    refused = cloud.nubo("fsck", "--offline", check=False)
    assert refused.returncode == 2 and "the cloud is up" in refused.stderr
    cloud.make("down")
    try:
        assert cloud.nubo("fsck", check=False).returncode == 2, "control cannot be asked"
        assert lab.fsck("--offline").stdout.startswith("clean")
        lab.sql("UPDATE document SET body = replace(body, '\"victim-a\"', '\"edited-a\"') WHERE kind = 'server'")
        listing = lab.fsck("--offline").stdout
        assert lab.servers["victim-a"] in listing and "not what its history says" in listing
        done = lab.fsck("--offline", "--repair", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        owner = lab.account("ctl").pw_uid
        assert {path.stat().st_uid for path in store.iterdir() if path.name.startswith("nubo.db")} == {owner}
    finally:
        cloud.make("up")
    lab.api = http_in_netns.Api(cloud)
    assert lab.fsck().returncode == 0
    unharmed(lab)
