"""`enpar evaluate`: models and a labelled corpus → scores, a report and the predictions."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enpar import corpora
from enpar.analysis import analyse
from enpar.config import EvaluateJob
from enpar.errors import UserError
from enpar.finetune import gold_counts
from enpar.metrics import append_metrics, truncate_metrics
from enpar.output import Output
from enpar.pretrained import extraction_settings
from enpar.provenance import data_of
from enpar.report import write_report
from enpar.sentence import Sentence, write_jsonl
from enpar.storage import atomic
from enpar.symmetric import explain, normalise, symmetric_labels
from enpar.tracking import check_tracking, finished, track

log = logging.getLogger("enpar")
Sentences = Sequence[Sentence]


def run(job: EvaluateJob) -> dict[str, Any]:
    """Predict, score and report; every gold item of the corpus counts.

    Raises:
        UserError: a model, the corpus or the output is at fault.
    """
    output = Output(job.output, "evaluate", job.model_dump(mode="json"))
    if (result := finished(output, job.tracking, job.overwrite)) is not None:
        return result
    check_tracking(job.tracking, job.output)
    output.apart_from(**{"corpus.test": job.corpus.test})
    for path in job.model:
        output.apart_from(model=path)
    models = {name: {"path": str(path), **extraction_settings(path)} for name, path in _named(job.model).items()}
    read = corpora.read_splits({"test": job.corpus.test}, job.corpus)
    gold = read["test"].sentences
    for name, model in models.items():
        of = f"test, {name}" if len(models) > 1 else "test"
        corpora.warn_of_unknown(of, gold, model["entity_types"], model["relation_types"])
    symmetric = _symmetric(job, gold, models)
    log.info("%s", explain(job.symmetric, symmetric))
    output.claim(job.overwrite)
    corpora.write_rejected(output.path / "rejected.jsonl", read)
    truncate_metrics(output.metrics, -1)
    data = {"test": data_of(job.corpus.test, len(gold))}
    with track(output, job.tracking, "evaluate", data=data) as tracked:
        predicted = {name: _predict(job, Path(model["path"]), gold) for name, model in models.items()}
        content, files = _write(job, models, symmetric, read["test"], predicted)
        scores = {name: model["scores"] for name, model in content["models"].items()}
        append_metrics(output.metrics, 0, _flat(scores))
        result = _result(job, content, scores)
        tracked.finish(result, files)
    output.finish(result)
    return result


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """The models by name: the last folder of each path, or as many as it takes to tell them apart."""
    full = [path.resolve().parts[1:] for path in paths]  # without the root
    for depth in range(1, max(map(len, full)) + 1):
        names = ["-".join(parts[-depth:]) for parts in full]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    raise UserError(f"model: {', '.join(map(str, paths))}: one folder is given twice; name each once")


def _symmetric(job: EvaluateJob, gold: Sentences, models: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
    """The symmetric relations, as they are given or as they are known.

    Raises:
        UserError: a given one is no label of the corpus or a model.
    """
    labels = {relation.type for sentence in gold for relation in sentence.relations}
    labels.update(label for model in models.values() for label in model["relation_types"])
    if job.symmetric_relations is None:
        return symmetric_labels(labels)
    if unknown := set(job.symmetric_relations) - labels:
        known = ", ".join(sorted(labels)) or "none"
        raise UserError(f"symmetric_relations: no relation is called {min(unknown)!r}; there are: {known}")
    return tuple(sorted(set(job.symmetric_relations)))


def _predict(job: EvaluateJob, path: Path, gold: Sentences) -> tuple[list[Sentence], float]:
    """The predictions, and the seconds that they took."""
    from enpar.extraction import load
    from enpar.model.device import use_cpus

    use_cpus(None)
    model, began = load(path), time.monotonic()
    predicted = [prediction.sentence for prediction in model.predict(gold, job.batch_wordpieces)]
    return predicted, time.monotonic() - began


def _write(
    job: EvaluateJob,
    models: Mapping[str, dict[str, Any]],
    symmetric: tuple[str, ...],
    split: corpora.Split,
    predicted: Mapping[str, tuple[list[Sentence], float]],
) -> tuple[dict[str, Any], list[Path]]:
    """Write the files; what report.json holds, and the files."""
    page, report = job.output / "report.html", job.output / "report.json"
    files = [job.output / (f"predictions-{name}.jsonl" if len(models) > 1 else "predictions.jsonl") for name in models]
    for file, (sentences, _) in zip(files, predicted.values(), strict=True):
        with atomic(file) as temporary:
            write_jsonl(temporary, sentences)
    labels = symmetric if job.symmetric == "normalised" else ()
    gold = normalise(split.sentences, labels)
    scored = {name: normalise(sentences, labels) for name, (sentences, _) in predicted.items()}
    content = analyse(gold, scored, job.resamples, job.seed) | {
        "gold": gold_counts(gold),
        "corpus": str(job.corpus.test),
        "read": split.figures(),
        "symmetric": job.symmetric,
        "symmetric_relations": list(symmetric),
        "settings": job.model_dump(mode="json", exclude={"tracking"}),  # its URI may hold a password
    }
    for name, (_, seconds) in predicted.items():
        content["models"][name] |= {"model": models[name], "seconds": round(seconds, 3)}
    with atomic(report) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report(page, content, gold, scored)
    return content, [page, report, *files]


def _flat(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """F1 by a name such as `test/entity/f1`, or, of several models, `test/NAME/entity/f1`."""
    return {
        "/".join(("test", *([model] if len(scores) > 1 else []), name, "f1")): value["f1"]
        for model, values in scores.items()
        for name, value in values.items()
    }


def _result(job: EvaluateJob, content: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    result = {
        "report": str(job.output / "report.html"),
        "scores": content["scores"],
        "symmetric": job.symmetric,
        "corpus": {"test": content["read"]},
    }
    if len(scores) > 1:
        result |= {"models": scores, "comparisons": content["comparisons"]}
    return result
