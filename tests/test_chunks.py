"""Chunks on Ray whose workers die."""

import os
from pathlib import Path

import pytest

from enpar.chunks import Worker, on_ray
from enpar.documents import Chunk
from enpar.errors import RunError
from enpar.parts import Parts
from enpar.storage import Location


def test_a_chunk_that_kills_every_worker_ends_the_run_when_all_else_is_done(ray_session: None, tmp_path: Path):
    class Fragile(Worker):  # here, so that Ray's workers need not find this file
        def __init__(self, parts: Parts) -> None:
            self._parts = parts

        def work(self, chunk: Chunk) -> None:
            if chunk.id == 1:
                os._exit(1)
            self._parts.done(chunk.id, {}, [])

    parts = Parts(Location.of(tmp_path), 4, "part-{}", ())
    parts.begun.keep({})
    chunks = [Chunk(number, ()) for number in range(4)]
    with pytest.raises(RunError, match="annotate: its workers die before they have done anything: "):
        on_ray("annotate", Fragile, {"parts": parts}, parts, chunks, 1)
    assert [chunk.id for chunk in parts.todo(chunks)] == [1]
