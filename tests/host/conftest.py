import pytest

import real


@pytest.fixture(scope="session")
def cloud():
    """One real cloud for all tests of this folder, made by `make up` and removed by `make purge`."""
    with real.made_and_purged() as cloud:
        yield cloud
