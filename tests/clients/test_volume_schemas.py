"""What Cinder's and Nova's schemas refuse of volumes, through openstacksdk: unknown fields, wrong types, wrong moments."""

import uuid

import pytest
from test_server_volumes import made  # noqa: F401 - a fixture
from test_volume_bad_input import Demo, refused, status_is

NOBODY = "33333333-3333-3333-3333-333333333333"


@pytest.fixture
def cloud(sim):
    return Demo(sim)


def post(cloud, path, body, microversion="3.60", by=None):
    return (by or cloud.demo).block_storage.post(path, json=body, microversion=microversion)


def test_new_volumes(cloud):
    create = lambda microversion="3.60", **more: post(cloud, "/volumes", {"volume": {"size": 1, **more}}, microversion)
    refused(create(colour="red"), 400, "colour")
    refused(post(cloud, "/volumes", {"volume": {"size": 1}, "colour": "red"}), 400, "colour")
    for field, value in [("name", "x" * 256), ("description", "x" * 256), ("metadata", {"a": "x" * 256}), ("metadata", []),
                         ("snapshot_id", "shoe"), ("source_volid", "shoe"), ("imageRef", ""), ("name", 7),
                         ("availability_zone", "moon"), ("multiattach", True)]:
        refused(create(**{field: value}), 400)
    for field in ("snapshot_id", "source_volid", "volume_type"):
        refused(create(**{field: NOBODY}), 404, NOBODY)
    made = create(microversion="3.52", colour="red", name=" a ", volume_type="")
    assert made.status_code == 202 and made.json()["volume"]["name"] == "a", made.text
    cloud.demo.block_storage.delete(f"/volumes/{made.json()['volume']['id']}")


def test_actions_and_states(cloud):
    volume = cloud.volume()
    act = lambda **action: cloud.act(volume.id, **action)
    for action in [{"os-attach": {"mountpoint": "/dev/vdb"}}, {"os-detach": {"x": 1}}, {"os-extend": {"new_size": 2, "x": 1}},
                   {"os-initialize_connection": {}}, {"os-set_bootable": {"bootable": "perhaps"}}, {"os-fly": {}}]:
        refused(act(**action), 400)
    assert act(**{"os-unreserve": None}).status_code == 202
    for status, words in [("deleting", "deleting"), ("in-use", "attachments"), ("shoe", "shoe")]:
        reset = {"os-reset_status": {"status": status}}
        refused(post(cloud, f"/volumes/{volume.id}/action", reset, by=cloud.admin), 400, words)
        refused(act(**reset), 403)
    snapshot = cloud.demo.block_storage.create_snapshot(volume_id=volume.id)
    cloud.demo.block_storage.wait_for_status(snapshot, "available", interval=0.05, wait=30)
    refused(post(cloud, f"/volumes/{volume.id}/action", {"os-force_delete": None}, by=cloud.admin), 400, "snapshot")
    refused(post(cloud, "/snapshots", {"snapshot": {"volume_id": volume.id, "colour": "red"}}), 400, "colour")
    refused(post(cloud, f"/snapshots/{snapshot.id}/action", {"os-update_snapshot_status": {"status": "error"}}), 400)
    cloud.demo.block_storage.delete_snapshot(snapshot)
    cloud.demo.block_storage.delete_volume(volume)


def test_a_transfer_needs_its_key_and_takes_the_snapshots_along(cloud):
    volume = cloud.volume()
    snapshot = cloud.demo.block_storage.create_snapshot(volume_id=volume.id)
    cloud.demo.block_storage.wait_for_status(snapshot, "available", interval=0.05, wait=30)
    offer = post(cloud, "/os-volume-transfer", {"transfer": {"volume_id": volume.id}}, "3.0").json()["transfer"]
    accept = lambda key: post(cloud, f"/os-volume-transfer/{offer['id']}/accept", {"accept": {"auth_key": key}}, by=cloud.admin)
    refused(accept("guess"), 400, "auth key")
    assert accept(offer["auth_key"]).status_code == 202
    refused(accept(offer["auth_key"]), 404, offer["id"])
    refused(cloud.demo.block_storage.get(f"/snapshots/{snapshot.id}"), 404)
    cloud.admin.block_storage.delete_snapshot(snapshot.id)
    cloud.admin.block_storage.delete_volume(volume.id)


def test_a_message_has_cinders_numbers(sim, cloud):
    name = f"far-{uuid.uuid4().hex[:6]}"
    sim.run("volume", "type", "create", name, "--property", "volume_backend_name=ceph")
    volume = post(cloud, "/volumes", {"volume": {"size": 1, "volume_type": name}}).json()["volume"]["id"]
    found = sim.json("--os-volume-api-version", "3.60", "volume", "message", "list", cloud="demo")
    [said] = [row for row in found if row["Resource UUID"] == volume]
    assert said["Event ID"] == "VOLUME_VOLUME_001_003", said
    words = "schedule allocate volume:Could not find any available weighted backend."
    assert said["User Message"].startswith(words), said
    sim.run("volume", "delete", volume, cloud="demo")
    sim.run("volume", "type", "delete", name)


def test_disks_of_servers(cloud, made):  # noqa: F811
    volume = cloud.volume()
    server = cloud.server(made, volume.id)
    status_is(cloud, volume.id, "in-use")
    path = f"/servers/{server}/os-volume_attachments"
    put = lambda microversion="2.85", **body: cloud.demo.compute.put(
        f"{path}/{volume.id}", json={"volumeAttachment": {"volumeId": volume.id, **body}}, microversion=microversion)
    assert put(delete_on_termination=True).status_code == 202
    shown = cloud.demo.compute.get(f"{path}/{volume.id}", microversion="2.79").json()["volumeAttachment"]
    assert shown["delete_on_termination"] is True, shown
    for field, value in [("device", "/dev/vdx"), ("tag", "x"), ("serverId", NOBODY), ("id", NOBODY)]:
        refused(put(**{field: value}), 400, "not mutable")
    refused(put(volumeId=NOBODY), 409, "not migrating")
    refused(put("2.84", delete_on_termination=True), 400)
    attach = lambda **body: cloud.demo.compute.post(path, json={"volumeAttachment": {"volumeId": NOBODY, **body}}, microversion="2.79")
    refused(attach(device="vdc"), 400, "device")
    refused(attach(tag="a,b"), 400, "tag")
    refused(attach(colour="red"), 400, "colour")
    refused(attach(), 404, NOBODY)
    cloud.demo.compute.delete_server(server)
