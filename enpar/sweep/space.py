"""Settings drawn from a space."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import numpy as np

from enpar.sweep.settings import Domain, TuneJob, label

Space = Mapping[str, Domain]
Drawn = dict[str, Any]
"""By the space's key: a number from a range, the name of an option of a choice or grid."""

_SAMPLES = 10


def samples(job: TuneJob) -> int:
    """How many settings are drawn, each at every point of the grids."""
    return 1 if all(domain.grid for domain in job.space.values()) else job.samples or _SAMPLES


def draw(job: TuneJob) -> list[Drawn]:
    """Every setting of a search that does not learn on its way, each once; the first few do not depend on `samples`."""
    grids = {key: domain.options or {} for key, domain in job.space.items() if domain.grid}
    points = [dict(zip(grids, names, strict=True)) for names in itertools.product(*grids.values())]
    others = {key: domain for key, domain in job.space.items() if key not in grids}
    drawn = []
    for i in range(samples(job)):
        random = np.random.default_rng([job.seed, i])
        sample = {key: _draw(domain, random) for key, domain in others.items()}
        drawn += [{key: (sample | point)[key] for key in job.space} for point in points]
    return list({name_of(one): one for one in drawn}.values())


def corners(job: TuneJob) -> list[Drawn]:
    """Settings that have, between them, every option and both ends of every range: what a search that learns on its
    way may come to draw.
    """
    first = draw(job)[0]
    found = [first]
    for key, domain in job.space.items():
        extremes = domain.options or domain.randint or domain.uniform or domain.loguniform or ()
        found += [first | {key: value} for value in extremes]
    return list({name_of(one): one for one in found}.values())


def _draw(domain: Domain, random: np.random.Generator) -> Any:  # noqa: ANN401 - any value of a setting
    if domain.options:
        return str(random.choice(list(domain.options)))
    if domain.randint:
        return int(random.integers(*domain.randint, endpoint=True))
    if domain.uniform:
        return _short(random.uniform(*domain.uniform), *domain.uniform)
    low, high = domain.loguniform or (1.0, 1.0)
    return _short(math.exp(random.uniform(math.log(low), math.log(high))), low, high)


def _short(value: float, low: float, high: float) -> float:
    """Four digits are enough, and can be read."""
    return min(max(float(f"{value:.4g}"), low), high)


def settings_of(space: Space, drawn: Drawn) -> Iterator[tuple[str, str, Any]]:
    """(where in the space it stands, dotted key, value) of every setting that was drawn."""
    for key, chosen in drawn.items():
        value = (space[key].options or {}).get(chosen, chosen)
        if isinstance(value, dict):
            kind = "grid" if space[key].grid else "choice"
            yield from ((f"space.{key}.{kind}.{chosen}.{inner}", inner, one) for inner, one in value.items())
        else:
            yield f"space.{key}", key, value


def keys_of(space: Space) -> Iterator[str]:
    """The dotted keys of all settings that vary."""
    for key, domain in space.items():
        if domain.grouped:
            yield from (inner for value in (domain.options or {}).values() for inner in value)
        else:
            yield key


def name_of(drawn: Drawn) -> str:
    """The name of a trial's folder: readable, and another one for every setting."""
    words = ",".join(f"{short}={label(drawn[key])}" for key, short in shorten(drawn).items())
    readable = "".join(c if c.isalnum() or c in "=,.-+" else "_" for c in words).replace("__", "_")[:60]
    return f"{readable}-{digest(drawn)[:6]}"


def digest(value: Mapping[str, Any]) -> str:
    """The same for equal settings, in whatever order."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def describe(drawn: Drawn) -> str:
    """The setting in a line."""
    return ", ".join(f"{short}={label(drawn[key])}" for key, short in shorten(drawn).items())


def shorten(keys: Mapping[str, Any]) -> dict[str, str]:
    """The last part of each dotted key, or all of it where two would be called the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)}
