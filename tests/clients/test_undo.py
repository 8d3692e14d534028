"""What was deleted rests in the trash, and comes back by the command."""

import os
import subprocess

import lib
import pytest


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    state = tmp_path_factory.mktemp("undo")
    simulated = lib.Simulated(hosts=1, NUBO_STATE=str(state), NUBO_TRASH_RETENTION="3600")
    simulated.cloud.state = state
    yield simulated.cloud
    simulated.stop()


def nubo(cloud, *words):
    env = {**os.environ, "NUBO_STATE": str(cloud.state)}
    return subprocess.run([str(lib.NUBO), *words], env=env, capture_output=True, text=True, timeout=60)


def test_a_deleted_server_comes_back_with_its_id_and_addresses(cloud):
    admin = cloud.sdk("nubo")
    network = admin.network.create_network(name="undo")
    admin.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.9.0.0/24")
    image = admin.image.create_image(name="undo", disk_format="raw", container_format="bare", data=b"\0" * 65536)
    flavor = admin.compute.create_flavor(name="undo", ram=64, vcpus=1, disk=1)
    made = admin.compute.create_server(name="undo", image_id=image.id, flavor_id=flavor.id,
                                       networks=[{"uuid": network.id}])
    server = admin.compute.wait_for_server(made, wait=30, interval=0.2)
    (port,) = admin.network.ports(device_id=server.id)

    answer = admin.compute.delete(f"/servers/{server.id}")
    assert answer.status_code == 204
    request = answer.headers["x-openstack-request-id"]
    assert admin.compute.get(f"/servers/{server.id}").status_code == 404
    assert list(admin.network.ports(device_id=server.id)) == []

    listed = nubo(cloud, "trash", "list")
    assert listed.returncode == 0 and request in listed.stdout and "server" in listed.stdout, listed
    undone = nubo(cloud, "undo", request)
    assert undone.returncode == 0, undone
    back = admin.compute.wait_for_server(admin.compute.get_server(server.id), wait=30, interval=0.2)
    assert (back.name, back.addresses) == (server.name, server.addresses)
    (again,) = admin.network.ports(device_id=server.id)
    assert (again.id, again.mac_address, again.fixed_ips) == (port.id, port.mac_address, port.fixed_ips)
    twice = nubo(cloud, "undo", request)
    assert twice.returncode != 0 and twice.stderr, twice
    admin.compute.delete_server(server.id)


def test_an_unknown_request_cannot_be_undone(cloud):
    undone = nubo(cloud, "undo", "req-00000000-0000-4000-8000-000000000000")
    assert undone.returncode != 0 and "req-00000000" in undone.stdout + undone.stderr, undone
