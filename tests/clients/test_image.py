"""Images with the commands that a user types: up, shown, changed, shared, down, gone; and what is refused."""

import hashlib
import os
import uuid

import pytest

MIB = 1 << 20


@pytest.fixture
def name():
    return f"image-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def disk(tmp_path):
    """Three mebibytes that are no image format."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"\0" * 512 + os.urandom(3 * MIB - 512))
    return path


def put(data, at, value):
    data[at:at + len(value)] = value


def qcow2(size=64 * MIB, l1_entries=1):
    """An empty disk as qcow2 version 3, clusters of 64 KiB."""
    data = bytearray(4 << 16)
    put(data, 0, b"QFI\xfb\0\0\0\x03")
    put(data, 20, (16).to_bytes(4, "big"))
    put(data, 24, size.to_bytes(8, "big"))
    put(data, 36, l1_entries.to_bytes(4, "big"))
    put(data, 40, (3 << 16).to_bytes(8, "big"))
    put(data, 48, (1 << 16).to_bytes(8, "big"))
    put(data, 56, (1).to_bytes(4, "big"))
    put(data, 96, (4).to_bytes(4, "big"))
    put(data, 100, (104).to_bytes(4, "big"))
    return data


def create(sim, name, path, disk_format, *more, check=True, cloud="demo"):
    return sim.run("image", "create", name, "--disk-format", disk_format, "--container-format", "bare",
                   "--file", path, *more, cloud=cloud, check=check)


def test_an_image_goes_up_is_changed_comes_down_and_goes(sim, name, disk, tmp_path):
    create(sim, name, disk, "raw", "--property", "hw_disk_bus=virtio", "--tag", "one", "--min-disk", 1)
    shown = sim.json("image", "show", name, cloud="demo")
    data = disk.read_bytes()
    assert (shown["status"], shown["size"], shown["virtual_size"]) == ("active", len(data), len(data))
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert shown["properties"]["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert shown["properties"]["hw_disk_bus"] == "virtio"
    sim.run("image", "set", name, "--property", "extra=yes", "--tag", "two", "--min-ram", 64, "--protected", cloud="demo")
    shown = sim.json("image", "show", name, cloud="demo")
    assert (shown["min_ram"], sorted(shown["tags"]), shown["properties"]["extra"]) == (64, ["one", "two"], "yes")
    refused = sim.run("image", "delete", name, cloud="demo", check=False)
    assert refused.returncode != 0 and "is protected" in refused.stderr
    sim.run("image", "set", name, "--unprotected", cloud="demo")
    sim.run("image", "unset", name, "--property", "extra", "--tag", "one", cloud="demo")
    listed = sim.json("image", "list", "--long", "--name", name, cloud="demo")
    assert [(row["Status"], row["Size"], row["Disk Format"]) for row in listed] == [("active", len(data), "raw")]
    saved = tmp_path / "saved"
    sim.run("image", "save", name, "--file", saved, cloud="demo")
    assert saved.read_bytes() == data
    sim.run("image", "delete", name, cloud="demo")
    assert sim.json("image", "list", "--name", name, cloud="demo") == []


def test_the_sdk_uploads_in_a_stream_imports_and_pages(sim, name, disk):
    sdk = sim.sdk("demo")
    for number in range(3):
        image = sdk.create_image(f"{name}-{number}", filename=str(disk), disk_format="raw", container_format="bare",
                                 wait=True, validate_checksum=True, tags=[name])
        assert image.status == "active"
    assert len(list(sdk.image.images(tag=name, limit=1))) == 3
    staged = sdk.image.create_image(f"{name}-staged", disk_format="raw", container_format="bare", tags=[name])
    sdk.image.stage_image(staged, filename=str(disk))
    assert sdk.image.get_image(staged).status == "uploading"
    sdk.image.import_image(staged)
    assert sdk.image.get_image(staged).status == "active"
    for image in list(sdk.image.images(tag=name)):
        sdk.image.delete_image(image)
    assert list(sdk.image.images(tag=name)) == []


def test_an_image_is_shared_with_a_project(sim, name, disk):
    create(sim, name, disk, "raw", "--shared")
    project = sim.json("project", "show", "admin")["id"]
    image = sim.json("image", "show", name, cloud="demo")["id"]
    sim.run("image", "add", "project", image, project, cloud="demo")
    assert [row["Status"] for row in sim.json("image", "member", "list", image, cloud="demo")] == ["pending"]
    sim.run("image", "set", "--accept", image)
    assert [row["Status"] for row in sim.json("image", "member", "list", image, cloud="demo")] == ["accepted"]
    sim.run("image", "remove", "project", image, project, cloud="demo")
    sim.run("image", "delete", image, cloud="demo")


def backed():
    data = qcow2()
    put(data, 8, (512).to_bytes(8, "big"))
    put(data, 16, (11).to_bytes(4, "big"))
    put(data, 512, b"/etc/shadow")
    return data


def split():
    data = qcow2()
    put(data, 72, (4).to_bytes(8, "big"))
    return data


def iso():
    data = bytearray(MIB)
    put(data, 32768, b"\x01CD001\x01")
    return data


REFUSED = {
    "backing file": ("qcow2", backed, "a backing file"),
    "external data file": ("qcow2", split, "an external data file"),
    "size bomb": ("qcow2", lambda: qcow2(3 << 40, 6144), "unfolds to a disk of 3 TiB"),
    "truncated": ("qcow2", lambda: qcow2()[:3 << 16], "truncated"),
    "VMDK called raw": ("raw", lambda: b"KDMV" + bytes(MIB), "a VMDK file"),
    "ISO called raw": ("raw", iso, "an ISO 9660/UDF file"),
    "qcow2 called raw": ("raw", qcow2, "a qcow2 file"),
    "nothing called qcow2": ("qcow2", lambda: os.urandom(MIB), "no image format that is known"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_what_it_says_is_refused_with_the_reason(sim, name, tmp_path, case):
    disk_format, data, because = REFUSED[case]
    path = tmp_path / "upload"
    path.write_bytes(data())
    refused = create(sim, name, path, disk_format, check=False)
    assert refused.returncode != 0
    assert because in refused.stderr + refused.stdout
    # The command removes what it could not fill; the reason alone stays.
    for row in sim.json("image", "list", "--name", name, cloud="demo"):
        sim.run("image", "delete", row["ID"], cloud="demo")


def test_foreign_images_do_not_exist(sim, name, disk):
    create(sim, name, disk, "raw", "--private", cloud="nubo")
    image = sim.json("image", "show", name)["id"]
    refused = sim.run("image", "show", image, cloud="demo", check=False)
    assert refused.returncode != 0 and "No Image found" in refused.stderr
    sim.run("image", "delete", image)


def test_an_operator_limits_a_project(sim, name):
    project = sim.json("project", "create", name)["id"]
    sim.run("role", "add", "--project", name, "--user", "demo", "member")
    known = [row["Resource Name"] for row in sim.json("registered", "limit", "list")]
    if "image_count_total" not in known:
        sim.run("registered", "limit", "create", "--service", "glance", "--default-limit", "1000", "image_count_total")
    sim.run("limit", "create", "--project", project, "--service", "glance", "--resource-limit", "1", "image_count_total")
    demo = sim.sdk("demo").connect_as(project_id=project, project_name=None)
    first = demo.image.create_image(f"{name}-1", disk_format="raw", container_format="bare")
    with pytest.raises(Exception, match="image_count_total is over limit of 1") as refused:
        demo.image.create_image(f"{name}-2", disk_format="raw", container_format="bare")
    assert refused.value.status_code == 413
    # An image of a volume counts as well.
    volume = demo.block_storage.create_volume(size=1)
    demo.block_storage.wait_for_status(volume, "available", failures=["error"], interval=0.05, wait=30)
    body = {"os-volume_upload_image": {"image_name": f"{name}-4", "disk_format": "qcow2"}}
    refused = demo.block_storage.post(f"/volumes/{volume.id}/action", json=body)
    assert refused.status_code == 413 and "image_count_total is over limit of 1" in refused.text, refused.text
    assert demo.block_storage.get_volume(volume).status == "available"
    demo.block_storage.delete_volume(volume)
    demo.image.delete_image(first)
    demo.image.delete_image(demo.image.create_image(f"{name}-3", disk_format="raw", container_format="bare"))
    sim.run("limit", "delete", sim.json("limit", "list", "--project", project)[0]["ID"])
    sim.run("project", "delete", project)
