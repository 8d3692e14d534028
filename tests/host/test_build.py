"""`nubo image build debian`: built from a mirror, booted by QEMU, set up by cloud-init. Takes minutes and a network."""

import os
import shutil
import subprocess

import pytest

import lib

USER_DATA = """#cloud-config
users: [{name: alice, lock_passwd: true}]
runcmd: ["echo MARKER $(hostname) $(id -u alice) $(df -m / | tail -1 | awk '{print $2}') > /dev/ttyS0", "poweroff"]
"""


def test_a_debian_boots_and_is_set_up_by_cloud_init(tmp_path):
    asked = os.environ.get("NUBO_DEBIAN_MIRROR")
    if not asked:
        pytest.skip("NUBO_DEBIAN_MIRROR names no mirror (or `default`)")
    lib.require_root()
    for program in ("mmdebstrap", "mkfs.vfat", "mcopy", "qemu-system-x86_64"):
        lib.require("debian", shutil.which(program), f"{program} is not installed")
    mirror = [] if asked == "default" else ["--mirror", asked]

    def run(*words):
        subprocess.run([str(word) for word in words], cwd=tmp_path, check=True)

    run(lib.NUBO, "image", "build", "debian", "--output", "debian.qcow2", *mirror)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["debian.qcow2"]
    run(lib.NUBO, "image", "resize", "debian.qcow2", "4G")

    (tmp_path / "user-data").write_text(USER_DATA)
    (tmp_path / "meta-data").write_text("instance-id: i-1\nlocal-hostname: debby\n")
    (tmp_path / "seed").write_bytes(bytes(1 << 20))
    run("mkfs.vfat", "-n", "CIDATA", "seed")
    run("mcopy", "-i", "seed", "user-data", "meta-data", "::/")
    accel = os.environ.get("NUBO_ACCEL", "tcg")
    machine = ["-machine", f"accel={accel}", "-m", "768", "-display", "none", "-serial", "file:console", "-no-reboot"]
    disks = ["-drive", "file=debian.qcow2,if=virtio", "-drive", "file=seed,if=virtio,format=raw"]
    network = ["-nic", "user,model=virtio-net-pci"]
    subprocess.run(["qemu-system-x86_64", *machine, *disks, *network], cwd=tmp_path, check=True, timeout=900)
    console = (tmp_path / "console").read_text(errors="replace")
    marker = [line for line in console.splitlines() if line.startswith("MARKER")]
    assert marker, console[-2000:]
    _, host, uid, mib = marker[0].split()
    assert (host, uid) == ("debby", "1000") and int(mib) > 3500
