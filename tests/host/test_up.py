"""`make up` and what a person does next."""

import json
import re
import stat
import subprocess

import lib
import real


def test_up_ends_with_lines_that_work(cloud):
    assert re.search(r"^ip netns exec \S+ ssh -i \S+/demo\.key .* nubo@172\.24\.4\.\d+$", cloud.output, re.M)
    assert re.search(r"^API: http://127\.0\.0\.1:8774$", cloud.output, re.M)
    assert "OS_CLIENT_CONFIG_FILE=" in cloud.output
    ssh = next(line for line in cloud.output.splitlines() if " ssh -i " in line)
    done = subprocess.run([*ssh.split(), "hostname"], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "demo", done.stderr


def test_up_again_changes_nothing(cloud):
    guests, pids = cloud.guests(), [cloud.pid(n) for n in ("control", "agent", "supervisor")]
    cloud.make("up")
    assert "nothing was changed" in cloud.output
    assert cloud.guests() == guests
    assert [cloud.pid(n) for n in ("control", "agent", "supervisor")] == pids


def test_secrets_are_private(cloud):
    for name in ("clouds.yaml", "openrc", "demo.key", "setup.json"):
        assert stat.S_IMODE((cloud.state / name).stat().st_mode) == 0o600, name


def test_control_and_guests_run_without_root(cloud):
    def uid(pid):
        return int(re.search(r"^Uid:\s+(\d+)", open(f"/proc/{pid}/status").read(), re.M).group(1))

    assert uid(cloud.pid("control")) != 0
    assert uid(cloud.pid("agent")) == 0
    for pid, _ in cloud.guests().values():
        assert uid(pid) not in (0, uid(cloud.pid("control")))


def test_the_demo_is_what_the_contract_says(cloud):
    api = cloud.api
    assert api.json("server", "show", "demo", cloud="demo")["status"] == "ACTIVE"
    assert api.json("image", "show", "tiny", cloud="demo")["status"] == "active"
    assert (cloud.state / "tiny.qcow2").stat().st_size < 25 << 20
    for kind, name in [("network", "public"), ("network", "demo-net"), ("router", "demo-router")]:
        assert api.json(kind, "show", name, cloud="demo")["status"] == "ACTIVE", name
    assert api.json("keypair", "show", "demo", cloud="demo")["name"] == "demo"
    assert api.json("flavor", "show", "m1.tiny", cloud="demo")["name"] == "m1.tiny"


def test_status_names_every_part(cloud):
    status = json.loads(cloud.nubo("status", "--json").stdout)
    assert status["healthy"], status
    names = {part["name"] for part in status["parts"]}
    assert {"supervisor", "control", "agent", "store", "identity", "image", "network", "compute"} <= names


def test_nothing_is_orphaned(cloud):
    assert cloud.fsck() == []


def test_the_guest_knows_its_metadata(cloud):
    address = cloud.demo_address()
    got = json.loads(cloud.ssh(address, "wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json").stdout)
    server = cloud.api.json("server", "show", "demo", cloud="demo")
    assert got["uuid"] == server["id"] and got["name"] == "demo"
    ec2 = cloud.ssh(address, "wget -q -O - http://169.254.169.254/latest/meta-data/hostname").stdout
    assert ec2.split(".")[0] == "demo"


def test_the_console_log_shows_the_boot(cloud):
    log = cloud.api.run("console", "log", "show", "demo", cloud="demo").stdout
    assert "login:" in log


def test_down_keeps_guests_and_up_finds_them(cloud):
    guests = cloud.guests()
    assert guests
    cloud.make("down")
    assert cloud.guests() == guests
    assert not any(lib.pathlib.Path(f"/proc/{p}").exists() for n in ("control", "agent", "supervisor")
                   if (p := cloud.pid(n)))
    cloud.make("up")
    assert cloud.guests() == guests, "the guests were touched"
    cloud.ssh(cloud.demo_address(), "true")


def test_a_dead_supervisor_is_replaced_and_adopts_what_runs(cloud):
    pids = [cloud.pid(n) for n in ("control", "agent")]
    cloud.kill("supervisor")
    cloud.make("up")
    assert [cloud.pid(n) for n in ("control", "agent")] == pids
    old = cloud.kill("control")
    cloud.wait_back("control", old)
    lib.wait_for("the API answers", lambda: cloud.api.run("token", "issue", check=False).returncode == 0)


def started(cloud, name):
    """Pids of a part's processes, ready or not. A child that it has forked and that has not become another program yet
    looks the same, and is none."""
    found = {pid for pid, line in real.processes().items() if f" {name} --state {cloud.state}" in line}
    return {pid for pid in found if real.parent(pid) not in found}


def kill_and_see_it_start(cloud, name):
    """Returns while the successor is starting: it runs, and has written no pid file yet."""
    old = cloud.kill(name)
    return lib.wait_for(f"another {name}", lambda: started(cloud, name) - {old}, 10, 0.002)


def test_what_is_just_starting_is_stopped_and_adopted_too(cloud):
    for name in ("control", "agent"):
        kill_and_see_it_start(cloud, name)
        cloud.nubo("down")
        assert not any(started(cloud, part) for part in ("supervise", "control", "agent", "netd")), name
        cloud.make("up")
        (new,) = kill_and_see_it_start(cloud, name)
        cloud.kill("supervisor")
        cloud.make("up")
        assert started(cloud, name) == {new} == {cloud.pid(name)}
    assert cloud.fsck() == []


def test_two_at_once_start_one_of_each(cloud):
    cloud.nubo("down")
    both = [subprocess.Popen([str(lib.NUBO), "up"], env=cloud.env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=real.BOOT)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [len(started(cloud, part)) for part in ("supervise", "control", "agent")] == [1, 1, 1]
    assert sum("  waits   " in output for output in outputs) == 1, outputs


def test_down_can_stop_guests_and_up_starts_the_demo_again(cloud):
    cloud.make("down", "GUESTS=stop")
    assert cloud.guests() == {}
    cloud.make("up")
    cloud.ssh(cloud.demo_address(), "true")


def test_two_clouds_side_by_side_one_of_them_with_tls(cloud):
    """The other lives in a namespace that was there before, and listens where others could reach it."""
    guests = cloud.guests()
    other = real.Real("b", listen="10.99.99.1:8774")
    real.said("ip", "netns", "add", other.netns)
    try:
        real.said("ip", "-n", other.netns, "link", "set", "lo", "up")
        real.said("ip", "-n", other.netns, "address", "add", "10.99.99.1/32", "dev", "lo")
        other.make("up")
        assert other.cloud_id() != cloud.cloud_id()
        assert "cacert:" in other.api.clouds.read_text() and other.api.url == "https://10.99.99.1:8774"
        assert other.api.json("token", "issue")["id"]
        other.ssh(other.demo_address(), "true")
    finally:
        other.make("purge")
        kept = other.netns in real.said("ip", "netns", "list")
        real.said("ip", "netns", "delete", other.netns)
    assert kept, "purge removed a namespace that nubo had not made"
    assert cloud.guests() == guests
    assert cloud.fsck() == []
    cloud.ssh(cloud.demo_address(), "true")
