"""`nubo image build debian` and `ubuntu`: built from a mirror, booted by QEMU from a BIOS and from UEFI, set up by
cloud-init. Takes minutes and a network: NUBO_DEBIAN_MIRROR and NUBO_UBUNTU_MIRROR name mirrors, or `default`;
NUBO_UBUNTU_KEYRING has Ubuntu's keys where its package is not installed; NUBO_DEBIAN_CACHE is a folder of packages."""

import os
import shutil
import subprocess

import pytest

import lib

USER_DATA = """#cloud-config
users: [{name: alice, lock_passwd: true}]
runcmd:
  - test -d /sys/firmware/efi && echo uefi >/tmp/firmware || echo bios >/tmp/firmware
  - mokutil --sb-state | grep -q enabled && echo secure >/tmp/firmware
  - echo MARKER $(hostname) $(id -u alice) $(df -m / | tail -1 | awk '{print $2}') $(cat /tmp/firmware) > /dev/ttyS0
  - poweroff
"""
OVMF = "/usr/share/OVMF/OVMF"
FIRMWARE = {"bios": [], "uefi": ["4M.fd"], "secure": ["4M.ms.fd"]}


def run(folder, *words):
    subprocess.run([str(word) for word in words], cwd=folder, check=True)


@pytest.fixture(scope="module", params=["debian", "ubuntu"])
def image(request, tmp_path_factory):
    """A folder with `image.qcow2`, of 4 GiB, what sgdisk said of it, and the `seed` of cloud-init."""
    distribution = request.param
    mirror_variable, keys_variable = (f"NUBO_{distribution.upper()}_{what}" for what in ("MIRROR", "KEYRING"))
    asked, keyring = os.environ.get(mirror_variable), os.environ.get(keys_variable)
    if not asked:
        pytest.skip(f"{mirror_variable} names no mirror (or `default`)")
    lib.require_root()
    for program in ("mmdebstrap", "mkfs.vfat", "mcopy", "sgdisk", "qemu-system-x86_64"):
        lib.require("debian", shutil.which(program), f"{program} is not installed")
    lib.require("debian", os.path.exists(f"{OVMF}_CODE_4M.ms.fd"), "ovmf is not installed")
    words = [] if asked == "default" else ["--mirror", asked]
    words += ["--keyring", keyring] if keyring else []

    folder = tmp_path_factory.mktemp("build")
    run(folder, lib.NUBO, "image", "build", distribution, "--output", "image.qcow2", *words)
    assert sorted(path.name for path in folder.iterdir()) == ["image.qcow2"]
    run(folder, "qemu-img", "convert", "-O", "raw", "image.qcow2", "disk.raw")
    said = subprocess.run(["sgdisk", "-p", "-v", "disk.raw"], cwd=folder, check=True, capture_output=True, text=True)
    (folder / "table").write_text(said.stdout)
    (folder / "disk.raw").unlink()
    run(folder, lib.NUBO, "image", "resize", "image.qcow2", "4G")
    (folder / "user-data").write_text(USER_DATA)
    (folder / "meta-data").write_text("instance-id: i-1\nlocal-hostname: debby\n")
    (folder / "seed").write_bytes(bytes(1 << 20))
    run(folder, "mkfs.vfat", "-n", "CIDATA", "seed")
    run(folder, "mcopy", "-i", "seed", "user-data", "meta-data", "::/")
    yield folder
    shutil.rmtree(folder)


def flash(folder, kind):
    """QEMU's words for a firmware with variables of its own; with Microsoft's keys for secure boot."""
    if not FIRMWARE[kind]:
        return []
    (ending,) = FIRMWARE[kind]
    shutil.copy(f"{OVMF}_VARS_{ending}", folder / "variables")
    words = ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
    words = words if kind == "secure" else []
    code = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}_CODE_{ending}"]
    return [*words, *code, "-drive", "if=pflash,format=raw,file=variables"]


@pytest.mark.parametrize("firmware", FIRMWARE)
def test_it_boots_and_is_set_up_by_cloud_init(image, firmware):
    run(image, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "image.qcow2", "-F", "qcow2", "disk.qcow2")
    accel = os.environ.get("NUBO_ACCEL", "tcg")
    machine = ["-accel", accel, "-m", "1024", "-display", "none", "-serial", "file:console", "-no-reboot"]
    disks = ["-drive", "file=disk.qcow2,if=virtio", "-drive", "file=seed,if=virtio,format=raw"]
    network = ["-nic", "user,model=virtio-net-pci"]
    command = ["qemu-system-x86_64", *machine, *flash(image, firmware), *disks, *network]
    subprocess.run(command, cwd=image, check=True, timeout=900)
    console = (image / "console").read_text(errors="replace")
    marker = [line for line in console.splitlines() if line.startswith("MARKER")]
    assert marker, console[-2000:]
    _, host, uid, mib, booted = marker[0].split()
    assert (host, uid, booted) == ("debby", "1000", firmware) and int(mib) > 3500


def test_another_reader_of_gpt_finds_the_disk_sound(image):
    said = (image / "table").read_text()
    rows = [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()]
    assert [(row[0], row[5]) for row in rows] == [("1", "8304"), ("14", "EF02"), ("15", "EF00")], said
    assert "No problems found" in said


def test_a_debian_is_built_from_a_folder_of_packages_without_any_network(tmp_path):
    cache = os.environ.get("NUBO_DEBIAN_CACHE")
    if not cache:
        pytest.skip("NUBO_DEBIAN_CACHE names no folder with the packages of a Debian")
    lib.require_root()
    run(tmp_path, "unshare", "--net", lib.NUBO, "image", "build", "debian", "--cache", cache, "--format", "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["debian-bookworm.raw"]
    root = f"debian-bookworm.raw?offset={126 << 20}"
    command = ["debugfs", "-R", "cat /etc/apt/sources.list", root]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert said == "deb http://deb.debian.org/debian bookworm main\n"
