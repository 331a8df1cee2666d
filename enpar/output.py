"""An output folder: whose it is, and whether it is finished."""

import json
import logging
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from enpar.errors import UserError
from enpar.storage import Location

log = logging.getLogger("enpar")
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
SUCCESS = "_SUCCESS"
# What may change between two runs of the same work: where it is tracked, that it replaces what stands there, how many
# processes or threads do it, and how long they are waited for.
_FREE_KEYS = {"overwrite", "tracking", "num_workers", "scaling", "threads", "wait"}
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for what `ray job submit` runs
_VERSIONED = ("enpar", "torch", "transformers", "ray", "deepspeed", "spacy", "mlflow", "pyarrow", "numpy")


class Output:
    """The output folder of one run of one stage.

    A run claims its folder by writing `manifest.json` with its stage and settings; it ends by adding the result
    to it, and `_SUCCESS` after that. The same command finds the folder again by them, and so continues or returns.

    What is written into `path` is the output itself on this machine; elsewhere `path` is a temporary folder, and
    `publish` copies what is in it to the output.
    """

    def __init__(self, place: Path | Location, stage: str, settings: dict[str, Any]) -> None:
        self.location = Location.of(place)
        local = self.location.local
        self._temporary = None if local else TemporaryDirectory(prefix="enpar-")
        self.path = local or Path(self._temporary.name if self._temporary else "")
        self.stage = stage
        # What may change between two runs of the same work is not recorded; a tracking URI may hold a password.
        self.settings = {key: value for key, value in settings.items() if key not in _FREE_KEYS}

    @property
    def metrics(self) -> Path:
        """The run's numbers by step, one JSON object a line."""
        return self.path / METRICS

    def check(self, overwrite: bool = False) -> None:
        """See that the folder may be used, and change nothing.

        Raises:
            UserError: it holds something else, or the same stage's run with other settings; or it would be lost.
        """
        if in_ray_job() and not self.path.is_absolute():
            raise UserError(
                f"output: {self.path} would be lost with the copy of the working directory that a Ray job runs in; "
                f"name an absolute path that lasts, such as output=$PWD/{self.path}"
            )
        if self.location.kind() == "file":
            raise UserError(f"output: {self.location} is a file; name a folder")
        if self.location.empty():
            return
        manifest = self._manifest()
        if manifest is None or manifest.get("stage") != self.stage:
            held = "something else" if manifest is None else f"the output of `enpar {manifest.get('stage')}`"
            raise UserError(f"output: {self.location} holds {held}; name another folder")
        if not overwrite and (changed := _difference(manifest["settings"], self.settings)):
            raise UserError(
                f"output: {self.location} holds a run with other settings ({changed}); "
                "name another folder, or set overwrite=true to replace it"
            )

    def finished(self, overwrite: bool = False) -> dict[str, Any] | None:
        """The result, if this very run is finished already and not to be replaced.

        Raises:
            UserError: as `check`.
        """
        self.check(overwrite)
        if overwrite or not (self.location / SUCCESS).kind():
            return None
        result: dict[str, Any] = (self._manifest() or {})["result"]
        log.info("%s is finished already; overwrite=true makes it anew", self.location)
        return result

    def apart_from(self, **inputs: Path | Location | str | None) -> None:
        """See that nothing that is read lies in the folder, which may be about to be replaced.

        Raises:
            UserError: an input, given under its setting's name, does.
        """
        for key, place in inputs.items():
            if place and (read := Location.of(place)).within(self.location) and read.kind():
                raise UserError(f"output: {self.location} holds {place}, which {key} reads; name another folder")

    def claim(self, overwrite: bool = False) -> dict[str, Any] | None:
        """Take the folder for this run; return the result if it is finished already.

        Raises:
            UserError: as `check`.
        """
        if (result := self.finished(overwrite)) is not None:
            return result
        if overwrite:
            self.location.remove()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_manifest({})
        except OSError as error:
            raise UserError(f"output: {self.path}: {error.strerror}; name a folder that can be written") from None
        self.fetch([METRICS])
        return None

    def fetch(self, names: Iterable[str]) -> None:
        """Have these files or folders of the output in `path`, where they exist; "." is all of it."""
        for name in [] if self.location.local else names:
            if (stored := self.location / name if name != "." else self.location).kind():
                stored.download(self.path / name)

    def publish(self) -> None:
        """Have what is in `path` in the output."""
        if not self.location.local:
            self.location.upload(self.path)

    def finish(self, result: dict[str, Any]) -> None:
        """Record the result and mark the folder as finished."""
        self.publish()
        self._write_manifest({"result": result})
        (self.location / SUCCESS).write_text("")

    def _manifest(self) -> dict[str, Any] | None:
        try:
            manifest = json.loads((self.location / MANIFEST).read_text())
        except (OSError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) else None

    def _write_manifest(self, more: dict[str, Any]) -> None:
        manifest = {"stage": self.stage, "settings": self.settings, "versions": versions(), **more}
        (self.location / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    """The versions of the packages that a result may depend on."""
    return {name: version(name) for name in _VERSIONED}


def in_ray_job() -> bool:
    """Whether this runs in a copy of the working directory that Ray will throw away."""
    return _RAY_JOB in os.environ


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
