"""What the tests with real clients share: starting clouds, running `openstack`, and requirements."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
NUBO = pathlib.Path(os.environ.get("NUBO_BIN", TARGET / "release" / "nubo"))
BIN = pathlib.Path(sys.executable).parent


def require(name, there, reason):
    """Skips with the reason where a requirement is missing; fails where NUBO_REQUIRE lists it."""
    if there:
        return
    wanted = os.environ.get("NUBO_REQUIRE", "").replace(",", " ").split()
    if "all" in wanted or name in wanted:
        pytest.fail(f"NUBO_REQUIRE lists {name}: {reason}")
    pytest.skip(f"{name}: {reason}")


def require_root():
    require("root", os.geteuid() == 0, "not root")


def wait_for(what, condition, seconds=60, every=0.1):
    """Asks again until the condition holds; fails with `what` otherwise."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            pytest.fail(f"after {seconds} s still not: {what}")
        time.sleep(every)


class Cloud:
    """An API that somebody serves, and the `openstack` command that points at it."""

    def __init__(self, url, clouds, prefix=()):
        self.url = url
        self.clouds = pathlib.Path(clouds)
        self.prefix = list(prefix)

    def env(self, cloud="nubo"):
        env = {k: v for k, v in os.environ.items() if not k.startswith("OS_")}
        env.update(OS_CLIENT_CONFIG_FILE=str(self.clouds), OS_CLOUD=cloud, PYTHONWARNINGS="ignore")
        return env

    def run(self, *words, cloud="nubo", check=True, stdin=None):
        """The `openstack` command as a user types it."""
        done = subprocess.run(
            self.prefix + [str(BIN / "openstack"), *map(str, words)],
            env=self.env(cloud), capture_output=True, text=True, input=stdin, timeout=300,
        )
        if check and done.returncode != 0:
            pytest.fail(f"openstack {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done

    def json(self, *words, cloud="nubo"):
        return json.loads(self.run(*words, "-f", "json", cloud=cloud).stdout)

    def nubo(self, *words):
        """The program as an administrator's client."""
        import openstack.config

        loader = openstack.config.OpenStackConfig(config_files=[str(self.clouds)], load_envvars=False)
        auth = loader.get_one("nubo").config["auth"]
        env = {"PATH": "/usr/bin:/bin", "OS_AUTH_URL": auth["auth_url"], "OS_USERNAME": auth["username"],
               "OS_PASSWORD": auth["password"], "OS_PROJECT_NAME": auth["project_name"]}
        return subprocess.run([str(NUBO), *map(str, words)], env=env, capture_output=True, text=True, timeout=60)

    def sdk(self, cloud="nubo"):
        """An openstacksdk connection."""
        import openstack.config
        import openstack.connection

        loader = openstack.config.OpenStackConfig(config_files=[str(self.clouds)], load_envvars=False)
        return openstack.connection.Connection(config=loader.get_one(cloud))


class Simulated:
    """`nubo up --simulated-hosts N`."""

    def __init__(self, hosts=3, **env):
        self.process = subprocess.Popen(
            [str(NUBO), "up", "--simulated-hosts", str(hosts)],
            # What is removed is gone at once, so that a test can see that nothing of it stays.
            env={**os.environ, "NUBO_LOG": "warn", "NUBO_BCRYPT_ROUNDS": "4", "NUBO_LISTEN": "127.0.0.1:0",
                 "NUBO_TRASH_RETENTION": "0", **env},
            stdout=subprocess.PIPE, text=True,
        )
        line = self.process.stdout.readline().split()
        if len(line) != 3 or line[0] != "ready":
            self.stop()
            pytest.fail(f"nubo up --simulated-hosts said {line!r}")
        self.cloud = Cloud(line[1], line[2])

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail("SIGTERM did not end nubo up --simulated-hosts")
        return code


class Postgres:
    """A PostgreSQL of its own on a Unix socket."""

    def __init__(self, bin_, folder):
        self.bin, self.folder = bin_, folder
        self.url = f"postgres://nubo@/postgres?host={folder}"

    def run(self, program, *words):
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        words = [*as_user, str(self.bin / program), *map(str, words)]
        return subprocess.run(words, check=True, cwd="/", stdout=subprocess.PIPE, text=True).stdout

    def sql(self, text):
        """Past whoever else uses it."""
        return self.run("psql", "-h", self.folder, "-U", "nubo", "-d", "postgres", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text)


@contextlib.contextmanager
def postgres():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    require("postgres", found, "no initdb")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nubo-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    # The account of a cloud's control must reach the socket.
    folder.chmod(0o755)
    server = Postgres(found[-1].parent, folder)
    server.run("initdb", "-D", folder / "data", "-U", "nubo", "-A", "trust", "-N")
    server.run("pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", f"-c listen_addresses= -k {folder}", "start")
    try:
        yield server
    finally:
        server.run("pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)
