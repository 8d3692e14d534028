"""The whole cloud on PostgreSQL, and a state that is named outlives its process."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import lib
import test_first_server


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL of its own on a Unix socket."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    lib.require("postgres", found, "no initdb")
    bin_ = found[-1].parent
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nubo-pg-"))
    as_user = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    run = lambda *words: subprocess.run([*as_user, *map(str, words)], check=True, cwd="/", stdout=subprocess.DEVNULL)
    run(bin_ / "initdb", "-D", folder / "data", "-U", "nubo", "-A", "trust", "-N")
    run(bin_ / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", f"-c listen_addresses= -k {folder}", "start")
    yield f"postgres://nubo@/postgres?host={folder}"
    run(bin_ / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
    shutil.rmtree(folder)


def test_a_server_on_postgresql(postgres, tmp_path):
    simulated = lib.Simulated(hosts=1, NUBO_STORE=postgres)
    try:
        test_first_server.test_a_token_is_issued(simulated.cloud)
        test_first_server.test_a_server_becomes_active_and_goes(simulated.cloud, tmp_path)
    finally:
        assert simulated.stop() == 0


def test_a_named_state_is_found_again(tmp_path):
    first = lib.Simulated(hosts=1, NUBO_STATE=str(tmp_path))
    made = first.cloud.json("project", "create", "kept")["id"]
    assert first.stop() == 0
    second = lib.Simulated(hosts=1, NUBO_STATE=str(tmp_path))
    try:
        assert second.cloud.json("project", "show", "kept")["id"] == made
    finally:
        assert second.stop() == 0


def test_a_temporary_state_leaves_nothing():
    simulated = lib.Simulated(hosts=1)
    state = simulated.cloud.clouds.parent
    assert state.exists()
    assert simulated.stop() == 0
    assert not state.exists()
