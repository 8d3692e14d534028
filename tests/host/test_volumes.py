"""Volumes of real guests: plugged in and out while they run, larger meanwhile, copied, and booted from."""

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
    def run(command):
        return cloud.ssh(address, command).stdout.strip()

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


def test_a_server_boots_from_a_volume_that_outlives_it(cloud):
    api = http_in_netns.Api(cloud)
    (flavor,) = [it["id"] for it in api.get("compute", "/flavors")["flavors"] if it["name"] == "m1.tiny"]
    network = api.get("network", "/v2.0/networks?name=demo-net")["networks"][0]["id"]
    public = api.get("network", "/v2.0/networks?name=public")["networks"][0]["id"]
    image = api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
    disk = {"source_type": "image", "destination_type": "volume", "uuid": image, "volume_size": 1, "boot_index": 0,
            "delete_on_termination": False}
    volume, word = None, uuid.uuid4().hex
    for turn in range(2):
        body = {"name": f"boots-{word[:6]}-{turn}", "flavorRef": flavor, "key_name": "demo", "networks": [{"uuid": network}],
                "block_device_mapping_v2": [disk]}
        server = api.post("compute", "/servers", {"server": body})["server"]["id"]
        wait_status(api, server, "ACTIVE")
        (attached,) = api.get("compute", f"/servers/{server}/os-volume_attachments")["volumeAttachments"]
        volume = attached["volumeId"]
        (port,) = api.get("network", f"/v2.0/ports?device_id={server}")["ports"]
        floating = {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}
        floating = api.post("network", "/v2.0/floatingips", floating)["floatingip"]
        address = floating["floating_ip_address"]
        lib.wait_for("the server answers", lambda: cloud.ssh(address, "true", check=False).returncode == 0, 240)
        if turn == 0:
            cloud.ssh(address, f"echo {word} | sudo tee /mnt/kept && sync")
            disk = {"source_type": "volume", "destination_type": "volume", "uuid": volume, "boot_index": 0,
                    "delete_on_termination": True}
        else:
            assert cloud.ssh(address, "sudo cat /mnt/kept").stdout.strip() == word
        api.delete("network", f"/v2.0/floatingips/{floating['id']}")
        remove(api, server)
        if turn == 0:
            wait_volume(api, volume, "available")
    away = lambda: volume not in [it["id"] for it in api.get("block-storage", "/volumes")["volumes"]]
    lib.wait_for("the volume went with its server", away, 60, 0.2)
    lib.wait_for("nothing is left", lambda: cloud.fsck() == [], 30)
