"""An output that was broken off."""

import json
from pathlib import Path

import pytest

from enpar.parts import Parts


def keep_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have finished outputs keep what only unfinished ones need."""
    monkeypatch.setattr(Parts, "forget", lambda self: None)


def break_off(finished: Path, lost: list[str], written: tuple[str, ...] = ("rejected.jsonl",)) -> None:
    """Make of a finished output that kept its parts one that was broken off before some of its chunks were done."""
    manifest = json.loads((finished / "manifest.json").read_text())
    del manifest["result"]
    (finished / "manifest.json").write_text(json.dumps(manifest))
    for name in ("_SUCCESS", *written):
        (finished / name).unlink()
    for name in lost:
        (finished / ".parts" / f"{name}.json").unlink()
