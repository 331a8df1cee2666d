from collections.abc import Iterator

import pytest
import ray

from enpar import cluster


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests that need it."""
    cluster.connect()
    yield
    ray.shutdown()
