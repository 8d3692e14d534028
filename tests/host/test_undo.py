"""A deleted server rests on its host and comes back with what was on its disk, unless one asks for more."""

import uuid

import http_in_netns
import lib
import pytest
import real

DAY = "86400"


@pytest.fixture(scope="module")
def resting():
    """A cloud whose trash keeps what is deleted."""
    with real.made_and_purged("u", NUBO_TRASH_RETENTION=DAY) as cloud:
        yield cloud


def status_of(api, service, path):
    try:
        api.get(service, path)
    except http_in_netns.Fault as fault:
        return fault.status
    return 200


def disks(cloud, server):
    return [path for path in cloud.state.rglob("root.qcow2") if server in str(path)]


def delete(api, server):
    """Deletes by the plain call; returns the id of the request."""
    headers = {"X-Auth-Token": api.token}
    status, answer, text = api.send("DELETE", f"{api.urls['compute']}/servers/{server}", headers=headers)
    assert status == 204, text
    return answer["x-openstack-request-id"]


def wait_absent(cloud, api, server):
    lib.wait_for("the server is 404", lambda: status_of(api, "compute", f"/servers/{server}") == 404)
    lib.wait_for("its process is gone", lambda: server not in cloud.guests())


def test_a_guest_comes_back_with_its_disk_and_goes_at_once_when_forced(resting):
    cloud, api = resting, http_in_netns.Api(resting)
    (server,) = api.get("compute", "/servers/detail?name=^demo$")["servers"]
    server, addresses = server["id"], server["addresses"]
    (port,) = api.get("network", f"/v2.0/ports?device_id={server}")["ports"]
    fixed, outside = port["fixed_ips"][0]["ip_address"], cloud.demo_address()
    written = uuid.uuid4().hex
    cloud.ssh(outside, f"grep -q ^/dev/vda2./mnt /proc/mounts && echo {written} | sudo tee /mnt/kept && sync")
    boot = cloud.ssh(outside, "cat /proc/sys/kernel/random/boot_id").stdout

    request = delete(api, server)
    wait_absent(cloud, api, server)
    assert status_of(api, "network", f"/v2.0/ports/{port['id']}") == 404, "its port is still there"
    (floating,) = api.get("network", "/v2.0/floatingips")["floatingips"]
    assert floating["port_id"] is None, floating
    # The address is free: another port may have it, and is removed again that it can be given back.
    again = {"port": {"network_id": port["network_id"], "fixed_ips": [{"ip_address": fixed}]}}
    other = api.post("network", "/v2.0/ports", again)["port"]["id"]
    collided = cloud.nubo("undo", request, check=False)
    assert collided.returncode != 0 and f"{fixed} is taken by port {other}" in collided.stderr, collided
    api.delete("network", f"/v2.0/ports/{other}")
    (disk,) = disks(cloud, server)
    assert cloud.fsck() == [], "what rests is not an orphan"
    assert request in cloud.nubo("trash", "list", "--all-projects").stdout

    cloud.nubo("undo", request)
    lib.wait_for("the server is ACTIVE again",
                 lambda: api.get("compute", f"/servers/{server}")["server"]["status"] == "ACTIVE", 120)
    assert disks(cloud, server) == [disk] and server in cloud.guests()
    back = api.get("compute", f"/servers/{server}")["server"]
    assert back["addresses"] == addresses, "it has other addresses, or another MAC"
    (port_back,) = api.get("network", f"/v2.0/ports?device_id={server}")["ports"]
    assert [port_back[key] for key in ("id", "mac_address", "fixed_ips")] == \
        [port[key] for key in ("id", "mac_address", "fixed_ips")]
    lib.wait_for("it answers SSH at its address", lambda: cloud.ssh(outside, "true", check=False).returncode == 0, 240)
    assert cloud.ssh(outside, "sudo cat /mnt/kept").stdout.strip() == written
    assert cloud.ssh(outside, "cat /proc/sys/kernel/random/boot_id").stdout != boot, "it was never stopped"
    assert cloud.fsck() == []

    api.post("compute", f"/servers/{server}/action", {"forceDelete": None})
    wait_absent(cloud, api, server)
    lib.wait_for("its disk is gone", lambda: not disks(cloud, server), 20)
    assert server not in cloud.nubo("trash", "list", "--all-projects", "--json").stdout
    assert cloud.fsck() == []
