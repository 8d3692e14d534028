"""What must be refused of volumes of servers, through openstacksdk; each refusal names what was wrong."""

import time
import uuid

import pytest
from test_server_volumes import made  # noqa: F401 - a fixture


class Demo:
    """The demo project, and a neighbour in another one."""

    def __init__(self, sim):
        self.demo, self.admin = sim.sdk("demo"), sim.sdk("nubo")

    def volume(self, by=None, **body):
        volumes = (by or self.demo).block_storage
        made = volumes.create_volume(**{"size": 1, "name": f"bad-{uuid.uuid4().hex[:6]}", **body})
        return volumes.wait_for_status(made, "available", failures=["error"], interval=0.05, wait=30)

    def server(self, made, volume=None):
        """With a volume it goes to the volume's host, from where alone the volume is reached."""
        image, flavor = made[1], made[3]
        body = {"name": f"bad-{uuid.uuid4().hex[:6]}", "networks": "none", "flavorRef": self.demo.compute.find_flavor(flavor).id,
                "imageRef": self.demo.image.find_image(image).id}
        if volume:
            root = {"boot_index": 0, "source_type": "image", "destination_type": "local", "uuid": body["imageRef"]}
            data = {"boot_index": -1, "source_type": "volume", "destination_type": "volume", "uuid": volume}
            body["block_device_mapping_v2"] = [root, data]
        server = self.demo.compute.post("/servers", json={"server": body}, microversion="2.60").json()["server"]["id"]
        return self.demo.compute.wait_for_server(self.demo.compute.get_server(server), interval=0.05, wait=30).id

    def attach(self, server, volume):
        path, body = f"/servers/{server}/os-volume_attachments", {"volumeAttachment": {"volumeId": volume}}
        return self.demo.compute.post(path, json=body, microversion="2.60")

    def detach(self, server, volume):
        return self.demo.compute.delete(f"/servers/{server}/os-volume_attachments/{volume}", microversion="2.60")

    def act(self, volume, microversion="3.60", **action):
        return self.demo.block_storage.post(f"/volumes/{volume}/action", json=action, microversion=microversion)


def refused(answer, status, *words):
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    for word in words:
        assert word in answer.text, answer.text


def status_is(cloud, volume, status):
    until = time.monotonic() + 30
    while (found := cloud.demo.block_storage.get_volume(volume).status) != status:
        assert time.monotonic() < until and not found.startswith("error"), found
        time.sleep(0.05)


@pytest.fixture
def cloud(sim):
    return Demo(sim)


def test_sizes_that_cannot_be(cloud):
    post = lambda size: cloud.demo.block_storage.post("/volumes", json={"volume": {"size": size}})
    for size in (0, -1, 1 << 40, 1.5, "many", True, None):
        refused(post(size), 400)
    # More than the quota of the project.
    refused(post(1 << 20), 413, "gigabytes")
    volume = cloud.volume(size=2)
    refused(cloud.act(volume.id, **{"os-extend": {"new_size": 1}}), 400, "greater than current size", "current: 2")
    assert cloud.demo.block_storage.get_volume(volume.id).size == 2
    cloud.demo.block_storage.delete_volume(volume)


def test_what_is_in_use_stays(cloud, made):  # noqa: F811
    """Attached twice, detached by who has not got it, deleted, extended without the microversion."""
    volume = cloud.volume()
    one = cloud.server(made, volume.id)
    status_is(cloud, volume.id, "in-use")
    two = cloud.server(made)
    refused(cloud.attach(one, volume.id), 400, volume.id)
    refused(cloud.attach(two, volume.id), 400, volume.id)
    refused(cloud.detach(two, volume.id), 404, volume.id, two)
    refused(cloud.demo.block_storage.delete(f"/volumes/{volume.id}"), 400)
    refused(cloud.act(volume.id, "3.41", **{"os-extend": {"new_size": 2}}), 400, "status must be 'available'")
    refused(cloud.act(volume.id, **{"os-detach": {}}), 400, one)
    snapshot = {"snapshot": {"volume_id": volume.id}}
    refused(cloud.demo.block_storage.post("/snapshots", json=snapshot, microversion="3.60"), 400, "in-use")
    assert cloud.act(volume.id, "3.42", **{"os-extend": {"new_size": 2}}).status_code == 202
    status_is(cloud, volume.id, "in-use")
    assert cloud.demo.block_storage.get_volume(volume.id).size == 2
    attached = cloud.demo.compute.get(f"/servers/{one}/os-volume_attachments").json()["volumeAttachments"]
    assert [it["volumeId"] for it in attached] == [volume.id]
    assert cloud.detach(one, volume.id).status_code == 202
    status_is(cloud, volume.id, "available")
    for server in (one, two):
        cloud.demo.compute.delete_server(server)
    kept = cloud.demo.block_storage.create_snapshot(volume_id=volume.id)
    cloud.demo.block_storage.wait_for_status(kept, "available", interval=0.05, wait=30)
    refused(cloud.demo.block_storage.delete(f"/volumes/{volume.id}"), 400, "snapshot")
    cloud.demo.block_storage.delete_snapshot(kept)
    cloud.demo.block_storage.delete_volume(volume)


def test_what_is_foreign_is_not_there(cloud, made):  # noqa: F811
    volume = cloud.volume(by=cloud.admin)
    snapshot = cloud.admin.block_storage.create_snapshot(volume_id=volume.id)
    cloud.admin.block_storage.wait_for_status(snapshot, "available", interval=0.05, wait=30)
    server, blocks = cloud.server(made), cloud.demo.block_storage
    refused(blocks.get(f"/volumes/{volume.id}"), 404, volume.id)
    refused(blocks.get(f"/snapshots/{snapshot.id}"), 404, snapshot.id)
    refused(blocks.delete(f"/volumes/{volume.id}"), 404)
    refused(blocks.delete(f"/snapshots/{snapshot.id}"), 404)
    refused(cloud.act(volume.id, **{"os-extend": {"new_size": 2}}), 404)
    refused(cloud.attach(server, volume.id), 404, volume.id)
    refused(blocks.post("/volumes", json={"volume": {"snapshot_id": snapshot.id, "size": 1}}), 404, snapshot.id)
    refused(blocks.post("/volumes", json={"volume": {"source_volid": volume.id, "size": 1}}), 404, volume.id)
    disk = {"source_type": "snapshot", "destination_type": "volume", "uuid": snapshot.id, "boot_index": 0}
    body = {"name": "foreign", "networks": "none", "flavorRef": cloud.demo.compute.find_flavor(made[3]).id,
            "block_device_mapping_v2": [disk]}
    refused(cloud.demo.compute.post("/servers", json={"server": body}, microversion="2.60"), 400, snapshot.id)
    cloud.demo.compute.delete_server(server)
    cloud.admin.block_storage.delete_snapshot(snapshot)
    cloud.admin.block_storage.delete_volume(volume)
