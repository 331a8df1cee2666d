"""The parts of an annotated folder: what is written when, so that a run that was broken off can be continued.

A chunk's part file is written first and its statistics last, each all at once: a chunk with statistics is done.
"""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from enpar.errors import UserError
from enpar.output import atomic
from enpar.sentence import Sentence, to_table

COUNTS = ("documents", "sentences", "kept", "tokens", "entities")


class Parts:
    """The parts of an output folder, and the hidden folder `.parts` that remembers which are done."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._done = folder / ".parts"
        self._sizes = self._done / "input.json"

    def check_input(self, sizes: dict[str, int]) -> None:
        """See that the input is still the one that the parts were planned for.

        Raises:
            UserError: a file has come, gone or changed its size.
        """
        if not self._sizes.exists():
            return
        before = json.loads(self._sizes.read_text(encoding="utf-8"))
        for name in sorted(before.keys() | sizes.keys()):
            if before.get(name) != sizes.get(name):
                was, now = (f"{n} bytes" if n is not None else "absent" for n in (before.get(name), sizes.get(name)))
                raise UserError(
                    f"input: {name} has changed since {self._folder} was begun ({was}, now {now}); "
                    "put it back, name another output, or set overwrite=true to begin anew"
                )

    def begin(self, sizes: dict[str, int]) -> None:
        """Remember the input."""
        self._done.mkdir(exist_ok=True)
        with atomic(self._sizes) as temporary:
            temporary.write_text(json.dumps(sizes), encoding="utf-8")

    def is_done(self, chunk: int) -> bool:
        """Whether this chunk's part and statistics are written."""
        return self._statistics(chunk).exists()

    def write(self, chunk: int, sentences: list[Sentence], statistics: dict[str, Any]) -> None:
        """Write a chunk's part, if it has sentences, and then its statistics."""
        part = self._folder / f"part-{self._number(chunk)}.parquet"
        part.unlink(missing_ok=True)
        if sentences:
            with atomic(part) as temporary:
                pq.write_table(to_table(sentences), temporary, compression="zstd")
        with atomic(self._statistics(chunk)) as temporary:
            temporary.write_text(json.dumps(statistics), encoding="utf-8")

    def finish(self) -> dict[str, Any]:
        """Write `rejected.jsonl`, in the order of the input, and add up the statistics."""
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        with (
            atomic(self._folder / "rejected.jsonl") as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            for chunk in range(self._count):
                statistics = json.loads(self._statistics(chunk).read_text(encoding="utf-8"))
                counts.update({name: statistics[name] for name in COUNTS})
                reasons.update(reject["reason"] for reject in statistics["rejected"])
                file.writelines(json.dumps(reject, ensure_ascii=False) + "\n" for reject in statistics["rejected"])
        return {
            **{name: counts[name] for name in COUNTS},
            "rejected": dict(sorted(reasons.items())),
            "dropped": {"few entities": counts["sentences"] - counts["kept"]},
        }

    def forget(self) -> None:
        """Remove what only an unfinished output needs, and what a killed worker left half-written."""
        shutil.rmtree(self._done)
        for leftover in self._folder.glob(".part-*"):
            leftover.unlink()

    def _statistics(self, chunk: int) -> Path:
        return self._done / f"{self._number(chunk)}.json"

    def _number(self, chunk: int) -> str:
        return f"{chunk:0{max(5, len(str(self._count - 1)))}d}"  # so that the order of names is that of the input
