"""An image made of a server holds what was on its disk, while it runs and when it is off."""

import uuid

import http_in_netns
import lib
from test_crash import remove, show, wait_status


def made_image(api, server, name):
    """Makes an image of the server and waits until it can be used."""
    api.post("compute", f"/servers/{server}/action", {"createImage": {"name": name}})

    def active():
        images = api.get("image", f"/v2/images?name={name}")["images"]
        assert images, "the image was given up"
        return images[0] if images[0]["status"] == "active" else None

    image = lib.wait_for(f"image {name} is active", active, 60)
    assert image["size"] > 1 << 20 and image["disk_format"] == "qcow2", image
    return image["id"]


def booted(api, image):
    """A server from the image and an address at which it answers; the port that has it comes along."""
    (flavor,) = [it["id"] for it in api.get("compute", "/flavors")["flavors"] if it["name"] == "m1.tiny"]
    network = api.get("network", "/v2.0/networks?name=demo-net")["networks"][0]["id"]
    public = api.get("network", "/v2.0/networks?name=public")["networks"][0]["id"]
    body = {"name": f"copy-{uuid.uuid4().hex[:6]}", "imageRef": image, "flavorRef": flavor, "key_name": "demo",
            "networks": [{"uuid": network}]}
    server = api.post("compute", "/servers", {"server": body})["server"]["id"]
    wait_status(api, server, "ACTIVE")
    (port,) = api.get("network", f"/v2.0/ports?device_id={server}")["ports"]
    floating = {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}
    floating = api.post("network", "/v2.0/floatingips", floating)["floatingip"]
    return server, floating


def test_an_image_of_a_server_has_its_disk(cloud):
    api = http_in_netns.Api(cloud)
    (demo,) = api.get("compute", "/servers?name=^demo$")["servers"]
    demo, outside = demo["id"], cloud.demo_address()
    lib.wait_for("the demo answers", lambda: cloud.ssh(outside, "true", check=False).returncode == 0, 240)
    written = uuid.uuid4().hex
    cloud.ssh(outside, f"echo {written} | sudo tee /mnt/copied && sync")
    guest = cloud.guests()[demo]
    running = made_image(api, demo, f"running-{written[:6]}")
    assert cloud.guests()[demo] == guest, "the guest was touched"
    assert show(api, demo)["OS-EXT-STS:task_state"] is None

    server, floating = booted(api, running)
    address = floating["floating_ip_address"]
    lib.wait_for("the copy answers", lambda: cloud.ssh(address, "true", check=False).returncode == 0, 240)
    assert cloud.ssh(address, "sudo cat /mnt/copied").stdout.strip() == written

    api.post("compute", f"/servers/{server}/action", {"os-stop": None})
    wait_status(api, server, "SHUTOFF", 120)
    at_rest = made_image(api, server, f"at-rest-{written[:6]}")
    assert show(api, server)["status"] == "SHUTOFF"
    lib.wait_for("nothing is left of the copying", lambda: cloud.fsck() == [], 20)

    api.delete("network", f"/v2.0/floatingips/{floating['id']}")
    remove(api, server)
    for image in (running, at_rest):
        api.delete("image", f"/v2/images/{image}")
    assert cloud.fsck() == []
