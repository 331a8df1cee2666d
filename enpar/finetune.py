"""`enpar finetune`: an encoder and a labelled corpus → a model that extracts entities and relations."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enpar import corpora
from enpar.config import FinetuneJob
from enpar.metrics import append_metrics, truncate_metrics
from enpar.objectives.draws import Purpose, draw, run_key
from enpar.output import Output
from enpar.pretrained import checkpoint_settings, load_config, load_tokenizer, locate
from enpar.provenance import Data, data_of
from enpar.scores import Score, entity_items, relation_items, score
from enpar.seeds import run_seeds
from enpar.sentence import Sentence, write_jsonl
from enpar.storage import atomic
from enpar.tracking import check_tracking, finished, track

if TYPE_CHECKING:
    from enpar.extraction import Extraction
    from enpar.training.fit import Fitted

log = logging.getLogger("enpar")
Splits = dict[str, list[Sentence]]


def run(job: FinetuneJob) -> dict[str, Any]:
    """Fine-tune, keep the best epoch's weights, and score them.

    A run that was broken off begins anew: it is short. Of several seeds those that are finished stay.

    Raises:
        UserError: the corpus, the encoder or the output is at fault; found out before torch is loaded, but for an
            encoder that only the hub can refuse.
    """
    output = Output(job.output, "finetune", job.model_dump(mode="json"))
    if (result := finished(output, job.tracking, job.overwrite)) is not None:
        return result
    check_tracking(job.tracking, job.output)
    output.apart_from(init=job.init, **{f"corpus.{name}": path for name, path in _paths(job).items()})
    locate(job.init)
    read = corpora.read_splits(_paths(job), job.corpus)
    load_config(job.init)
    load_tokenizer(job.init)
    output.claim(job.overwrite)
    if job.seeds is not None:
        with track(output, job.tracking, "finetune", data=_data(read)) as tracked:
            result = run_seeds(job.model_copy(update={"tracking": tracked.below()}), run)
            tracked.finish(result)
        output.finish(result)
        return result
    corpora.write_rejected(output.path / "rejected.jsonl", read)
    truncate_metrics(output.metrics, -1)
    return _run(job, output, read, _splits(job, read))


def _paths(job: FinetuneJob) -> dict[str, Path]:
    """The files of the splits that are given."""
    paths = {"train": job.corpus.train, "dev": job.corpus.dev, "test": job.corpus.test}
    return {name: path for name, path in paths.items() if path}


def _data(read: Mapping[str, corpora.Split]) -> dict[str, Data]:
    """The splits, for the tracker."""
    return {name: data_of(split.path, len(split.sentences)) for name, split in read.items()}


def _splits(job: FinetuneJob, read: Mapping[str, corpora.Split]) -> Splits:
    """The sentences that are used of each split, with a word on labels that only dev or test has."""
    splits = {name: split.sentences for name, split in read.items()}
    splits["train"] = share(splits["train"], job.corpus.fraction, job.seed)
    if job.corpus.fraction < 1:
        log.info("train: corpus.fraction=%s uses %d of its sentences", job.corpus.fraction, len(splits["train"]))
    known = corpora.describe(splits["train"])
    for name in ("dev", "test"):
        corpora.warn_of_unknown(name, splits.get(name, []), known["entity_types"], known["relation_types"])
    return splits


def share(sentences: Sequence[Sentence], fraction: float, seed: int) -> list[Sentence]:
    """A random share of the sentences, in their order, of at least one; a smaller share is part of a larger one.

    Whether a sentence is in it depends on `seed`, `fraction`, its position, and how many there are.
    """
    draws = draw(run_key(seed, 0), Purpose.FRACTION, np.arange(len(sentences)))
    chosen = np.argsort(draws, kind="stable")[: max(1, round(fraction * len(sentences)))]
    return [sentences[i] for i in np.sort(chosen)]


def gold_counts(sentences: Sequence[Sentence]) -> dict[str, int]:
    """How many sentences, entities and relations there are to find; what is given twice is to be found once."""
    return {
        "sentences": len(sentences),
        "entities": sum(len(entity_items(sentence)) for sentence in sentences),
        "relations": sum(len(relation_items(sentence)) for sentence in sentences),
    }


def _run(job: FinetuneJob, output: Output, read: Mapping[str, corpora.Split], splits: Splits) -> dict[str, Any]:
    # Not before all that can be told without them: torch and transformers take seconds to load.
    import torch

    from enpar.extraction import start
    from enpar.model.device import use_cpus
    from enpar.model.joint import Labels
    from enpar.training.fit import fit, flat

    began = time.monotonic()
    use_cpus(job.threads)
    torch.manual_seed(job.seed)
    known = corpora.describe(splits["train"])
    labels = Labels(tuple(known["entity_types"]), tuple(known["relation_types"]))
    extraction = start(job.init, job.load == "all", labels, job.train.dropout, job.train.precision)
    with track(output, job.tracking, "finetune", data=_data(read)) as tracked:

        def report(step: int, measured: dict[str, float]) -> None:
            append_metrics(output.metrics, step, measured)

        fitted = fit(extraction, splits["train"], splits["dev"], job, report)
        scores = _predict(extraction, splits, output.path)
        if "test" in scores:
            report(fitted.steps, flat("test", scores["test"]))
        result = _result(job, splits, fitted, scores) | {
            "corpus": {name: split.figures() for name, split in read.items()},
            "seconds": round(time.monotonic() - began, 3),
        }
        extraction.save(job.output, _settings(job, result), _card(job, extraction, result))
        tracked.finish(result, [job.output])
    output.finish(result)
    return result


def _predict(extraction: "Extraction", splits: Splits, folder: Path) -> dict[str, dict[str, Score]]:
    """Write what the model predicts for dev and test to predictions-dev.jsonl …; the scores of both."""
    scores: dict[str, dict[str, Score]] = {}
    for name in ("dev", "test"):
        if name in splits:
            predicted = [prediction.sentence for prediction in extraction.predict(splits[name])]
            with atomic(folder / f"predictions-{name}.jsonl") as temporary:
                write_jsonl(temporary, predicted)
            scores[name] = score(splits[name], predicted)
    return scores


def _result(
    job: FinetuneJob, splits: Splits, fitted: "Fitted", scores: Mapping[str, dict[str, Score]]
) -> dict[str, Any]:
    return {
        "model": str(job.output),
        "epochs": fitted.epochs,
        "dev": scores["dev"],
        "test": scores.get("test"),
        "best_epoch": fitted.best_epoch,
        "steps": fitted.steps,
        "precision": fitted.precision,
        "sentences_per_second": round(fitted.sentences_per_second, 2),
        "gold": {name: gold_counts(sentences) for name, sentences in splits.items()},
    }


def _settings(job: FinetuneJob, result: dict[str, Any]) -> dict[str, Any]:
    """What the model's config.json says beside its labels."""
    return {
        "precision": job.train.precision,
        "init": job.init,
        "load": job.load,
        "base": (checkpoint_settings(job.init) or {}).get("encoder", job.init),
        "seed": job.seed,
        "scores": {"dev": result["dev"], "test": result["test"]},
    }


# ---- The model card -------------------------------------------------------------------------------------------------

_CARD = """---
library_name: transformers
tags: [relation-extraction, named-entity-recognition, enpar]
---

# Entities and relations, extracted jointly

Fine-tuned with enpar (ENPAR, EACL 2021) from `{init}` ({load}) on the {format} corpus `{train}`.

## Use

    enpar extract model={output} input=texts/ output=extracted/
    enpar evaluate model={output} corpus.format={format} corpus.test=FILE output=report/

or, in Python:

    from enpar import Extractor
    sentences = Extractor("{output}")("Text of any length.")

## Labels

- Entities: {entity_types}
- Relations: {relation_types}

## Scores

| split | sentences | entity F1 | relation F1 | exact relation F1 |
|---|---|---|---|---|
{rows}

Micro-averaged; a relation is exact if both spans and both types are right as well. The epoch ({best_epoch} of {epochs})
was chosen by entity F1 + exact relation F1 on the dev split.

## Limits

- It knows the labels above, in texts like those it was trained on; elsewhere expect less than these scores.
- Entities do not overlap, and a pair of entities has one relation at most.
- A sentence of more than {limit} wordpieces is read in parts; nothing is related across parts, or across sentences.
- Scores beside what it extracts are the classifiers' probabilities; they are not calibrated.

## Settings

    {settings}
"""


def _card(job: FinetuneJob, extraction: "Extraction", result: dict[str, Any]) -> str:
    from enpar.wordpieces import limit_of

    rows = []
    for split in ("dev", "test"):
        if scores := result[split]:
            values = " | ".join(f"{100 * scores[name]['f1']:.1f}" for name in ("entity", "relation", "relation_exact"))
            rows.append(f"| {split} | {result['gold'][split]['sentences']} | {values} |")
    labels = extraction.model.labels
    return _CARD.format(
        init=job.init,
        load=job.load,
        format=result["corpus"]["train"]["format"],
        train=job.corpus.train,
        **{key: result[key] for key in ("best_epoch", "epochs")},
        output=job.output,
        entity_types=", ".join(labels.entity_types) or "none",
        relation_types=", ".join(labels.relation_types) or "none",
        rows="\n".join(rows),
        limit=limit_of(extraction.model.encoder.config),
        settings=job.train.model_dump_json() + f", seed {job.seed}",
    )
