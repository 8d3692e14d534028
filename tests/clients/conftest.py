import pytest

import lib


@pytest.fixture(scope="session")
def sim():
    """One simulated cloud for all tests of this folder; each test uses names of its own."""
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    simulated = lib.Simulated(hosts=3)
    yield simulated.cloud
    assert simulated.stop() == 0
