"""What a space file says: what every trial does, what is searched, and how."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from enpar.config import Count, Job, Objectives, Place, Seed
from enpar.settings import Settings, dotted

Range = tuple[float, float]
DOMAINS = ("loguniform", "uniform", "randint", "choice", "grid")
# The score of a trial, unless `metric` names another: what the best epoch is chosen by.
METRICS = {"finetune": "dev/entity/f1 + dev/relation_exact/f1", "pretrain": "heldout/loss/total"}
_MEASURED = {
    "finetune": [f"dev/{name}/f1" for name in ("span", "entity", "relation", "relation_exact")],
    "pretrain": [f"heldout/loss/{name}" for name in (*Objectives.model_fields, "total")]
    + [f"heldout/accuracy/{name}" for name in (*Objectives.model_fields, "swap")],
}
Options = dict[str, Any] | None


def _options(value: object) -> object:
    """The values by their names: a list's are called what they are."""
    if value is None:
        return None
    if isinstance(value, list) and value and not any(isinstance(one, (list, dict)) for one in value):
        short = {label(one): one for one in value}
        return short if len(short) == len(value) else {str(one): one for one in value}
    if isinstance(value, dict) and value and all(isinstance(one, dict) for one in value.values()):
        return {str(name): dotted(settings) for name, settings in value.items()}
    raise ValueError("should be a list of values, or a mapping of names to settings such as {name: {a.b: 1}}")


def label(value: object) -> str:
    """The value as it is shown."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Domain(Settings):
    """The values of one setting; or, as a mapping of names, of several settings that vary together."""

    loguniform: Range | None = None
    """From the first to the second number, equally likely in each factor."""
    uniform: Range | None = None
    """From the first to the second number."""
    randint: tuple[int, int] | None = None
    """Whole numbers from the first to the second, both included."""
    choice: Annotated[Options, BeforeValidator(_options)] = None
    """One of these."""
    grid: Annotated[Options, BeforeValidator(_options)] = None
    """Each of these."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Domain":
        given = [name for name in DOMAINS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(DOMAINS)}")
        if bounds := self.loguniform or self.uniform or self.randint:
            low, high = bounds
            if low >= high or (self.loguniform and low <= 0):
                raise ValueError(f"{given[0]} goes from a {'positive ' * bool(self.loguniform)}number to a larger one")
        return self

    @property
    def options(self) -> Options:
        """The values of a choice or grid by their names; None for a range. A value that is a mapping is several."""
        return self.choice or self.grid

    @property
    def grouped(self) -> bool:
        """Whether its values have names and stand for several settings each."""
        return any(isinstance(value, dict) for value in (self.options or {}).values())


def _flat(value: object) -> object:
    """Keys may be dotted, as in a space file, or nested, as overrides on the command line come."""
    if not isinstance(value, Mapping):
        return value
    return dotted(value, _is_domain)


def _is_domain(value: Mapping[str, Any]) -> bool:
    """Also one with a typo: what is no mapping belongs to a domain."""
    return any(name in DOMAINS or not isinstance(inner, Mapping) for name, inner in value.items())


class Base(Settings):
    """The stages of a trial, and their settings where the space says nothing else."""

    pretrain: dict[str, Any] | None = None
    """Settings of `enpar pretrain`; left out, nothing is pre-trained."""
    finetune: dict[str, Any] | None = None
    """Settings of `enpar finetune`, which starts from what was pre-trained; left out, nothing is fine-tuned."""

    @model_validator(mode="after")
    def _a_stage(self) -> "Base":
        if self.pretrain is None and self.finetune is None:
            raise ValueError("give pretrain, finetune or both")
        return self


class Asha(Settings):
    """Asynchronous successive halving (Li et al., 2020): it stops settings that are behind."""

    grace: Count = 2
    """Evaluations (fine-tuning: epochs) that each trial gets."""
    reduction: Annotated[float, Field(gt=1)] = 3.0
    """One of so many goes on at each rung; the rungs are `grace` times a power of it."""


class Resources(Settings):
    """What a fine-tuning takes; a pre-training takes its `scaling`, by default with one worker."""

    cpus: Count = 1
    """CPUs, and threads."""
    gpus: Annotated[float, Field(ge=0, le=1)] | None = None
    """GPUs; a fraction lets several share one. By default 1 if there is any."""


class TuneJob(Job):
    """Search settings: many pre-trainings and fine-tunings (Ray Tune)."""

    base: Base
    space: Annotated[dict[str, Domain], BeforeValidator(_flat), Field(min_length=1)]
    """What varies: a dotted key such as finetune.train.learning_rate, and {loguniform: [lo, hi]}, {uniform: [lo, hi]},
    {randint: [lo, hi]}, {choice: […]} or {grid: […]}. A choice or grid may also name several settings that vary
    together: {grid: {plain: {}, no PP: {pretrain.objectives.pp: 0}, none: {pretrain: null}}}."""
    output: Place
    """Folder of the sweep: its trials, their checkpoints, the report and best.yaml."""
    metric: str | None = None
    """What a trial is scored by: names in metrics.jsonl with + between them; losses are made small, others large. By
    default dev/entity/f1 + dev/relation_exact/f1, and heldout/loss/total where nothing is fine-tuned."""
    searcher: Literal["random", "grid", "optuna"] = "random"
    """random: `samples` draws, each at every point of the grids; grid: grids alone; optuna: TPE, without grids."""
    samples: Count | None = None
    """Settings drawn by random and optuna; 10 by default."""
    scheduler: Literal["asha", "none"] = "none"
    """asha stops trials that are behind others after as many epochs."""
    asha: Asha = Asha()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1,)
    """Seeds of each setting: of its fine-tunings, which share one pre-training, or of the pre-training if there is
    nothing else. The score is their mean; asha judges a setting by its first seed."""
    concurrency: Count | None = None
    """Trials at once; by default as many as fit."""
    resources: Resources = Resources()
    models: Literal["best", "all"] = "best"
    """Fine-tuned weights that are kept: those of the best setting, or all."""
    seed: Seed = 1
    """Seed of the search."""

    @model_validator(mode="after")
    def _searcher_and_space(self) -> "TuneJob":
        grids = [key for key, domain in self.space.items() if domain.grid is not None]
        others = [key for key in self.space if key not in grids]
        if self.searcher == "grid" and others:
            raise ValueError(f"space.{others[0]}: searcher=grid takes a grid; searcher=random draws from the rest")
        if self.searcher == "optuna" and grids:
            raise ValueError(f"space.{grids[0]}: searcher=optuna takes no grid; make it a choice")
        if self.samples and not others:
            raise ValueError("samples: there is nothing to draw in a grid; `seeds` repeats its settings")
        if unknown := [name for name in self.metrics if name not in _MEASURED[self.last]]:
            raise ValueError(f"metric: {unknown[0]} is not measured; {', '.join(_MEASURED[self.last])} are")
        if len({"/loss/" in name for name in self.metrics}) > 1:
            raise ValueError("metric: a loss is to be small and an accuracy large; their sum is neither")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is named twice")
        return self

    @property
    def last(self) -> Literal["pretrain", "finetune"]:
        """The stage whose numbers count."""
        return "pretrain" if self.base.finetune is None else "finetune"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that are added up."""
        return tuple(name.strip() for name in (self.metric or METRICS[self.last]).split("+"))

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether a small or a large score is the better."""
        return "min" if any("/loss/" in name for name in self.metrics) else "max"
