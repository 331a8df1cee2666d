"""Settings, numbers and data in the forms and sizes that MLflow takes."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from enpar.metrics import Row, values_of
from enpar.tracking_uri import without_secrets

METRICS_A_BATCH, PARAMS_A_BATCH = 1000, 100
_KEY_LENGTH, _PARAM_LENGTH, _DIGEST_LENGTH = 250, 6000, 12


def params(settings: Mapping[str, Any]) -> list[Param]:
    """The settings under their dotted keys."""
    return [Param(_key(key), _text(value)) for key, value in _flat(settings, ".")]


def tags(named: Mapping[str, str]) -> list[RunTag]:
    """The tags of a run."""
    return [RunTag(name, value) for name, value in named.items()]


def metrics(rows: Sequence[Row], steps: dict[str, int]) -> list[Metric]:
    """What was measured after the last `steps`, which move on: a continued run has some steps twice."""
    found = []
    for row in rows:
        for name, value in values_of(row).items():
            if row["step"] > steps.get(name, -1):
                steps[name] = row["step"]
                found.append(Metric(_key(name), value, int(row["time"] * 1000), row["step"]))
    return found


def result_metrics(result: Mapping[str, Any], stage: str, time: float, step: int) -> list[Metric]:
    """The numbers of a result, such as `finetune/result/test/entity/f1`; what is counted below the top is left out.

    There are many counts, and a chart of each would bury the others; `result.json` has them.
    """
    kinds = ((key, (int, float) if "/" not in key else (float,), value) for key, value in _flat(result, "/"))
    numbers = [(key, value) for key, kind, value in kinds if type(value) in kind]
    return [Metric(_key(f"{stage}/result/{key}"), value, int(time * 1000), step) for key, value in numbers]


def dataset(context: str, place: str, rows: int, digest: str) -> DatasetInput:
    """What a run reads; the whole digest is in its profile."""
    data = Dataset(
        name=Path(place).name,
        digest=digest[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": place}),
        profile=json.dumps({"num_rows": rows, "sha256": digest}),
    )
    return DatasetInput(data, [InputTag("mlflow.data.context", context)])


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """As many at a time as MLflow takes."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _flat(values: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, separator, f"{prefix}{key}{separator}")
        else:
            yield prefix + key, value


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return without_secrets(text)[:_PARAM_LENGTH]


def _key(name: str) -> str:
    return re.sub(r"[^\w./ :-]", "_", name)[:_KEY_LENGTH]
