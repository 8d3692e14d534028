"""`kill -9` at any moment of what is done with a volume of a running guest: it settles, and its bytes are what they were.

NUBO_ROUNDS scales the number of rounds, NUBO_SEED repeats a run.
"""

import os
import random
import signal

import http_in_netns
import lib
import real
from test_crash import show, wait_status
from test_kill import Bench, Round, guest_life, measure, rounds, same
from test_volumes import GIB_SECTORS, at, attach, booted, detach, gone, made, sectors

ROUNDS = int(os.environ.get("NUBO_ROUNDS", "12"))
# A guest that was killed takes long to come back.
GUEST_ROUNDS = int(os.environ.get("NUBO_ROUNDS", "6"))
GUEST_DEATHS = [["guest"], ["guest", "agent"], ["guest", "control"]]
OPERATIONS = ["attach", "detach", "snapshot", "extend", "delete", "boot"]
RESTING = ("available", "in-use")


class VolumeBench(Bench):
    """A guest that can be asked what it sees, and a volume whose first bytes are known."""

    def __init__(self, cloud, server, run):
        super().__init__(cloud)
        self.server, self.run = server, run
        self.volume = made(self.api, size=1)
        device = attach(self.api, self.server, self.volume)
        lib.wait_for("the guest sees the disk", lambda: sectors(self.run, device.removeprefix("/dev/")), 30)
        self.run(f"head -c 4194304 /dev/urandom | sudo tee {device} >/dev/null && sync")
        self.bytes = self.sum(device)

    def sum(self, device):
        return self.run(f"sudo dd if={device} bs=1M count=4 iflag=direct 2>/dev/null | md5sum")

    def volumes(self):
        return {it["id"]: it for it in self.api.get("block-storage", "/volumes/detail")["volumes"]}

    def snapshots(self):
        return self.api.get("block-storage", "/snapshots")["snapshots"]


class VolumeRound(Round):
    """One operation on the volume, or on one of its own."""

    def prepare(self):
        bench = self.bench
        self.other = None
        held = bool(bench.volumes()[bench.volume]["attachments"])
        if self.what == "attach" and held:
            detach(self.api, bench.server, bench.volume)
        if self.what in ("detach", "snapshot", "extend") and not held:
            attach(self.api, bench.server, bench.volume)
        if self.what == "delete":
            self.other = made(self.api, size=1)
        self.size = bench.volumes()[bench.volume]["size"]

    def call(self, api):
        attachments, volume = f"/servers/{self.bench.server}/os-volume_attachments", self.bench.volume
        if self.what == "attach":
            api.post("compute", attachments, {"volumeAttachment": {"volumeId": volume}})
        elif self.what == "detach":
            api.delete("compute", f"{attachments}/{volume}")
        elif self.what == "snapshot":
            body = {"snapshot": {"volume_id": volume, "name": self.name, "force": True}}
            api.post("block-storage", "/snapshots", body)
        elif self.what == "extend":
            api.post("block-storage", f"/volumes/{volume}/action", {"os-extend": {"new_size": self.size + 1}})
        elif self.what == "delete":
            api.delete("block-storage", f"/volumes/{self.other}")
        else:
            disk = {"source_type": "image", "destination_type": "volume", "uuid": self.bench.image, "volume_size": 1,
                    "boot_index": 0, "delete_on_termination": True}
            body = {"name": self.name, "flavorRef": self.bench.flavor, "networks": [{"uuid": self.bench.network}],
                    "block_device_mapping_v2": [disk]}
            api.post("compute", "/servers", {"server": body})

    def is_settled(self):
        try:
            volumes = self.bench.volumes().values()
            if not all(it["status"] in RESTING for it in volumes):
                return False
            if not all(it["status"] == "available" for it in self.bench.snapshots()):
                return False
            if self.what == "delete" and self.answered and self.other in self.bench.volumes():
                return False
        except OSError:
            return False
        return super().is_settled()

    def check(self):
        assert not isinstance(self.error, http_in_netns.Fault), self.error
        bench = self.bench
        volumes, server = bench.volumes(), self.find()
        volume = volumes[bench.volume]
        if self.what in ("attach", "detach"):
            held = bool(volume["attachments"])
            assert held == (self.what == "attach") or not self.answered, f"an answered {self.what} was forgotten"
        if self.what == "snapshot":
            found = [it for it in bench.snapshots() if it["name"] == self.name]
            assert found or not self.answered, "an answered snapshot was forgotten"
        if self.what == "extend":
            assert volume["size"] == self.size + 1 or (volume["size"] == self.size and not self.answered), volume
        if self.what == "delete":
            assert self.other not in volumes or not self.answered, "an answered delete was forgotten"
        if self.what == "boot":
            assert server is not None or not self.answered, "the server was lost"
            assert server is None or (server["status"] == "ACTIVE" and server["id"] in bench.cloud.guests()), server
            assert len(volumes) == 1 + (server is not None), "a volume without its server"
        self.check_guest(volume)

    def check_guest(self, volume):
        """The guest has what is said of it, and the bytes are there."""
        run = self.bench.run
        if not volume["attachments"]:
            assert sectors(run, "vdb") == 0, "the guest still has the disk"
            return
        (attachment,) = volume["attachments"]
        device = attachment["device"]
        wanted = volume["size"] * GIB_SECTORS
        lib.wait_for("the guest sees the size", lambda: sectors(run, device.removeprefix("/dev/")) == wanted, 10)
        assert self.bench.sum(device) == self.bench.bytes, "the bytes have changed"

    def clean(self):
        for snapshot in self.bench.snapshots():
            self.api.delete("block-storage", f"/snapshots/{snapshot['id']}")
        lib.wait_for("no snapshot is left", lambda: not self.bench.snapshots(), 60, 0.05)
        if self.other and self.other in self.bench.volumes():
            gone(self.api, self.other)
        server = self.find()
        if server:
            self.api.delete("compute", f"/servers/{server['id']}")
        alone = lambda: list(self.bench.volumes()) == [self.bench.volume] and self.find() is None
        lib.wait_for("nothing of the round is left", alone, 60, 0.05)


class GuestRound(VolumeRound):
    """The guest itself dies: the one that boots where that is the operation, else the one that has the volume."""

    killed = None

    def kill(self, name):
        if name != "guest":
            return super().kill(name)
        guests = self.bench.cloud.guests()
        booting = self.what == "boot" and next((it for it in guests if it not in self.before), None)
        self.killed = booting or self.bench.server
        self.pid, _ = guests[self.killed]
        os.kill(self.pid, signal.SIGKILL)
        return self.pid

    def prepare(self):
        super().prepare()
        self.before = self.bench.cloud.guests()

    def recover(self, old):
        guest = old.pop("guest")
        super().recover(old)
        lib.wait_for("the guest is dead", lambda: real.start_time(guest) is None)

    def is_revived(self):
        """Whoever had begun to boot and was not seen to run is started again by its host; else it is off."""
        if show(self.api, self.killed)["status"] == "SHUTOFF":
            self.api.post("compute", f"/servers/{self.killed}/action", {"os-start": None})
            return True
        there = self.bench.cloud.guests().get(self.killed)
        return self.killed != self.bench.server and there is not None and there[0] != self.pid

    def check(self):
        """As with other deaths, once the guest that died has been started again."""
        if self.killed:
            lib.wait_for(f"{self.killed} is off, or begins again", self.is_revived)
            wait_status(self.api, self.killed, "ACTIVE")
            if self.killed == self.bench.server:
                answers = lambda: self.bench.run("cat /run/instance-id", check=False) == self.killed
                lib.wait_for("the guest answers again", answers, 240)
        super().check()


def test_kill_9_of_the_guest_while_its_volume_changes(cloud):
    seed = int(os.environ.get("NUBO_SEED", random.randrange(1 << 32)))
    print(f"NUBO_SEED={seed}")
    api = http_in_netns.Api(cloud)
    demo = api.get("compute", "/servers?name=^demo$")["servers"][0]["id"]
    baseline = cloud.kernel_view()
    image = api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
    server, run, away = booted(cloud, api, imageRef=image)
    bench = VolumeBench(cloud, server, run)
    for what in OPERATIONS:
        measure(VolumeRound(bench, what, f"first-{what}"))
    early = rounds(cloud, GuestRound, bench, OPERATIONS, GUEST_ROUNDS, demo, seed, GUEST_DEATHS)
    assert early >= GUEST_ROUNDS // 2, f"seed {seed}: only {early} of {GUEST_ROUNDS} kills came before the volume had settled"
    if bench.volumes()[bench.volume]["attachments"]:
        detach(api, server, bench.volume)
    gone(api, bench.volume)
    away()
    lib.wait_for(f"nothing is left over, seed {seed}", lambda: cloud.fsck() == [], 30)
    same(cloud, baseline)


def test_kill_9_while_a_volume_changes(cloud):
    seed = int(os.environ.get("NUBO_SEED", random.randrange(1 << 32)))
    print(f"NUBO_SEED={seed}")
    address = cloud.demo_address()
    lib.wait_for("the demo answers", lambda: cloud.ssh(address, "true", check=False).returncode == 0, 240)
    api = http_in_netns.Api(cloud)
    demo = api.get("compute", "/servers?name=^demo$")["servers"][0]["id"]
    gone(api, made(api, size=1))
    baseline = cloud.kernel_view()
    bench = VolumeBench(cloud, demo, at(cloud, address))
    for what in OPERATIONS:
        measure(VolumeRound(bench, what, f"first-{what}"))
    boot, _ = guest_life(cloud, address)
    early = rounds(cloud, VolumeRound, bench, OPERATIONS, ROUNDS, demo, seed)
    assert early >= ROUNDS // 2, f"seed {seed}: only {early} of {ROUNDS} kills came before the volume had settled"
    if bench.volumes()[bench.volume]["attachments"]:
        detach(bench.api, bench.server, bench.volume)
    gone(bench.api, bench.volume)
    lib.wait_for(f"nothing is left over, seed {seed}", lambda: cloud.fsck() == [], 30)
    same(cloud, baseline)
    assert guest_life(cloud, address)[0] == boot, "the guest was rebooted"
