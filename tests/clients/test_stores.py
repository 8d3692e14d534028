"""The whole cloud on PostgreSQL, and a state that is named outlives its process."""

import pytest

import lib
import test_first_server


@pytest.fixture(scope="module")
def postgres():
    with lib.postgres() as server:
        yield server.url


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
