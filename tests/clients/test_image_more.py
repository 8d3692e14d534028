"""Metadata definitions, stores, import and tasks, with the commands that a user types."""

import uuid

import pytest


@pytest.fixture
def name():
    return f"defs-{uuid.uuid4().hex[:8]}"


def test_metadata_definitions_are_read_and_written(sim, name):
    usual = sim.json("image", "metadef", "namespace", "list", cloud="demo")
    assert any(row["namespace"] == "OS::Compute::CPUPinning" for row in usual)
    types = [row["Name"] for row in sim.json("image", "metadef", "resource", "type", "list", cloud="demo")]
    assert {"OS::Glance::Image", "OS::Nova::Flavor", "OS::Cinder::Volume"} <= set(types)
    sim.run("image", "metadef", "namespace", "create", name, "--public", "--display-name", "Mine", "--protected")
    refused = sim.run("image", "metadef", "namespace", "create", f"{name}-2", cloud="demo", check=False)
    assert refused.returncode != 0 and "add_metadef_namespace" in refused.stderr
    sim.run("image", "metadef", "resource", "type", "association", "create", name, "OS::Glance::Image")
    sim.run("image", "metadef", "property", "create", name, "--name", "colour", "--title", "Colour", "--type", "string",
            "--schema", "{}")
    shown = sim.json("image", "metadef", "property", "show", name, "colour", cloud="demo")
    assert (shown["title"], shown["type"]) == ("Colour", "string")
    sim.run("image", "metadef", "object", "create", "--namespace", name, "paint")
    assert sim.json("image", "metadef", "object", "show", name, "paint", cloud="demo")["name"] == "paint"
    whole = sim.json("image", "metadef", "namespace", "show", name, cloud="demo")
    assert (whole["display_name"], whole["protected"]) == ("Mine", True)
    refused = sim.run("image", "metadef", "namespace", "delete", name, check=False)
    assert refused.returncode != 0 and "is protected" in refused.stderr
    sim.run("image", "metadef", "namespace", "set", name, "--unprotected", "--public")
    sim.run("image", "metadef", "object", "delete", name, "paint")
    sim.run("image", "metadef", "property", "delete", name, "colour")
    sim.run("image", "metadef", "resource", "type", "association", "delete", name, "OS::Glance::Image")
    sim.run("image", "metadef", "namespace", "delete", name)


def test_imports_have_tasks_and_reach_nothing_inside(sim, name, tmp_path):
    stores = sim.json("image", "stores", "list", cloud="demo")
    assert [row["ID"] for row in stores] == ["local"]
    methods = sim.json("image", "import", "info", cloud="demo")["import-methods"]
    assert methods == ["glance-direct", "web-download", "glance-download"]
    sdk = sim.sdk("demo")
    image = sdk.image.create_image(name, disk_format="raw", container_format="bare").id
    for uri in ("http://127.0.0.1/", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd"):
        # The command does not look at the answer's status.
        ask = {"method": {"name": "web-download", "uri": uri}}
        refused = sdk.image.post(f"/images/{image}/import", json=ask)
        assert refused.status_code == 400 and "does not pass filtering" in refused.text, refused.text
    disk = tmp_path / "disk"
    disk.write_bytes(b"bytes" * 1000)
    sim.run("image", "stage", "--file", disk, image, cloud="demo")
    sim.run("image", "import", image, "--method", "glance-direct", cloud="demo")
    assert sim.json("image", "show", image, cloud="demo")["status"] == "active"
    tasks = [row for row in sim.json("image", "task", "list") if row["Type"] == "api_image_import"]
    shown = [sim.json("image", "task", "show", row["ID"]) for row in tasks]
    assert [task["status"] for task in shown if image in str(task)] == ["success"]
    copy = sdk.image.create_image(f"{name}-copy", disk_format="raw", container_format="bare").id
    ask = {"method": {"name": "glance-download", "glance_region": "RegionOne", "glance_image_id": image}}
    assert sdk.image.post(f"/images/{copy}/import", json=ask).status_code == 202
    done = sdk.image.wait_for_status(sdk.image.get_image(copy), "active", failures=["queued"], interval=0.1, wait=60)
    assert done.size == 5000
    sim.run("image", "delete", image, copy, cloud="demo")
