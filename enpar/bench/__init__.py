"""`enpar bench`: how fast a stage runs on this machine, against a plain reference in the same run; a file a stage."""

import importlib
from typing import Any

from enpar.bench.settings import BenchJob


def run(job: BenchJob) -> dict[str, Any]:
    """Measure the stage that the job names.

    Raises:
        UserError: its data or encoder are missing.
    """
    measure = importlib.import_module(f"enpar.bench.{job.stage}").measure
    result: dict[str, Any] = {"stage": job.stage, **measure(job)}
    return result
