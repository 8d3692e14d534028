"""Servers and their volumes, with the commands that a user types."""

import json
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


def test_an_image_of_a_server_that_boots_from_a_volume_names_snapshots(sim, made):
    tag = uuid.uuid4().hex[:8]
    server, image, copy = f"srv-{tag}", f"img-{tag}", f"copy-{tag}"
    sim.run("server", "create", server, *made, "--boot-from-volume", 1, "--block-device",
            "source_type=blank,destination_type=volume,volume_size=2,boot_index=-1,delete_on_termination=true,tag=data",
            cloud="demo")
    wait(sim, ["server"], server, "ACTIVE")
    old = {row["Volume ID"] for row in sim.json("server", "volume", "list", server, cloud="demo")}
    assert len(old) == 2
    sim.run("server", "image", "create", server, "--name", image, "--wait", cloud="demo")
    shown = sim.json("image", "show", image, cloud="demo")
    mapping = json.loads(shown["properties"]["block_device_mapping"])
    assert shown["status"] == "active" and shown["size"] == 0
    assert [(it["boot_index"], it["volume_size"], it.get("tag")) for it in mapping] == [(0, 1, None), (None, 2, "data")]
    for snapshot in mapping:
        assert wait(sim, ["volume", "snapshot"], snapshot["snapshot_id"], "available")["name"] == f"snapshot for {image}"
    # A volume cannot be made of it, a server can.
    refused = sim.run("volume", "create", f"none-{tag}", "--image", image, "--size", 3, cloud="demo", check=False)
    assert refused.returncode != 0 and "no bytes" in refused.stderr, refused.stderr
    sim.run("server", "create", copy, "--image", image, *made[2:], cloud="demo")
    wait(sim, ["server"], copy, "ACTIVE")
    rows = sim.json("server", "volume", "list", copy, cloud="demo")
    new = {row["Volume ID"]: row["Device"] for row in rows}
    assert sorted(new.values()) == ["/dev/vda", "/dev/vdb"] and not old & set(new)
    sources = {sim.json("volume", "show", volume, cloud="demo")["snapshot_id"] for volume in new}
    assert sources == {it["snapshot_id"] for it in mapping}
    for name in (copy, server):
        sim.run("server", "delete", name, "--wait", cloud="demo")
    sim.run("image", "delete", image, cloud="demo")
    for snapshot in mapping:
        sim.run("volume", "snapshot", "delete", snapshot["snapshot_id"], cloud="demo")
