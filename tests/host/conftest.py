import pytest

import real


@pytest.fixture(scope="session")
def cloud():
    """One real cloud for all tests of this folder, made by `make up` and removed by `make purge`."""
    real.require_all()
    before = real.listing()
    cloud = real.Real()
    try:
        cloud.make("up")
        yield cloud
    finally:
        marks = (str(cloud.state), cloud.cloud_id())
        cloud.make("purge")
        after = real.listing()
    assert after == before, "purge left something, or took something that was not its own"
    assert not cloud.state.exists()
    assert not [line for line in real.processes().values() if any(mark in line for mark in marks)]
