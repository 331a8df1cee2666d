"""From a drawn setting to the jobs of its trial, each checked as its own command would check it."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from enpar import corpora
from enpar.config import FinetuneJob, PretrainJob
from enpar.errors import UserError
from enpar.pretrained import absolute, locate
from enpar.sentence import sentence_files
from enpar.settings import put, validate
from enpar.storage import Location
from enpar.sweep.settings import TuneJob
from enpar.sweep.space import Drawn, describe, digest, keys_of, name_of, settings_of
from enpar.tracking_uri import tracking_uri

STAGES = {"pretrain": PretrainJob, "finetune": FinetuneJob}
_OURS = {"output": "output", "overwrite": "overwrite", "tracking": "tracking"}
_FINETUNES = {"seed": "seeds", "threads": "resources.cpus"}

J = TypeVar("J", PretrainJob, FinetuneJob)


@dataclass(frozen=True)
class Run:
    """One seed of a trial: what is pre-trained, and what is fine-tuned from it."""

    seed: int
    pretrain: PretrainJob | None
    finetune: FinetuneJob | None


@dataclass(frozen=True)
class Trial:
    """One setting.

    Args:
        name: of its folder.
        drawn: what the search chose.
        settings: the same as dotted settings.
        folder: where its record is, and what it fine-tunes.
        runs: one a seed.
    """

    name: str
    drawn: Drawn
    settings: dict[str, Any]
    folder: Path
    runs: tuple[Run, ...]


def plan(job: TuneJob, drawn: Drawn, root: Path) -> Trial:
    """The jobs of a trial.

    Args:
        job: the sweep.
        drawn: the setting.
        root: the working directory of the command, which its workers need not share.

    Raises:
        UserError: a setting is refused; named by where it stands, `base.…` or `space.…`.
    """
    chosen = list(settings_of(job.space, drawn))
    origins = {key: origin for origin, key, _ in chosen}
    values: dict[str, Any] = {"pretrain": deepcopy(job.base.pretrain), "finetune": deepcopy(job.base.finetune)}
    for origin, key, value in sorted(chosen, key=lambda one: one[2] is not None):  # what leaves a stage out first
        _check(job, values, origin, key, value)
        put(values, key, value)
    _check_base(job)
    name = name_of(drawn)
    folder = root / job.output / "trials" / name
    settings = {key: value for _, key, value in chosen}
    runs = tuple(_run(_Place(job, root, folder, origins, settings), values, seed) for seed in job.seeds)
    return Trial(name, drawn, settings, folder, runs)


def _check(job: TuneJob, values: Mapping[str, Any], origin: str, key: str, value: object) -> None:
    stage, _, inner = key.partition(".")
    if getattr(job.base, stage, None) is None or stage not in STAGES:
        stages = " or ".join(f"{name}." for name in STAGES if getattr(job.base, name) is not None)
        raise UserError(f"{origin}: a setting begins with {stages}; base has no {stage}")
    if not inner and (stage != "pretrain" or value is not None or values["finetune"] is None):
        raise UserError(f"{origin}: name a setting of {stage}, such as {stage}.train.learning_rate")
    if inner and values[stage] is None:
        raise UserError(f"{origin}: {key} is set, but `pretrain: null` leaves pre-training out")
    _check_ours(job, origin, stage, inner)


def _check_base(job: TuneJob) -> None:
    for stage in STAGES:
        for key in getattr(job.base, stage) or {}:
            _check_ours(job, f"base.{stage}.{key}", stage, key)


def _check_ours(job: TuneJob, origin: str, stage: str, key: str) -> None:
    """Refuse what the sweep sets itself."""
    ours = _OURS | (_FINETUNES if stage == "finetune" else {}) | ({"seed": "seeds"} if stage == job.last else {})
    if (first := key.split(".")[0]) in ours:
        raise UserError(f"{origin}: not set here but by {ours[first]} of the sweep")
    if stage == "finetune" and first == "init" and job.base.pretrain is not None:
        raise UserError(f"{origin}: fine-tuning starts from the trial's pre-training; `pretrain: null` leaves that out")


@dataclass(frozen=True)
class _Place:
    """What the jobs of one trial have in common; `origins` says where in the space a dotted key was set."""

    job: TuneJob
    root: Path
    folder: Path
    origins: Mapping[str, str]
    settings: Mapping[str, Any]


def _run(place: _Place, values: Mapping[str, Any], seed: int) -> Run:
    pretrained, finetuned = values["pretrain"], values["finetune"]
    if finetuned is None:
        return Run(seed, _pretraining(place, pretrained | {"seed": seed}), None)
    if pretrained is None:
        plain = (place.job.base.pretrain or {}).get("encoder")
        return Run(seed, None, _finetuning(place, ({"init": plain} if plain else {}) | finetuned, seed))
    pretrain = _pretraining(place, pretrained)
    return Run(seed, pretrain, _finetuning(place, finetuned | {"init": str(pretrain.output)}, seed))


def _finetuning(place: _Place, values: Mapping[str, Any], seed: int) -> FinetuneJob:
    ours = {"seed": seed, "output": str(place.folder / f"seed-{seed}"), "threads": place.job.resources.cpus}
    tracking = _tracking(place, f"finetune seed {seed}", place.folder)
    draft = _job(FinetuneJob, "finetune", place, {**values, **ours, "tracking": tracking})
    paths = {name: place.root / path for name, path in draft.corpus if isinstance(path, Path)}
    corpus = draft.corpus.model_copy(update=paths)
    return draft.model_copy(update={"corpus": corpus, "init": absolute(draft.init, place.root)})


def _pretraining(place: _Place, values: Mapping[str, Any]) -> PretrainJob:
    """The pre-training of a trial, in a folder named by its settings: trials that agree on them share it."""
    job = place.job
    if isinstance(scaling := values.get("scaling", {}), dict):  # trials run beside each other: one worker each
        values = {**values, "scaling": {"num_workers": 1} | scaling}
    ours = {"output": str(job.output), "tracking": _pretraining_tracking(place, values)}
    draft = _job(PretrainJob, "pretrain", place, {**values, **ours})
    data = draft.data if isinstance(draft.data, Location) else place.root / draft.data
    draft = draft.model_copy(update={"data": data, "encoder": absolute(draft.encoder, place.root)})
    key = digest(draft.model_dump(mode="json", exclude={"output", "overwrite", "tracking"}))[:12]
    if job.last == "pretrain" and not draft.train.heldout:
        raise UserError("base.pretrain.train.heldout: nothing is held out, so that trials cannot be compared")
    return draft.model_copy(update={"output": place.root / job.output / "pretrained" / key})


def _job(kind: type[J], stage: str, place: _Place, values: Mapping[str, Any]) -> J:
    def name(path: str) -> str:
        full, origins = f"{stage}.{path}", place.origins.items()
        at: list[str] = [origin for key, origin in origins if f"{full}.".startswith(f"{key}.")]
        within: list[str] = [origin for key, origin in origins if key.startswith(f"{full}.")]
        return [*at, *within, f"base.{full}"][0]

    return validate(kind, values, name)


def _pretraining_tracking(place: _Place, values: Mapping[str, Any]) -> dict[str, Any]:
    """Below its trial, if other trials have other pre-trainings; one that they share is below the sweep itself."""
    drawn = {key: value for key, value in place.settings.items() if key.startswith("pretrain.")}
    if all(key.startswith("pretrain.") for key in keys_of(place.job.space)):
        name = "pretrain" if place.job.last == "finetune" else f"pretrain seed {values['seed']}"
        return _tracking(place, name, place.folder)
    return _tracking(place, f"pretrain {describe(drawn)}".strip(), place.root / place.job.output)


def _tracking(place: _Place, name: str, parent: Path) -> dict[str, Any]:
    """Beside the sweep, not beside each stage."""
    sweep, folder = place.job.tracking, place.root / place.job.output
    if not sweep.enabled:
        return sweep.model_dump()
    models = sweep.models and place.job.models == "all"  # the best one is logged with the sweep
    own = {"uri": tracking_uri(sweep, folder), "name": name, "parent": str(parent), "models": models}
    return sweep.model_copy(update=own).model_dump()


def check_inputs(trials: Iterable[Trial]) -> None:
    """See that all the files there are that the trials read.

    Raises:
        UserError: one is missing or malformed.
    """
    seen: set[str] = set()
    for run in (run for trial in trials for run in trial.runs):
        if run.pretrain and (key := f"{run.pretrain.data} {run.pretrain.encoder}") not in seen:
            seen.add(key)
            sentence_files(run.pretrain.data)
            locate(run.pretrain.encoder)
        if run.finetune and (key := run.finetune.corpus.model_dump_json(exclude={"fraction"})) not in seen:
            seen.add(key)
            corpus = run.finetune.corpus
            paths = {"train": corpus.train, "dev": corpus.dev, "test": corpus.test}
            corpora.read_splits({name: path for name, path in paths.items() if path}, corpus)
        if run.finetune and not run.pretrain:
            locate(run.finetune.init)
