"""An output folder: whose it is, whether it is finished, and how a file or folder appears in it all at once."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from enpar.errors import UserError

log = logging.getLogger("enpar")
MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
# What may change between two runs of the same work: where it is tracked, that it replaces what stands there, and how
# many processes do it.
_FREE_KEYS = {"overwrite", "tracking", "num_workers"}
_VERSIONED = ("enpar", "torch", "transformers", "ray", "deepspeed", "spacy", "mlflow", "pyarrow", "numpy")


class Output:
    """The output folder of one run of one stage.

    A run claims its folder by writing `manifest.json` with its stage and settings; it ends by adding the result
    to it, and `_SUCCESS` after that. The same command finds the folder again by them, and so continues or returns.
    """

    def __init__(self, path: Path, stage: str, settings: dict[str, Any]) -> None:
        self.path = path
        self.stage = stage
        # What may change between two runs of the same work is not recorded; a tracking URI may hold a password.
        self.settings = {key: value for key, value in settings.items() if key not in _FREE_KEYS}

    @property
    def metrics(self) -> Path:
        """The run's numbers by step, one JSON object a line."""
        return self.path / "metrics.jsonl"

    def check(self, overwrite: bool = False) -> None:
        """See that the folder may be used, and change nothing.

        Raises:
            UserError: it holds something else, or the same stage's run with other settings.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"output: {self.path} is a file; name a folder")
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        manifest = self._manifest()
        if manifest is None or manifest.get("stage") != self.stage:
            held = "something else" if manifest is None else f"the output of `enpar {manifest.get('stage')}`"
            raise UserError(f"output: {self.path} holds {held}; name another folder")
        if not overwrite and (changed := _difference(manifest["settings"], self.settings)):
            raise UserError(
                f"output: {self.path} holds a run with other settings ({changed}); "
                "name another folder, or set overwrite=true to replace it"
            )

    def finished(self, overwrite: bool = False) -> dict[str, Any] | None:
        """The result, if this very run is finished already and not to be replaced.

        Raises:
            UserError: as `check`.
        """
        self.check(overwrite)
        if overwrite or not (self.path / SUCCESS).exists():
            return None
        result: dict[str, Any] = (self._manifest() or {})["result"]
        log.info("%s is finished already; overwrite=true makes it anew", self.path)
        return result

    def apart_from(self, **inputs: Path | str | None) -> None:
        """See that nothing that is read lies in the folder, which may be about to be replaced.

        Raises:
            UserError: an input, given under its setting's name, does.
        """
        for key, place in inputs.items():
            path = Path(place or "").resolve()
            if place and path.exists() and path.is_relative_to(self.path.resolve()):
                raise UserError(f"output: {self.path} holds {place}, which {key} reads; name another folder")

    def claim(self, overwrite: bool = False) -> dict[str, Any] | None:
        """Take the folder for this run; return the result if it is finished already.

        Raises:
            UserError: as `check`.
        """
        if (result := self.finished(overwrite)) is not None:
            return result
        if overwrite and self.path.exists():
            shutil.rmtree(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_manifest({})
        except OSError as error:
            raise UserError(f"output: {self.path}: {error.strerror}; name a folder that can be written") from None
        return None

    def finish(self, result: dict[str, Any]) -> None:
        """Record the result and mark the folder as finished."""
        self._write_manifest({"result": result})
        (self.path / SUCCESS).touch()

    def _manifest(self) -> dict[str, Any] | None:
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) else None

    def _write_manifest(self, more: dict[str, Any]) -> None:
        manifest = {"stage": self.stage, "settings": self.settings, "versions": versions(), **more}
        with atomic(self.path / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """The versions of the packages that a result may depend on."""
    return {name: version(name) for name in _VERSIONED}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block ends well, and goes away if not.

    The block may make it a file or a folder; a folder replaces nothing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def _difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str | None:
    """The first setting in which two runs differ, as `key: old → new`."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            if changed := _difference(before, after, f"{prefix}{key}."):
                return changed
        elif before != after:
            return f"{prefix}{key}: {before} → {after}"
    return None
