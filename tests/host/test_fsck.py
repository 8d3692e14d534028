"""`nubo fsck` finds what has no owner, of every kind that it looks at, and nothing else."""

import os
import pathlib
import subprocess
import uuid

import lib
import real


def test_whatever_has_no_owner_is_found(cloud):
    assert cloud.fsck() == []
    cloud_id, stray = cloud.cloud_id(), str(uuid.uuid4())
    namespace = f"nubo-{cloud_id}-n-{stray[-12:]}"
    (inner,) = [n for n in real.said("ip", "netns", "list").split() if n.startswith(f"nubo-{cloud_id}-r-")]
    folder = cloud.state / "hosts" / "guests" / stray
    image = cloud.state / "control" / "images" / stray
    own = [path for path in map(pathlib.Path, real.cgroups()) if path.name == f"nubo-{cloud_id}"]
    assert own, "the guests have no cgroups"
    groups = [path / stray for path in own]
    processes = [
        # The names that a guest and a second agent bear; the programs are harmless.
        ["-c", "sleep 600; :", "-name", f"nubo-{cloud_id}-{stray}@host", "-uuid", stray],
        ["-c", "sleep 600; :", "agent", "--state", str(cloud.state)],
    ]
    started = []
    try:
        real.said("ip", "netns", "add", namespace)
        for place, link in [(cloud.netns, "stray0"), (inner, "stray1")]:
            subprocess.run(["ip", "-n", place, "link", "add", link, "type", "bridge"], check=True)
            subprocess.run(["ip", "-n", place, "link", "set", link, "alias", f"nubo:{cloud_id}:port:{stray}"], check=True)
        folder.mkdir()
        image.touch()
        for group in groups:
            group.mkdir()
        started = [subprocess.Popen(["sh", *words], start_new_session=True) for words in processes]
        lib.wait_for("all are found", lambda: len(cloud.fsck()) >= 5 + len(groups) + len(started), 10)
        found = "\n".join(cloud.fsck())
        expected = [f"namespace {namespace}", "link stray0 in", f"link stray1 in {inner}", f"guest directory {folder}",
                    f"image file {image}", f"process {started[0].pid} (guest)", f"process {started[1].pid} (sh -c"]
        expected += [f"cgroup {group}" for group in groups]
        for thing in expected:
            assert thing in found, found
        assert len(found.splitlines()) == len(expected), found
    finally:
        for process in started:
            os.killpg(process.pid, 9)
            process.wait()
        for group in groups:
            if group.exists():
                group.rmdir()
        if folder.exists():
            folder.rmdir()
        image.unlink(missing_ok=True)
        real.said("ip", "-n", inner, "link", "delete", "stray1")
        real.said("ip", "-n", cloud.netns, "link", "delete", "stray0")
        real.said("ip", "netns", "delete", namespace)
    assert cloud.fsck() == []
