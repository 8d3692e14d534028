"""`kill -9` at any moment: every object settles, nothing is orphaned, no running guest is touched.

The moments are drawn from a printed seed, evenly over the time from a request's first byte until its object has
settled, as measured in rounds without a kill. NUBO_ROUNDS scales the number of rounds, NUBO_SEED repeats a run.
"""

import copy
import difflib
import json
import os
import random
import threading
import time

import http_in_netns
import lib
import pytest
import real

SETTLE = 30
ROUNDS = int(os.environ.get("NUBO_ROUNDS", "20"))
OPERATIONS = ["create", "delete", "reboot", "floating"]
VICTIMS = [["control"], ["agent"], ["control", "agent"]]


class Bench:
    """What the rounds are made of."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.api = http_in_netns.Api(cloud)
        self.image = self.api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
        self.flavor = next(f["id"] for f in self.api.get("compute", "/flavors")["flavors"] if f["name"] == "m1.tiny")
        self.network = self.api.get("network", "/v2.0/networks?name=demo-net")["networks"][0]["id"]
        self.public = self.api.get("network", "/v2.0/networks?name=public")["networks"][0]["id"]


class Round:
    """One operation on a server of its own."""

    def __init__(self, bench, what, number):
        self.bench, self.what, self.name = bench, what, f"kill-{number}"
        self.api = bench.api
        # Tells when the first byte of the call went out; the looks have their own.
        self.caller = copy.copy(bench.api)
        self.caller.sent = None
        self.server = self.port = self.process = None
        self.answered, self.error = False, None
        # How long a look takes.
        self.look = 0.01

    def prepare(self):
        if self.what == "create":
            return
        self.server = self.create(self.api)
        lib.wait_for(f"{self.name} is ACTIVE", lambda: (s := self.find()) and s["status"] == "ACTIVE", 90, 0.05)
        self.port = self.api.get("network", f"/v2.0/ports?device_id={self.server}")["ports"][0]["id"]
        self.process = self.bench.cloud.guests()[self.server]

    def create(self, api):
        body = {"server": {"name": self.name, "imageRef": self.bench.image, "flavorRef": self.bench.flavor,
                           "networks": [{"uuid": self.bench.network}]}}
        return api.post("compute", "/servers", body)["server"]["id"]

    def kill(self, name):
        """Kills a part of the cloud; says which process it was."""
        return self.bench.cloud.kill(name)

    def recover(self, old):
        """Waits until what was killed is there again."""
        for name, pid in old.items():
            self.bench.cloud.wait_back(name, pid)

    def act(self):
        """The call that is interrupted. A cut connection is no failure: the object decides."""
        try:
            self.call(self.caller)
            self.answered = True
        except OSError as error:
            self.error = error
        except Exception as error:
            self.error = error
            raise

    def call(self, api):
        if self.what == "create":
            self.create(api)
        elif self.what == "delete":
            api.delete("compute", f"/servers/{self.server}")
        elif self.what == "reboot":
            api.post("compute", f"/servers/{self.server}/action", {"reboot": {"type": "HARD"}})
        else:
            body = {"floatingip": {"floating_network_id": self.bench.public, "port_id": self.port}}
            api.post("network", "/v2.0/floatingips", body)

    def find(self):
        """The server as it stands, by name: the call may have been cut before it told the id."""
        found = self.api.get("compute", f"/servers/detail?name=^{self.name}$")["servers"]
        assert len(found) <= 1
        return found[0] if found else None

    def floating(self):
        return self.api.get("network", f"/v2.0/floatingips?port_id={self.port}")["floatingips"] if self.port else []

    def is_settled(self):
        """Nothing is under way any more, as far as control says."""
        try:
            server = self.find()
            if server is None:
                return True
            if server["OS-EXT-STS:task_state"] is not None or server["status"] not in ("ACTIVE", "SHUTOFF", "ERROR"):
                return False
            return all(floating["status"] == "ACTIVE" for floating in self.floating())
        except OSError:
            return False

    def is_done(self):
        """The call was answered, and what it asked for is reached."""
        return self.answered and self.is_settled()

    def check(self):
        """What was answered must hold; what was not holds wholly or not at all."""
        server, guests = self.find(), self.bench.cloud.guests()
        assert not isinstance(self.error, http_in_netns.Fault), self.error
        if server is not None:
            assert server["status"] == "ACTIVE", server
            assert server["id"] in guests
        if self.what == "delete":
            assert server is None or not self.answered, "an answered delete was forgotten"
            assert server is not None or self.server not in guests
            return
        assert server is not None or (self.what == "create" and not self.answered), "the server was lost"
        if self.what == "reboot" and self.answered:
            assert guests[self.server] != self.process, "an answered reboot was forgotten"
        if self.what == "floating":
            found = self.floating()
            assert found or not self.answered, "an answered floating address was forgotten"
            rules = str(self.bench.cloud.kernel_view()["nft"])
            assert all(floating["floating_ip_address"] in rules for floating in found), "no rule carries the address"

    def clean(self):
        for floating in self.floating():
            self.api.delete("network", f"/v2.0/floatingips/{floating['id']}")
        server = self.find()
        if server:
            self.api.delete("compute", f"/servers/{server['id']}")
            lib.wait_for(f"{self.name} is gone", lambda: self.find() is None, 60, 0.05)


def start(round_):
    """Starts the call on a thread of its own; returns once its first byte is on its way."""
    thread = threading.Thread(target=round_.act)
    thread.start()
    while round_.caller.sent is None and thread.is_alive():
        time.sleep(0.0005)
    assert round_.caller.sent is not None, round_.error
    return thread


def measure(round_):
    """Seconds from the first byte until the object has settled, without a kill."""
    round_.prepare()
    thread = start(round_)
    looked = []

    def done():
        looked.append(time.monotonic())
        return round_.is_done()

    lib.wait_for("settled", done, 90, 0.005)
    thread.join()
    round_.check()
    round_.clean()
    # It had settled when the look that found it so began, perhaps a little earlier.
    return looked[-1] - round_.caller.sent


def one_round(cloud, round_, victims, moment):
    """Kills at the moment; returns whether the object had not settled by then."""
    round_.prepare()
    thread = start(round_)
    # Looks until the moment has come; the last one ends just before it.
    settled = False
    while not settled and time.monotonic() - round_.caller.sent < moment - round_.look:
        looked = time.monotonic()
        settled = round_.is_done()
        round_.look = max(round_.look, time.monotonic() - looked)
    time.sleep(max(0, moment - (time.monotonic() - round_.caller.sent)))
    old = {name: round_.kill(name) for name in victims}
    killed = time.monotonic() - round_.caller.sent
    if "control" not in victims:
        # Control can still be asked: what it says now counts, in doubt against us.
        settled = settled or round_.is_done()
    thread.join(60)
    round_.recover(old)
    restarted = time.monotonic()
    what = f"{round_.what}, {victims} killed after {killed:.3f} s, {'settled' if settled else 'under way'}"
    try:
        lib.wait_for(f"settled again: {what}", round_.is_settled, SETTLE, 0.1)
    except pytest.fail.Exception as failure:
        pytest.fail(f"{failure}\n{round_.find()}\n{cloud.logs()}")
    print(f"{what}; {'answered' if round_.answered else 'cut'}; settled {time.monotonic() - restarted:.1f} s after")
    round_.check()
    round_.clean()
    return not settled


def rounds(cloud, kind, bench, operations, count, bystander, seed, deaths=VICTIMS):
    """So many rounds, the operations in turn; says how many kills came before the object had settled."""
    dice = random.Random(seed)
    durations = {what: min(measure(kind(bench, what, f"measure-{what}-{n}")) for n in range(2)) for what in operations}
    print({what: round(seconds, 3) for what, seconds in durations.items()})
    process = cloud.guests()[bystander]
    early, strata = 0, -(-count // len(operations))
    for number in range(count):
        what, stratum = operations[number % len(operations)], number // len(operations)
        # Each operation meets each kind of death; its moments lie one in each equal part of its time.
        victims = deaths[(number + stratum) % len(deaths)]
        moment = durations[what] * (stratum + dice.random()) / strata
        early += one_round(cloud, kind(bench, what, number), victims, moment)
        assert cloud.guests()[bystander] == process, f"seed {seed}, round {number}: the bystander was touched"
    print(f"{early} of {count} kills came before the object had settled")
    return early


def same(cloud, baseline):
    """Waits for the kernel to show what it showed before; says the difference otherwise."""
    until = time.monotonic() + 10
    while (now := cloud.kernel_view()) != baseline:
        if time.monotonic() > until:
            lines = [json.dumps(view, indent=1).splitlines() for view in (baseline, now)]
            pytest.fail("the listings differ:\n" + "\n".join(difflib.unified_diff(*lines, "before", "after", n=1)))
        time.sleep(0.2)


def guest_life(cloud, address):
    boot, uptime = cloud.ssh(address, "cat /proc/sys/kernel/random/boot_id /proc/uptime").stdout.split()[:2]
    return boot, float(uptime)


def test_kill_9_at_any_moment(cloud):
    seed = int(os.environ.get("NUBO_SEED", random.randrange(1 << 32)))
    print(f"NUBO_SEED={seed}")
    bench = Bench(cloud)
    for what in OPERATIONS:
        measure(Round(bench, what, f"first-{what}"))
    bystander = cloud.api.json("server", "show", "demo", cloud="demo")["id"]
    address = cloud.demo_address()
    (boot, uptime), began = guest_life(cloud, address), time.monotonic()
    baseline = cloud.kernel_view()
    early = rounds(cloud, Round, bench, OPERATIONS, ROUNDS, bystander, seed)
    assert early >= ROUNDS * 3 // 4, f"seed {seed}: only {early} of {ROUNDS} kills came before the object had settled"
    assert cloud.fsck() == [], f"seed {seed}"
    same(cloud, baseline)
    elapsed = time.monotonic() - began
    boot_now, uptime_now = guest_life(cloud, address)
    assert boot_now == boot, "the guest was rebooted"
    assert uptime_now - uptime > elapsed * 0.8, f"{uptime_now - uptime} s of {elapsed} s have passed in the guest"
