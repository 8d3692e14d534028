"""Servers and their volumes, with the commands that a user types."""

import time
import uuid


import pytest


@pytest.fixture
def made(sim, tmp_path):
    """The names of an image and a flavor."""
    tag = uuid.uuid4().hex[:8]
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"\0" * (1 << 20))
    sim.run("image", "create", f"image-{tag}", "--disk-format", "raw", "--container-format", "bare",
            "--public", "--file", disk)
    sim.run("flavor", "create", f"flavor-{tag}", "--ram", 64, "--vcpus", 1, "--disk", 1)
    return ["--image", f"image-{tag}", "--flavor", f"flavor-{tag}", "--nic", "none"]


def wait(sim, noun, name, status):
    for _ in range(200):
        found = sim.json(*noun, "show", name, cloud="demo")
        if found["status"] == status:
            return found
        assert "error" not in found["status"].lower(), found
        time.sleep(0.05)
    raise AssertionError(f"{name} is {found['status']} and not {status}")


def test_a_server_gets_a_volume_and_gives_it_back(sim, made):
    tag = uuid.uuid4().hex[:8]
    server, volume = f"srv-{tag}", f"vol-{tag}"
    sim.run("volume", "create", volume, "--size", 1, cloud="demo")
    wait(sim, ["volume"], volume, "available")
    sim.run("server", "create", server, *made, cloud="demo")
    wait(sim, ["server"], server, "ACTIVE")
    sim.run("server", "add", "volume", server, volume, cloud="demo")
    attached = wait(sim, ["volume"], volume, "in-use")["attachments"]
    assert attached[0]["device"] == "/dev/vdb", attached
    assert [row["Volume ID"] for row in sim.json("server", "volume", "list", server, cloud="demo")] == [attached[0]["volume_id"]]
    sim.run("server", "remove", "volume", server, volume, cloud="demo")
    wait(sim, ["volume"], volume, "available")
    sim.run("server", "delete", server, cloud="demo")
    sim.run("volume", "delete", volume, cloud="demo")


def test_a_server_boots_from_a_volume(sim, made):
    tag = uuid.uuid4().hex[:8]
    server = f"srv-{tag}"
    sim.run("server", "create", server, *made, "--boot-from-volume", 1, cloud="demo")
    shown = wait(sim, ["server"], server, "ACTIVE")
    [volume] = sim.json("server", "volume", "list", server, cloud="demo")
    assert wait(sim, ["volume"], volume["Volume ID"], "in-use")["bootable"] in (True, "true")
    assert not shown["image"] or "booted from volume" in shown["image"], shown["image"]
    sim.run("server", "delete", server, cloud="demo")
    wait(sim, ["volume"], volume["Volume ID"], "available")
    sim.run("volume", "delete", volume["Volume ID"], cloud="demo")
