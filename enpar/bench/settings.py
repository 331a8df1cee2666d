"""The settings of `enpar bench`, a model a stage."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from enpar.config import (
    AnnotateJob,
    Anywhere,
    Count,
    FinetuneJob,
    Objectives,
    Place,
    Positive,
    PretrainJob,
    PretrainTraining,
    Seed,
    TestCorpus,
    TrainCorpus,
    Views,
    ViewsJob,
)
from enpar.settings import Settings


class BenchJob(Settings):
    """Measure how fast a stage runs on this machine; annotate and pretrain against plain references in the same run."""

    stage: Literal["annotate", "views", "pretrain", "finetune", "extract"]
    """What is measured."""


class BenchAnnotate(BenchJob):
    """Annotate text as `enpar annotate` does, and again with bare `nlp.pipe` of the same components and processes."""

    input: str = "runs/demo/text/wiki_leads.jsonl"
    """Text, as `enpar annotate` takes it; the default is what `make demo` downloads."""
    spacy_model: str = AnnotateJob.model_fields["spacy_model"].default
    """A spaCy pipeline with NER."""
    sentences: Literal["pipeline", "rules"] = "pipeline"
    """Who splits sentences."""
    documents_per_part: Count = AnnotateJob.model_fields["documents_per_part"].default
    """Documents a parquet part."""
    num_workers: Count | None = None
    """Annotating processes; one a CPU by default."""


class BenchViews(BenchJob):
    """Make views on one core."""

    data: Anywhere = Path("runs/demo/sentences")
    """Folder of sentences, from `enpar annotate`; the default is what `make demo` annotates."""
    encoder: str = ViewsJob.model_fields["encoder"].default
    """The encoder whose wordpieces are used."""
    views: Views = Views()
    objectives: Objectives = Objectives()
    seed: Seed = 1
    """Seed of all draws."""
    sentences: Count = 512
    """Sentences whose views are made at once."""
    seconds: Positive = 5.0
    """How long is measured."""


class BenchTraining(PretrainTraining):
    """A run's settings; how long it takes is the benchmark's affair."""

    @model_validator(mode="after")
    def _length(self) -> "BenchTraining":
        return self


class BenchPretrain(PretrainJob, BenchJob):
    """Pre-train for some updates as `enpar pretrain` does, then the same micro-batches in a bare torch loop, then a
    plain transformers loop in fp32 over batches of 64 sequences of 44 wordpieces. Takes a job file of `enpar pretrain`;
    its output, tracking and length are not used. An encoder without weights gets random ones.
    """

    data: Anywhere = Path("runs/demo/sentences")
    """Folder of sentences, from `enpar annotate`; the default is what `make demo` annotates."""
    output: Anywhere = Path("unused")
    """Not used: nothing is kept."""
    train: BenchTraining = BenchTraining()
    updates: Annotated[int, Field(ge=5)] = 25
    """Updates, of which the first fifth (20 at most) is not measured."""
    ray: bool = True
    """As `enpar pretrain` does, on Ray Train, Ray Data and DeepSpeed; false: the same loop in one plain torch process
    (needs neither of them)."""
    references: bool = True
    """Run the bare and the plain loop, too."""


_SAMPLES = Path("runs/demo/corpus")


class BenchFinetune(FinetuneJob, BenchJob):
    """Fine-tune as `enpar finetune` does, without a look at the dev split: an epoch to warm up, then one that is
    measured, with as many detected spans among the candidates as in the last epoch. Takes a job file of `enpar
    finetune`; its output, tracking and seeds are not used.
    """

    corpus: TrainCorpus = TrainCorpus(train=_SAMPLES / "train.jsonl", dev=_SAMPLES / "dev.jsonl")
    output: Place = Path("unused")
    """Not used: nothing is kept."""


class BenchExtract(BenchJob):
    """Extract from the sentences of a labelled corpus, again and again, with a fine-tuned model."""

    model: Place = Path("runs/demo/enpar-model/seed-1")
    """Folder of a fine-tuned model; the default is one that `make demo` makes."""
    corpus: TestCorpus = TestCorpus(test=_SAMPLES / "test.jsonl")
    batch_wordpieces: Count | None = None
    """Wordpieces put through the model at once; by default 2,048 on a CPU and 65,536 on a GPU."""
    threads: Count | None = None
    """CPU threads; by default one a CPU."""
    seconds: Positive = 20.0
    """How long is measured, at least."""


BenchJob.variants = {
    "annotate": BenchAnnotate,
    "views": BenchViews,
    "pretrain": BenchPretrain,
    "finetune": BenchFinetune,
    "extract": BenchExtract,
}
