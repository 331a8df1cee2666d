import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from s3_server import CREDENTIALS

from enpar import cluster


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests that need it."""
    os.environ |= CREDENTIALS  # for the workers
    cluster.connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def _database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; to make one takes MLflow seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(_database: Path, tmp_path: Path) -> Path:
    """A fresh one, where a run in `tmp_path` looks for it."""
    return Path(shutil.copy(_database, tmp_path / "mlflow.db"))
