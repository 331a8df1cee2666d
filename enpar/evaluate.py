"""`enpar evaluate`: a model and a labelled corpus → scores, a report and the predictions."""

import json
import logging
import time
from typing import Any

from enpar import corpora
from enpar.config import EvaluateJob
from enpar.finetune import gold_counts
from enpar.metrics import append_metrics, truncate_metrics
from enpar.output import Output, atomic
from enpar.pretrained import extraction_settings
from enpar.report import write_report
from enpar.scores import by_type, score
from enpar.sentence import Sentence, write_jsonl
from enpar.tracking import check_tracking, track

log = logging.getLogger("enpar")
FILES = ("report.html", "report.json", "predictions.jsonl")


def run(job: EvaluateJob) -> dict[str, Any]:
    """Predict, score and report; every gold item of the corpus counts.

    Raises:
        UserError: the model, the corpus or the output is at fault.
    """
    output = Output(job.output, "evaluate", job.model_dump(mode="json"))
    if (result := output.finished(job.overwrite)) is not None:
        return result
    check_tracking(job.tracking, job.output)
    output.apart_from(model=job.model, **{"corpus.test": job.corpus.test})
    model = extraction_settings(job.model)
    read = corpora.read_splits({"test": job.corpus.test}, job.corpus)
    gold = read["test"].sentences
    corpora.warn_of_unknown("test", gold, model["entity_types"], model["relation_types"])
    output.claim(job.overwrite)
    corpora.write_rejected(output.path / "rejected.jsonl", read)
    truncate_metrics(output.metrics, -1)
    with track(output, job.tracking, "evaluate") as tracked:
        began = time.monotonic()
        predicted = _predict(job, gold)
        result = _write(job, model, gold, predicted, time.monotonic() - began)
        result["corpus"] = {"test": read["test"].figures()}
        append_metrics(output.metrics, 0, {f"test/{name}/f1": value["f1"] for name, value in result["scores"].items()})
        tracked.finish(result, [job.output / name for name in FILES])
    output.finish(result)
    return result


def _predict(job: EvaluateJob, gold: list[Sentence]) -> list[Sentence]:
    from enpar.extraction import load
    from enpar.model.device import use_cpus

    use_cpus(None)
    return [prediction.sentence for prediction in load(job.model).predict(gold, job.batch_size)]


def _write(
    job: EvaluateJob, model: dict[str, Any], gold: list[Sentence], predicted: list[Sentence], seconds: float
) -> dict[str, Any]:
    """Write the three files; the result."""
    report, page, predictions = (job.output / name for name in ("report.json", "report.html", "predictions.jsonl"))
    scores, typed = score(gold, predicted), by_type(gold, predicted)
    with atomic(predictions) as temporary:
        write_jsonl(temporary, predicted)
    content = {
        "scores": scores,
        "by_type": typed,
        "gold": gold_counts(gold),
        "relations": "the direction counts for every relation, symmetric ones included",
        "model": {"path": str(job.model), **model},
        "settings": job.model_dump(mode="json"),
        "seconds": round(seconds, 3),
    }
    with atomic(report) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report(page, f"{job.model.name} on {job.corpus.test.name}", gold, predicted, scores, typed)
    return {"report": str(page), "scores": scores}
