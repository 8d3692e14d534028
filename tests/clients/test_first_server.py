"""From a token to a server, with the commands that a user types."""

import uuid

import lib


def test_a_token_is_issued(sim):
    token = sim.json("token", "issue")
    assert token["id"].startswith("gAAAA") and len(token["project_id"]) == 32


def test_the_catalog_lists_only_services_that_answer(sim):
    import requests

    names = {}
    for service in sim.json("catalog", "list"):
        public = [e for e in service["Endpoints"] if e["interface"] == "public"]
        names[service["Type"]] = public[0]["url"]
    assert {"identity", "image", "network", "compute"} <= set(names)
    for kind, url in names.items():
        assert requests.get(url, timeout=10).status_code in (200, 300, 401), kind


def test_a_server_becomes_active_and_goes(sim, tmp_path):
    tag = uuid.uuid4().hex[:8]
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"\0" * (1 << 20))
    sim.run("image", "create", f"image-{tag}", "--disk-format", "raw", "--container-format", "bare",
            "--public", "--file", disk)
    sim.run("flavor", "create", f"flavor-{tag}", "--ram", 64, "--vcpus", 1, "--disk", 1)
    sim.run("network", "create", f"net-{tag}", cloud="demo")
    sim.run("subnet", "create", f"subnet-{tag}", "--network", f"net-{tag}", "--subnet-range", "10.1.2.0/24", cloud="demo")
    sim.run("server", "create", f"server-{tag}", "--image", f"image-{tag}", "--flavor", f"flavor-{tag}",
            "--network", f"net-{tag}", "--wait", cloud="demo")
    server = sim.json("server", "show", f"server-{tag}", cloud="demo")
    assert server["status"] == "ACTIVE"
    assert server["addresses"][f"net-{tag}"][0].startswith("10.1.2.")
    assert f"server-{tag}" in [row["Name"] for row in sim.json("server", "list", cloud="demo")]
    for verb, status in [("stop", "SHUTOFF"), ("start", "ACTIVE"), ("pause", "PAUSED"), ("unpause", "ACTIVE"),
                         ("suspend", "SUSPENDED"), ("resume", "ACTIVE")]:
        sim.run("server", verb, f"server-{tag}", cloud="demo")
        lib.wait_for(f"{status} after {verb}", lambda: sim.json(
            "server", "show", f"server-{tag}", cloud="demo")["status"] == status, every=0.5)
    sim.run("server", "delete", f"server-{tag}", "--wait", cloud="demo")
    assert sim.run("server", "show", f"server-{tag}", cloud="demo", check=False).returncode != 0
    sim.run("network", "delete", f"net-{tag}", cloud="demo")
