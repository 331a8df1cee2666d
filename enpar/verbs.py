"""The commands, and the settings of each."""

from enpar.bench.settings import BenchJob
from enpar.config import AnnotateJob, EvaluateJob, ExtractJob, FetchJob, FinetuneJob, PretrainJob, ViewsJob
from enpar.settings import Settings
from enpar.sweep.settings import TuneJob

VERBS: dict[str, type[Settings]] = {
    "fetch": FetchJob,
    "annotate": AnnotateJob,
    "views": ViewsJob,
    "pretrain": PretrainJob,
    "finetune": FinetuneJob,
    "evaluate": EvaluateJob,
    "extract": ExtractJob,
    "tune": TuneJob,
    "bench": BenchJob,
}
