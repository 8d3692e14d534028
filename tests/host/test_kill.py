"""`kill -9` at any moment: every object settles, nothing is orphaned, no running guest is touched.

The moments are drawn from a printed seed, evenly over the time from a request's first byte until its object has
settled, as measured in rounds without a kill. NUBO_ROUNDS scales the number of rounds, NUBO_SEED repeats a run.
"""

import os
import random
import threading
import time

import pytest

import lib

SETTLE = 30
ROUNDS = int(os.environ.get("NUBO_ROUNDS", "20"))


class Bench:
    """A bystander guest, and the operations that are interrupted."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.sdk = None
        self.flavor = self.image = self.network = None

    def connect(self):
        """A fresh session that reaches the API through the cloud's namespace."""
        import http_in_netns

        self.api = http_in_netns.Api(self.cloud)
        self.image = self.api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
        self.flavor = next(f["id"] for f in self.api.get("compute", "/flavors")["flavors"] if f["name"] == "m1.tiny")
        self.network = self.api.get("network", "/v2.0/networks?name=demo-net")["networks"][0]["id"]
        self.public = self.api.get("network", "/v2.0/networks?name=public")["networks"][0]["id"]


OPERATIONS = ["create", "delete", "reboot", "floating"]


def settled(server):
    return server is None or (server["OS-EXT-STS:task_state"] is None and server["status"] in ("ACTIVE", "SHUTOFF", "ERROR"))


class Round:
    """One operation on a server of its own."""

    def __init__(self, bench, what, number):
        self.bench, self.what, self.name = bench, what, f"kill-{number}"
        self.api = bench.api
        self.server = self.floating = None

    def prepare(self):
        if self.what != "create":
            self.server = self.create()
            self.wait("ACTIVE")

    def create(self):
        body = {"server": {"name": self.name, "imageRef": self.bench.image, "flavorRef": self.bench.flavor,
                           "networks": [{"uuid": self.bench.network}]}}
        return self.api.post("compute", "/servers", body)["server"]["id"]

    def act(self):
        """The call that is interrupted. A cut connection is an answer, too: the object decides."""
        if self.what == "create":
            self.server = self.create()
        elif self.what == "delete":
            self.api.delete("compute", f"/servers/{self.server}")
        elif self.what == "reboot":
            self.api.post("compute", f"/servers/{self.server}/action", {"reboot": {"type": "HARD"}})
        else:
            port = self.api.get("network", f"/v2.0/ports?device_id={self.server}")["ports"][0]["id"]
            body = {"floatingip": {"floating_network_id": self.bench.public, "port_id": port}}
            self.floating = self.api.post("network", "/v2.0/floatingips", body)["floatingip"]["id"]

    def find(self):
        """The server as it stands, by name: the call may have been cut before it told the id."""
        found = [s for s in self.api.get("compute", f"/servers/detail?name={self.name}$")["servers"]]
        assert len(found) <= 1
        return found[0] if found else None

    def is_settled(self):
        server = self.find()
        if not settled(server):
            return False
        if server and self.what == "floating":
            port = self.api.get("network", f"/v2.0/ports?device_id={server['id']}")["ports"][0]["id"]
            floating = self.api.get("network", f"/v2.0/floatingips?port_id={port}")["floatingips"]
            return all(f["status"] == "ACTIVE" for f in floating)
        return True

    def wait(self, status):
        lib.wait_for(f"{self.name} is {status}", lambda: (s := self.find()) and s["status"] == status, 90, 0.05)

    def clean(self):
        server = self.find()
        if server:
            port = self.api.get("network", f"/v2.0/ports?device_id={server['id']}")["ports"]
            for floating in self.api.get("network", f"/v2.0/floatingips?port_id={port[0]['id']}")["floatingips"] if port else []:
                self.api.delete("network", f"/v2.0/floatingips/{floating['id']}")
            self.api.delete("compute", f"/servers/{server['id']}")
            lib.wait_for(f"{self.name} is gone", lambda: self.find() is None, 60, 0.05)


@pytest.fixture(scope="module")
def bench(cloud):
    bench = Bench(cloud)
    bench.connect()
    return bench


def measure(bench, what):
    """Seconds from the first byte until the object has settled, without a kill."""
    round_ = Round(bench, what, f"measure-{what}")
    round_.prepare()
    began = time.monotonic()
    round_.act()
    lib.wait_for("settled", round_.is_settled, 90, 0.02)
    took = time.monotonic() - began
    round_.clean()
    return took


def test_kill_9_at_any_moment(cloud, bench):
    seed = int(os.environ.get("NUBO_SEED", random.randrange(1 << 32)))
    print(f"NUBO_SEED={seed}")
    dice = random.Random(seed)
    durations = {what: measure(bench, what) for what in OPERATIONS}
    bystander = cloud.api.json("server", "show", "demo", cloud="demo")["id"]
    address = cloud.demo_address()
    process = cloud.guests()[bystander]
    uptime = float(cloud.ssh(address, "cat /proc/uptime").stdout.split()[0])
    baseline = kernel_view(cloud)
    early = 0
    for number in range(ROUNDS):
        what = OPERATIONS[number % len(OPERATIONS)]
        victims = [["control"], ["agent"], ["control", "agent"]][dice.randrange(3)]
        # Stratified, so that the moments lie evenly over the whole time.
        moment = durations[what] * ((number // len(OPERATIONS)) + dice.random()) / max(1, ROUNDS // len(OPERATIONS))
        moment = min(moment, durations[what])
        early += one_round(cloud, Round(bench, what, number), victims, moment)
        assert cloud.guests()[bystander] == process, f"seed {seed}, round {number}: the bystander was touched"
    assert early >= ROUNDS * 3 // 4, f"seed {seed}: only {early} of {ROUNDS} kills came before the object had settled"
    assert cloud.fsck() == [], f"seed {seed}"
    assert kernel_view(cloud) == baseline, f"seed {seed}"
    assert float(cloud.ssh(address, "cat /proc/uptime").stdout.split()[0]) > uptime


def one_round(cloud, round_, victims, moment):
    """Kills at the moment; returns whether the object had not settled by then."""
    round_.prepare()
    outcome = []

    def act():
        try:
            round_.act()
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=act)
    began = time.monotonic()
    thread.start()
    time.sleep(max(0, moment - (time.monotonic() - began)))
    finished = not thread.is_alive() and "control" not in victims and quiet(round_)
    old = {name: cloud.kill(name) for name in victims}
    thread.join(60)
    for name, pid in old.items():
        cloud.wait_back(name, pid)
    restarted = time.monotonic()
    what = f"{round_.what} killed {victims} at {moment:.3f} s has settled"
    try:
        lib.wait_for(what, lambda: quiet(round_), SETTLE, 0.1)
    except pytest.fail.Exception as failure:
        pytest.fail(f"{failure}\n{round_.find()}\n{cloud.logs()}")
    assert time.monotonic() - restarted < SETTLE
    round_.clean()
    return not finished


def quiet(round_):
    try:
        return round_.is_settled()
    except (OSError, ConnectionError):
        return False


def kernel_view(cloud):
    """Names of what the cloud has in the kernel and on disk, by the kernel's own listing."""
    import real

    namespaces = [n for n in real.said("ip", "netns", "list").split() if cloud.cloud_id() in n]
    links = {n: sorted(l.split(":")[1].strip().split("@")[0] for l in real.said("ip", "-n", n, "-o", "link").splitlines())
             for n in [*namespaces, cloud.netns]}
    guests = sorted(p.name for p in (cloud.state / "hosts" / "guests").iterdir())
    files = sorted(p.name for p in (cloud.state / "control" / "images").iterdir())
    return {"namespaces": sorted(namespaces), "links": links, "guests": guests, "images": files,
            "processes": sorted(cloud.guests())}
