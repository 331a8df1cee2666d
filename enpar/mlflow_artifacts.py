"""Files and models among the artifacts of a run in MLflow."""

import tempfile
from pathlib import Path

from mlflow import MlflowClient

from enpar.pretrained import CONFIG, EXTRACTION, WEIGHTS, checkpoint_settings

_FOLDERS = {EXTRACTION: "model", "pretrained": "checkpoint"}  # one name for all, so that they are found


def send(client: MlflowClient, run: str, path: Path) -> None:
    """Send a file, or a folder; a fine-tuned model with what makes an MLflow model of it."""
    place = _FOLDERS.get(_kind(path), path.name)
    for file, folder in files_of(path, place):
        client.log_artifact(run, str(file), folder)
    if is_model(path):
        from enpar import mlflow_model

        with tempfile.TemporaryDirectory() as temporary:
            mlflow_model.describe(Path(temporary) / "model")
            client.log_artifacts(run, f"{temporary}/model", place)
        use = f'`mlflow.pyfunc.load_model("runs:/{run}/{place}").predict(table)`'
        client.set_tag(run, "mlflow.note.content", f"Entities and relations of a table with a column `text`: {use}")


def is_model(path: Path) -> bool:
    """Whether this is the folder of a fine-tuned model."""
    return _kind(path) == EXTRACTION


def files_of(path: Path, place: str) -> list[tuple[Path, str | None]]:
    """Each file with the artifact folder it belongs in; hidden ones (our own, half-written ones) are left out."""
    if path.is_file():
        return [(path, None)]
    files = [(file, file.relative_to(path)) for file in sorted(path.rglob("*")) if file.is_file()]
    shown = [pair for pair in files if not any(part.startswith(".") for part in pair[1].parts)]
    return [(file, str(Path(place) / inside.parent)) for file, inside in shown]


def _kind(path: Path) -> str:
    if not all((path / name).is_file() for name in (CONFIG, WEIGHTS)):
        return ""
    return str((checkpoint_settings(str(path)) or {}).get("kind", ""))
