"""Guests and hosts that die: what the cloud says, and what comes back."""

import os
import signal
import uuid

import http_in_netns
import lib
import real


def new_server(cloud, **flavor_specs):
    """A server of its own flavor on the demo's network."""
    admin, demo = http_in_netns.Api(cloud, "nubo"), http_in_netns.Api(cloud)
    name = f"crash-{uuid.uuid4().hex[:6]}"
    flavor = admin.post("compute", "/flavors", {"flavor": {"name": name, "ram": 128, "vcpus": 1, "disk": 1}})["flavor"]["id"]
    if flavor_specs:
        admin.post("compute", f"/flavors/{flavor}/os-extra_specs", {"extra_specs": flavor_specs})
    image = demo.get("image", "/v2/images?name=tiny")["images"][0]["id"]
    network = demo.get("network", "/v2.0/networks?name=demo-net")["networks"][0]["id"]
    body = {"server": {"name": name, "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}]}}
    server = demo.post("compute", "/servers", body)["server"]["id"]
    wait_status(demo, server, "ACTIVE")
    return demo, server


def show(api, server):
    return api.get("compute", f"/servers/{server}")["server"]


def wait_status(api, server, status, seconds=60):
    lib.wait_for(f"{server} is {status}", lambda: show(api, server)["status"] == status, seconds)


def remove(api, server):
    api.delete("compute", f"/servers/{server}")

    def gone():
        try:
            show(api, server)
        except http_in_netns.Fault as fault:
            return fault.status == 404

    lib.wait_for(f"{server} is gone", gone)


def test_a_killed_guest_is_shutoff_with_a_reason_and_starts_again(cloud):
    api, server = new_server(cloud)
    pid, _ = cloud.guests()[server]
    os.kill(pid, signal.SIGKILL)
    wait_status(api, server, "SHUTOFF")
    actions = api.get("compute", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert any("kill" in (action["message"] or "").lower() or action["action"] == "stop" for action in actions), actions
    api.post("compute", f"/servers/{server}/action", {"os-start": None})
    wait_status(api, server, "ACTIVE")
    assert cloud.guests()[server][0] != pid
    remove(api, server)


def test_a_guest_killed_while_no_agent_ran_is_shutoff_and_stays_so(cloud):
    api, server = new_server(cloud)
    pid, _ = cloud.guests()[server]
    supervisor = cloud.pid("supervisor")
    # Stopped, that it starts no agent before the guest is dead.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        old = cloud.kill("agent")
        os.kill(pid, signal.SIGKILL)
        lib.wait_for("the guest is gone", lambda: real.start_time(pid) is None)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    old = cloud.wait_back("agent", old)
    wait_status(api, server, "SHUTOFF")
    cloud.kill("agent")
    cloud.wait_back("agent", old)
    lib.wait_for("the agent is heard", lambda: cloud.api.run("console", "log", "show", server, cloud="demo", check=False)
                 .returncode == 0)
    assert show(api, server)["status"] == "SHUTOFF" and server not in cloud.guests()
    remove(api, server)


def test_on_crash_restart_brings_a_killed_guest_back(cloud):
    api, server = new_server(cloud, **{"nubo:on_crash": "restart"})
    pid, _ = cloud.guests()[server]
    os.kill(pid, signal.SIGKILL)
    lib.wait_for("another process", lambda: cloud.guests().get(server, (pid,))[0] != pid)
    wait_status(api, server, "ACTIVE")
    remove(api, server)


def test_a_rebooted_host_brings_its_running_guests_back(cloud):
    # Not the demo: `make up` itself starts that again.
    api, kept = new_server(cloud)
    api, stopped = new_server(cloud)
    api.post("compute", f"/servers/{stopped}/action", {"os-stop": None})
    wait_status(api, stopped, "SHUTOFF", 90)
    before = cloud.guests()
    demo = api.get("compute", "/servers?name=^demo$")["servers"][0]["id"]
    assert demo in before and kept in before and stopped not in before
    # All at once, as a power cut does it: first the supervisor, that nothing comes back meanwhile.
    for name in ("supervisor", "control", "agent"):
        cloud.kill(name)
    for pid, line in real.processes().items():
        if str(cloud.state) in line or cloud.cloud_id() in line:
            os.kill(pid, signal.SIGKILL)
    for namespace in real.said("ip", "netns", "list").split():
        if cloud.cloud_id() in namespace:
            real.said("ip", "netns", "delete", namespace)
    real.said("ip", "netns", "delete", cloud.netns)
    cloud.env["NUBO_BOOT_ID"] = str(uuid.uuid4())
    cloud.make("up")
    after = cloud.guests()
    assert demo in after and after[demo] != before[demo]
    lib.wait_for("the other guest is back", lambda: cloud.guests().get(kept, before[kept]) != before[kept])
    assert stopped not in cloud.guests()
    cloud.ssh(cloud.demo_address(), "true")
    assert cloud.fsck() == []
    api = http_in_netns.Api(cloud)
    assert show(api, stopped)["status"] == "SHUTOFF"
    wait_status(api, kept, "ACTIVE")
    remove(api, stopped)
    remove(api, kept)
