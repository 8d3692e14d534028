"""Protected properties of images, with Glance's own file and the commands that a user types."""

import os
import subprocess

import lib

FILE = """
[^x_billing]
create = admin
read = @
update = admin
delete = admin
[.*]
create = @
read = @
update = @
delete = @
"""


def test_glances_file_protects_what_it_names(tmp_path):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    rules = tmp_path / "property-protections.conf"
    rules.write_text(FILE)
    state = tmp_path / "state"
    state.mkdir()
    settings = state / "nubo.toml"
    settings.write_text(f'[image_property_protections]\nfile = "{rules}"\n')
    simulated = lib.Simulated(hosts=1, NUBO_STATE=str(state))
    try:
        cloud = simulated.cloud
        refused = cloud.run("image", "create", "mine", "--property", "x_billing_code=7", cloud="demo", check=False)
        assert refused.returncode != 0 and "x_billing_code" in refused.stderr and "403" in refused.stderr, refused.stderr
        image = cloud.json("image", "create", "mine", "--property", "team=blue", cloud="demo")["id"]
        cloud.run("image", "set", image, "--property", "x_billing_code=7")
        refused = cloud.run("image", "set", image, "--property", "x_billing_code=8", cloud="demo", check=False)
        assert refused.returncode != 0 and "you may not update it" in refused.stderr, refused.stderr
        refused = cloud.run("image", "unset", image, "--property", "x_billing_code", cloud="demo", check=False)
        assert refused.returncode != 0, refused.stderr
        cloud.run("image", "set", image, "--property", "team=red", cloud="demo")
        shown = cloud.json("image", "show", image, cloud="demo")["properties"]
        assert (shown["x_billing_code"], shown["team"]) == ("7", "red")

        disk = tmp_path / "disk.raw"
        disk.write_bytes(bytes(1 << 20))
        cloud.run("image", "create", "disk", "--disk-format", "raw", "--container-format", "bare", "--file", disk, cloud="demo")
        cloud.run("flavor", "create", "small", "--ram", "64", "--disk", "1", "--vcpus", "1")
        server = cloud.json("server", "create", "--flavor", "small", "--image", "disk", "--nic", "none", "--wait", "s",
                            cloud="demo")["id"]
        refused = cloud.run("server", "image", "create", "--property", "x_billing_code=1", server, cloud="demo", check=False)
        assert refused.returncode != 0 and "x_billing_code" in refused.stderr, refused.stderr
        volume = cloud.json("volume", "create", "--size", "1", "v", cloud="demo")["id"]
        refused = cloud.run("volume", "set", "--image-property", "x_billing_code=1", volume, cloud="demo", check=False)
        assert refused.returncode != 0 and "x_billing_code" in refused.stderr, refused.stderr
    finally:
        assert simulated.stop() == 0

    # A file that protects less than it seems to is not served with.
    rules.write_text("[x]\nreads = @\n")
    begun = subprocess.run(
        [str(lib.NUBO), "up", "--simulated-hosts", "1"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "NUBO_STATE": str(state), "NUBO_LISTEN": "127.0.0.1:0", "NUBO_BCRYPT_ROUNDS": "4"})
    assert begun.returncode != 0 and "line 2: 'reads' is none of" in begun.stderr, begun.stderr
