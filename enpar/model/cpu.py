"""How a process uses its CPUs."""

import os

import torch


def use_cpus(threads: int | None) -> None:
    """Let torch use this many threads (one a CPU by default), and keep its memory in bounds.

    oneDNN keeps what it has compiled for each shape of its operands, 1,024 of them by default: with sentences of
    many lengths that is over a gigabyte, for no gain in speed.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    torch.set_num_threads(threads or os.cpu_count() or 1)
