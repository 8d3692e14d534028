"""The cache of images, by the commands of the client."""

import pytest

import lib


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    state = tmp_path_factory.mktemp("caching")
    (state / "nubo.toml").write_text('[image_cache]\nmax_size = "16M"\n')
    simulated = lib.Simulated(hosts=1, NUBO_STATE=str(state))
    yield simulated.cloud
    assert simulated.stop() == 0


def listed(cloud):
    return {image["Image ID"] if "Image ID" in image else image["ID"]: image for image in cloud.json("cached", "image", "list")}


def test_images_are_queued_listed_and_removed(cloud, tmp_path):
    file = tmp_path / "raw"
    file.write_bytes(b"nubo" * 4096)
    ids = []
    for name in ["one", "other"]:
        image = cloud.json("image", "create", name, "--disk-format", "raw", "--container-format", "bare", "--file", str(file))
        ids.append(image["id"])
    cloud.run("cached", "image", "queue", *ids)
    lib.wait_for("both are cached", lambda: set(listed(cloud)) == set(ids), seconds=30)
    assert not any("queued" in str(image.get("State", "")).lower() for image in listed(cloud).values())
    saved = tmp_path / "saved"
    cloud.run("image", "save", "--file", str(saved), "one")
    assert saved.read_bytes() == file.read_bytes()
    cloud.run("cached", "image", "delete", ids[0])
    assert set(listed(cloud)) == {ids[1]}
    cloud.run("image", "delete", "other")
    assert listed(cloud) == {}
    cloud.run("cached", "image", "queue", ids[0])
    lib.wait_for("it is cached again", lambda: set(listed(cloud)) == {ids[0]}, seconds=30)
    cloud.run("cached", "image", "clear", "--queue")
    assert set(listed(cloud)) == {ids[0]}
    cloud.run("cached", "image", "clear")
    assert listed(cloud) == {}
