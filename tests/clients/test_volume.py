"""Volumes, with the commands that a user types."""

import uuid

import lib  # noqa: F401 - the fixtures need it


def wait(sim, noun, name, status):
    import time

    for _ in range(200):
        found = sim.json(*noun, "show", name, cloud="demo")
        if found["status"] == status:
            return found
        assert not found["status"].startswith("error"), found
        time.sleep(0.05)
    raise AssertionError(f"{name} is {found['status']} and not {status}")


def test_a_volume_its_snapshot_and_its_copy(sim):
    tag = uuid.uuid4().hex[:8]
    sim.run("volume", "create", f"vol-{tag}", "--size", 1, "--property", "colour=blue", cloud="demo")
    volume = wait(sim, ["volume"], f"vol-{tag}", "available")
    assert volume["size"] == 1 and str(volume["bootable"]).lower() == "false"
    sim.run("volume", "set", f"vol-{tag}", "--size", 2, cloud="demo")
    assert wait(sim, ["volume"], f"vol-{tag}", "available")["size"] == 2
    sim.run("volume", "snapshot", "create", f"snap-{tag}", "--volume", f"vol-{tag}", cloud="demo")
    wait(sim, ["volume", "snapshot"], f"snap-{tag}", "available")
    sim.run("volume", "create", f"copy-{tag}", "--snapshot", f"snap-{tag}", cloud="demo")
    assert wait(sim, ["volume"], f"copy-{tag}", "available")["size"] == 2
    names = [row["Name"] for row in sim.json("volume", "list", cloud="demo")]
    assert f"vol-{tag}" in names and f"copy-{tag}" in names
    for noun, name in [(["volume"], "copy"), (["volume", "snapshot"], "snap"), (["volume"], "vol")]:
        sim.run(*noun, "delete", f"{name}-{tag}", cloud="demo")
    assert f"vol-{tag}" not in [row["Name"] for row in sim.json("volume", "list", cloud="demo")]


def test_types_services_and_quota_are_the_administrators(sim):
    tag = uuid.uuid4().hex[:8]
    sim.run("volume", "type", "create", f"type-{tag}", "--property", "volume_backend_name=file")
    assert f"type-{tag}" in [row["Name"] for row in sim.json("volume", "type", "list", cloud="demo")]
    services = sim.json("volume", "service", "list")
    assert {"cinder-volume", "cinder-scheduler"} == {row["Binary"] for row in services}
    assert all(row["State"] == "up" for row in services)
    assert sim.json("volume", "backend", "pool", "list")[0]["Name"].endswith("@file#file")
    sim.run("volume", "type", "delete", f"type-{tag}")


def test_an_image_of_a_volume_and_a_volume_of_the_image(sim):
    import time

    tag = uuid.uuid4().hex[:8]
    sim.run("volume", "create", f"vol-{tag}", "--size", 1, cloud="demo")
    volume = wait(sim, ["volume"], f"vol-{tag}", "available")["id"]
    sim.run("volume", "set", f"vol-{tag}", "--image-property", "hw_disk_bus=virtio", "--bootable", cloud="demo")
    made = sim.json("image", "create", f"img-{tag}", "--volume", f"vol-{tag}", "--disk-format", "qcow2", cloud="demo")
    assert made["status"] == "uploading" and made["image_name"] == f"img-{tag}", made
    for _ in range(200):
        image = sim.json("image", "show", made["image_id"], cloud="demo")
        if image["status"] == "active":
            break
        time.sleep(0.05)
    assert (image["status"], image["disk_format"], image["visibility"]) == ("active", "qcow2", "private"), image
    assert "virtio" in str(image["properties"]), image
    wait(sim, ["volume"], f"vol-{tag}", "available")
    sim.run("volume", "create", f"again-{tag}", "--size", 1, "--image", f"img-{tag}", cloud="demo")
    wait(sim, ["volume"], f"again-{tag}", "available")

    # A refusal names what is wrong and leaves the volume as it is.
    body = {"os-volume_upload_image": {"image_name": "x", "disk_format": "vdi"}}
    refused = sim.sdk("demo").block_storage.post(f"/volumes/{volume}/action", json=body)
    assert refused.status_code == 400 and "vdi" in refused.text, refused.text
    assert wait(sim, ["volume"], f"vol-{tag}", "available")["id"] == volume
    sim.run("image", "delete", f"img-{tag}", cloud="demo")
    for name in (f"vol-{tag}", f"again-{tag}"):
        sim.run("volume", "delete", name, cloud="demo")
