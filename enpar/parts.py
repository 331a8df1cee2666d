"""The parts of an output folder: what is written when, so that a run that was broken off can be continued.

A chunk's part file is written first and its statistics last, each all at once: a chunk with statistics is done.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from enpar.begun import Begun
from enpar.documents import Chunk, Rejected
from enpar.sentence import json_line
from enpar.storage import Location, atomic

HIDDEN = ".parts"
_AT_ONCE = 16  # statistics that are read; an object store takes its time for each


class Parts:
    """The parts of an output folder, and the hidden folder that remembers which are done.

    Args:
        folder: the output folder.
        count: how many chunks there are.
        pattern: a part's path in the folder, with `{}` for the chunk's number.
        counts: what is counted in each chunk.
    """

    def __init__(self, folder: Location, count: int, pattern: str, counts: Sequence[str]) -> None:
        self._folder, self._count, self._pattern, self._counts = folder, count, pattern, tuple(counts)
        self._done = folder / HIDDEN
        self.begun = Begun(self._done, "input", folder)

    def todo(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Those of these chunks whose part and statistics are not written yet."""
        done = self._done.files()
        return [chunk for chunk in chunks if self._statistics(chunk.id) not in done]

    def part(self, chunk: int) -> Location:
        """Where a chunk's part belongs; one that stands there is not done, and goes away."""
        part = self._part(chunk)
        part.remove()
        return part

    def done(self, chunk: int, counts: Mapping[str, int], rejected: Sequence[Rejected]) -> None:
        """Write a chunk's statistics, once its part stands (or it has none)."""
        statistics = {**{name: counts[name] for name in self._counts}, "rejected": [asdict(item) for item in rejected]}
        self._statistics(chunk).write_text(json.dumps(statistics))

    def finish(self) -> dict[str, Any]:
        """Write `rejected.jsonl`, in the order of the input, and add up the statistics."""
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        with (
            atomic(self._folder / "rejected.jsonl") as temporary,
            temporary.open("w", encoding="utf-8") as file,
            ThreadPoolExecutor(_AT_ONCE) as pool,
        ):
            for text in pool.map(lambda chunk: self._statistics(chunk).read_text(), range(self._count)):
                statistics = json.loads(text)
                counts.update({name: statistics[name] for name in self._counts})
                reasons.update(reject["reason"] for reject in statistics["rejected"])
                file.writelines(json_line(reject) + "\n" for reject in statistics["rejected"])
        return {**{name: counts[name] for name in self._counts}, "rejected": dict(sorted(reasons.items()))}

    def join(self, name: str) -> None:
        """Put the parts together, in the order of the input, as one file."""
        with atomic(self._folder / name) as temporary, temporary.open("wb") as file:
            for chunk in range(self._count):
                with self._part(chunk).open() as part:
                    shutil.copyfileobj(part, file, 1 << 20)

    def forget(self) -> None:
        """Remove what only an unfinished output needs, and what a killed worker left half-written."""
        self._done.remove()
        for file in self._folder.files():
            if file.name.startswith(".part-"):
                file.remove()

    def _part(self, chunk: int) -> Location:
        return self._folder / self._pattern.format(self._number(chunk))

    def _statistics(self, chunk: int) -> Location:
        return self._done / f"{self._number(chunk)}.json"

    def _number(self, chunk: int) -> str:
        return f"{chunk:0{max(5, len(str(self._count - 1)))}d}"  # so that the order of names is that of the input
