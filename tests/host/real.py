"""Real clouds in network namespaces of their own: real QEMU, real bridges, killed for real."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

import lib

BOOT = 240


def require_all():
    lib.require_root()
    lib.require("netns", shutil.which("ip") and shutil.which("nft"), "no ip or no nft")
    lib.require("qemu", shutil.which("qemu-system-x86_64"), "no qemu-system-x86_64")
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")


def said(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout


def processes():
    """Pid to command line of everything that is nubo's or a guest."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            name = pathlib.Path(line[0]).name
            if name == "nubo" or name.startswith("qemu-system"):
                found[int(entry.name)] = " ".join(line)
    return found


def cgroups():
    return sorted(str(p) for p in pathlib.Path("/sys/fs/cgroup").glob("**/nubo-*"))


def listing():
    """What a machine shows of clouds, by its own tools."""
    links = sorted(line.split(":")[1].strip() for line in said("ip", "-o", "link").splitlines())
    return {
        "namespaces": sorted(line.split()[0] for line in said("ip", "netns", "list").splitlines() if line),
        "links": links,
        "nft": said("nft", "list", "ruleset"),
        "cgroups": cgroups(),
        "accounts": sorted(line.split(":")[0] for line in open("/etc/passwd") if line.startswith("nubo-")),
    }


def start_time(pid):
    """Clock ticks since boot; None for a process that is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def parent(pid):
    """None for a process that is gone."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


class Real:
    """A cloud in a namespace of its own."""

    def __init__(self, name="a", listen="127.0.0.1:8774"):
        self.netns = f"nubot{name}-{os.getpid()}"
        self.state = pathlib.Path(tempfile.mkdtemp(prefix=f"nubo-test-{name}-", dir="/var/tmp"))
        self.state.chmod(0o755)
        self.prefix = ["ip", "netns", "exec", self.netns]
        # These tests look at what a removal leaves behind: nothing rests unless one asks for it.
        self.env = {"NUBO_TRASH_RETENTION": "0", **os.environ, "NUBO_STATE": str(self.state), "NUBO_NETNS": self.netns,
                    "NUBO_BCRYPT_ROUNDS": "4", "NUBO_LISTEN": listen}
        self.output = ""

    def make(self, target, *words, check=True):
        done = subprocess.run(["make", "--no-print-directory", target, *words], cwd=lib.ROOT, env=self.env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500)
        self.output = done.stdout + done.stderr
        if check and done.returncode != 0:
            pytest.fail(f"make {target} exited {done.returncode}:\n{self.output[-4000:]}\n{self.logs()}")
        return done

    def nubo(self, *words, check=True):
        done = subprocess.run([str(lib.NUBO), *words], env=self.env, capture_output=True, text=True, timeout=120)
        if check and done.returncode != 0:
            pytest.fail(f"nubo {' '.join(words)} exited {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def logs(self):
        texts = []
        for name in ("supervisor", "control", "agent"):
            path = self.state / "log" / f"{name}.log"
            if path.exists():
                lines = [line for line in path.read_text(errors="replace").splitlines() if " request: " not in line]
                texts.append(f"--- {name}.log\n" + "\n".join(lines[-40:]))
        return "\n".join(texts)

    def pid(self, name):
        try:
            return int((self.state / "run" / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None

    def kill(self, name):
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_back(self, name, old):
        """Waits until the supervisor has started a killed part again."""
        return lib.wait_for(f"{name} is back", lambda: (p := self.pid(name)) and p != old and start_time(p) and p, 30)

    @property
    def api(self):
        url = (self.state / "run" / "url").read_text().strip()
        return lib.Cloud(url, self.state / "clouds.yaml", self.prefix)

    def ssh(self, address, *command, key=None, check=True):
        done = subprocess.run(
            [*self.prefix, "ssh", "-i", str(key or self.state / "demo.key"), "-o", "StrictHostKeyChecking=no",
             "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10",
             "-o", "BatchMode=yes", f"nubo@{address}", *command],
            capture_output=True, text=True, timeout=60)
        if check and done.returncode != 0:
            pytest.fail(f"ssh {address}: {done.stderr}")
        return done

    def demo_address(self):
        (row,) = self.api.json("floating", "ip", "list", cloud="demo")
        return row["Floating IP Address"]

    def guests(self):
        """Server id to (pid, start time) of this cloud's QEMU processes."""
        found = {}
        for pid, line in processes().items():
            words = line.split()
            if "qemu-system" in words[0] and str(self.cloud_id()) in line and "-uuid" in words:
                guest = words[words.index("-uuid") + 1]
                assert guest not in found, f"two processes of guest {guest}: {pid} and {found[guest][0]}"
                found[guest] = (pid, start_time(pid))
        return found

    def cloud_id(self):
        import json

        return json.loads((self.state / "setup.json").read_text())["cloud_id"]

    def kernel_view(self):
        """What the cloud has in the kernel and on disk, by the listings of `ip`, `nft`, `/proc` and the file system."""
        cloud_id = self.cloud_id()
        places = sorted([n for n in said("ip", "netns", "list").split() if cloud_id in n] + [self.netns])
        running = [line for line in processes().values() if cloud_id in line or str(self.state) in line]
        return {
            "links": {n: sorted(line.split(":")[1].strip().split("@")[0]
                                for line in said("ip", "-n", n, "-o", "link").splitlines()) for n in places},
            "addresses": {n: sorted(" ".join(line.split()[1:4])
                                    for line in said("ip", "-n", n, "-4", "-o", "address").splitlines()) for n in places},
            # Without what the rules count while packets pass.
            "nft": {n: sorted(line for line in said("ip", "netns", "exec", n, "nft", "-s", "list", "ruleset").splitlines()
                              if "ct count over" not in line or "elements" not in line) for n in places},
            "processes": sorted(running),
            "cgroups": [path for path in cgroups() if cloud_id in path],
            "files": sorted(str(path.relative_to(self.state)) for path in self.state.rglob("*")
                            if not path.name.endswith(("-wal", "-shm", ".log"))),
        }

    def fsck(self):
        """Orphans, as lines; none on a clean cloud."""
        done = self.nubo("fsck", check=False)
        assert done.returncode in (0, 1), done.stderr
        return [] if done.returncode == 0 else done.stdout.splitlines()


@contextlib.contextmanager
def made_and_purged(name="a", **env):
    """A cloud from `make up` to `make purge`, which leaves the machine as it was."""
    require_all()
    before = listing()
    cloud = Real(name)
    cloud.env.update(env)
    try:
        cloud.make("up")
        yield cloud
    finally:
        marks = (str(cloud.state), cloud.cloud_id())
        cloud.make("purge")
        after = listing()
    assert after == before, "purge left something, or took something that was not its own"
    assert not cloud.state.exists()
    assert not [line for line in processes().values() if any(mark in line for mark in marks)]
