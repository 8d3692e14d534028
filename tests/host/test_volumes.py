"""Volumes of real guests: plugged in and out while they run, larger meanwhile, copied, and booted from."""

import json
import uuid

import http_in_netns
import lib
from test_crash import remove, wait_status

GIB_SECTORS = 1 << 21


def made(api, status="available", **body):
    volume = api.post("block-storage", "/volumes", {"volume": {"name": f"v-{uuid.uuid4().hex[:6]}", **body}})["volume"]["id"]
    wait_volume(api, volume, status)
    return volume


def wait_volume(api, volume, status):
    def there():
        found = api.get("block-storage", f"/volumes/{volume}")["volume"]["status"]
        assert not found.startswith("error"), api.get("block-storage", f"/volumes/{volume}")
        return found == status

    lib.wait_for(f"volume {volume} is {status}", there, 60, 0.2)


def gone(api, volume):
    api.delete("block-storage", f"/volumes/{volume}")

    def away():
        listed = api.get("block-storage", "/volumes")["volumes"]
        return volume not in [it["id"] for it in listed]

    lib.wait_for("the volume is gone", away, 60, 0.2)


def attach(api, server, volume):
    path = f"/servers/{server}/os-volume_attachments"
    device = api.post("compute", path, {"volumeAttachment": {"volumeId": volume}})["volumeAttachment"]["device"]
    wait_volume(api, volume, "in-use")
    return device


def detach(api, server, volume):
    api.delete("compute", f"/servers/{server}/os-volume_attachments/{volume}")
    wait_volume(api, volume, "available")


def at(cloud, address):
    def run(command, check=True):
        return cloud.ssh(address, command, check=check).stdout.strip()

    return run


def sectors(run, name):
    return int(run(f"cat /sys/block/{name}/size 2>/dev/null || echo 0"))


def test_a_volume_goes_in_and_out_of_a_running_guest(cloud):
    api = http_in_netns.Api(cloud)
    (demo,) = api.get("compute", "/servers?name=^demo$")["servers"]
    server, outside = demo["id"], cloud.demo_address()
    lib.wait_for("the demo answers", lambda: cloud.ssh(outside, "true", check=False).returncode == 0, 240)
    run, guest = at(cloud, outside), cloud.guests()[server]
    volume = made(api, size=1)
    device = attach(api, server, volume)
    name = device.removeprefix("/dev/")
    lib.wait_for("the guest sees the disk", lambda: sectors(run, name) == GIB_SECTORS, 30)
    run(f"head -c 4194304 /dev/urandom | sudo tee {device} >/dev/null && sync")
    written = run(f"sudo head -c 4194304 {device} | md5sum")

    api.post("block-storage", f"/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
    lib.wait_for("the guest sees the larger disk", lambda: sectors(run, name) == 2 * GIB_SECTORS, 30)
    actions = [it["action"] for it in api.get("compute", f"/servers/{server}/os-instance-actions")["instanceActions"]]
    assert {"attach_volume", "extend_volume"} <= set(actions), actions

    snapshot = api.post("block-storage", "/snapshots", {"snapshot": {"volume_id": volume, "force": True}})["snapshot"]["id"]
    ready = lambda: api.get("block-storage", f"/snapshots/{snapshot}")["snapshot"]["status"] == "available"
    lib.wait_for("the snapshot is there", ready, 60, 0.2)
    run(f"head -c 4194304 /dev/zero | sudo tee {device} >/dev/null && sync")
    detach(api, server, volume)
    lib.wait_for("the guest has let go of it", lambda: sectors(run, name) == 0, 30)
    assert cloud.guests()[server] == guest, "the guest was touched"

    # An image of the snapshot's volume, while a guest has it, and a volume of that image.
    kept = made(api, snapshot_id=snapshot)
    attach(api, server, kept)
    body = {"os-volume_upload_image": {"image_name": "kept", "disk_format": "qcow2", "force": True}}
    image = api.post("block-storage", f"/volumes/{kept}/action", body)["os-volume_upload_image"]["image_id"]
    lib.wait_for("the image is there", lambda: api.get("image", f"/v2/images/{image}")["status"] == "active", 120, 0.2)
    wait_volume(api, kept, "in-use")
    detach(api, server, kept)
    gone(api, kept)
    again = made(api, size=2, imageRef=image)
    device = attach(api, server, again)
    lib.wait_for("the guest sees what was an image", lambda: sectors(run, name) == 2 * GIB_SECTORS, 30)
    assert run(f"sudo head -c 4194304 {device} | md5sum") == written
    detach(api, server, again)
    gone(api, again)
    api.delete("image", f"/v2/images/{image}")

    copy = made(api, snapshot_id=snapshot)
    device = attach(api, server, copy)
    lib.wait_for("the guest sees the copy", lambda: sectors(run, name) == 2 * GIB_SECTORS, 30)
    assert run(f"sudo head -c 4194304 {device} | md5sum") == written
    detach(api, server, copy)
    gone(api, copy)
    api.delete("block-storage", f"/snapshots/{snapshot}")
    lib.wait_for("the snapshot is gone", lambda: api.get("block-storage", "/snapshots")["snapshots"] == [], 60, 0.2)
    gone(api, volume)
    lib.wait_for("nothing is left", lambda: cloud.fsck() == [], 30)


def booted(cloud, api, **body):
    """A server of this kind that answers by SSH; its id, what runs a command in it, and what takes it away again."""
    flavor = next(it["id"] for it in api.get("compute", "/flavors")["flavors"] if it["name"] == "m1.tiny")
    network = api.get("network", "/v2.0/networks?name=demo-net")["networks"][0]["id"]
    public = api.get("network", "/v2.0/networks?name=public")["networks"][0]["id"]
    server = {"name": f"boots-{uuid.uuid4().hex[:6]}", "flavorRef": flavor, "key_name": "demo",
              "networks": [{"uuid": network}], **body}
    server = api.post("compute", "/servers", {"server": server})["server"]["id"]
    wait_status(api, server, "ACTIVE")
    (port,) = api.get("network", f"/v2.0/ports?device_id={server}")["ports"]
    floating = {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}
    floating = api.post("network", "/v2.0/floatingips", floating)["floatingip"]
    address = floating["floating_ip_address"]
    # The address may have been another server's a moment ago, and lead there until the host has heard of it.
    answers = lambda: cloud.ssh(address, "cat /run/instance-id", check=False).stdout.strip() == server
    lib.wait_for("the server answers", answers, 240)

    def away():
        api.delete("network", f"/v2.0/floatingips/{floating['id']}")
        remove(api, server)

    return server, at(cloud, address), away


def volumes_of(api, server):
    return [it["volumeId"] for it in api.get("compute", f"/servers/{server}/os-volume_attachments")["volumeAttachments"]]


def test_a_server_boots_from_a_volume_that_outlives_it(cloud):
    api, word = http_in_netns.Api(cloud), uuid.uuid4().hex
    image = api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
    disk = {"source_type": "image", "destination_type": "volume", "uuid": image, "volume_size": 1, "boot_index": 0,
            "delete_on_termination": False}
    server, run, away = booted(cloud, api, block_device_mapping_v2=[disk])
    (volume,) = volumes_of(api, server)
    run(f"echo {word} | sudo tee /mnt/kept && sync")

    # It is made to stand on nothing but itself while it runs.
    layers = lambda: sorted(it.name for it in (cloud.state / "hosts/volumes" / volume).iterdir() if it.suffix in (".qcow2", ".raw"))
    assert len(layers()) == 2, layers()
    api.post("block-storage", f"/volumes/{volume}/action", {"nubo-flatten": None})
    lib.wait_for("the volume stands alone", lambda: len(layers()) == 1, 120, 0.5)

    # An image of it names a snapshot; a server from that image begins with what was written.
    made_image = api.post("compute", f"/servers/{server}/action", {"createImage": {"name": "kept"}})["image_id"]
    (mapping,) = json.loads(api.get("image", f"/v2/images/{made_image}")["block_device_mapping"])
    snapshot = mapping["snapshot_id"]
    ready = lambda: api.get("block-storage", f"/snapshots/{snapshot}")["snapshot"]["status"] == "available"
    lib.wait_for("the snapshot is there", ready, 60, 0.2)
    other, run_other, away_other = booted(cloud, api, imageRef=made_image)
    assert run_other("sudo cat /mnt/kept") == word
    (copy,) = volumes_of(api, other)
    assert copy != volume
    away_other()
    wait_volume(api, copy, "available")
    gone(api, copy)
    api.delete("image", f"/v2/images/{made_image}")
    api.delete("block-storage", f"/snapshots/{snapshot}")
    away()
    wait_volume(api, volume, "available")

    disk = {"source_type": "volume", "destination_type": "volume", "uuid": volume, "boot_index": 0,
            "delete_on_termination": True}
    server, run, away = booted(cloud, api, block_device_mapping_v2=[disk])
    assert run("sudo cat /mnt/kept") == word
    away()
    left = lambda: volume not in [it["id"] for it in api.get("block-storage", "/volumes")["volumes"]]
    lib.wait_for("the volume went with its server", left, 60, 0.2)
    lib.wait_for("nothing is left", lambda: cloud.fsck() == [], 30)
