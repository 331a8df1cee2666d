"""Pre-trainings that trials share: made once, also when several trials ask at the same time."""

from pathlib import Path
from typing import Any

from enpar import pretrain
from enpar.config import PretrainJob
from enpar.output import Output
from enpar.storage import alone

_WITHOUT_END = 1e6  # seconds, eleven days: Ray takes no infinity


def pretrained(job: PretrainJob) -> dict[str, Any]:
    """The result of a pre-training, made here unless it is there; whoever else makes it is waited for.

    One that was broken off goes on where it was. Room is waited for without end: other trials may have it.
    """
    output = Output(job.output, "pretrain", job.model_dump(mode="json"))
    with alone(Path(str(job.output)).with_name(f".{job.output.name}.lock")):
        if (result := output.finished()) is not None:  # and MLflow is not asked by every trial
            return result
        return pretrain.run(job.model_copy(update={"wait": _WITHOUT_END}))
