"""All that a report says about models on the same sentences, as plain values for report.json and the page alike."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from enpar.breakdown import breakdowns
from enpar.mistakes import confusion, count_mistakes
from enpar.scores import by_type, score
from enpar.sentence import Sentence
from enpar.significance import compare, intervals, sentence_counts


def analyse(
    gold: Sequence[Sentence], predicted: Mapping[str, Sequence[Sentence]], resamples: int, seed: int
) -> dict[str, Any]:
    """All that a report says about models on the same sentences; `scores` and `by_type` are the first model's.

    Args:
        gold: the labelled sentences.
        predicted: predictions by model, each aligned with `gold`.
        resamples: of the intervals and tests.
        seed: of the resamples.

    Raises:
        ValueError: predictions and gold do not have the same sentences in the same order.
    """
    counts = {name: sentence_counts(gold, sentences) for name, sentences in predicted.items()}
    models = {
        name: {
            "scores": score(gold, sentences),
            "intervals": intervals(counts[name], resamples, seed),
            "by_type": by_type(gold, sentences),
            "breakdowns": breakdowns(gold, sentences),
            "mistakes": count_mistakes(gold, sentences),
            "confusion": confusion(gold, sentences),
        }
        for name, sentences in predicted.items()
    }
    first = next(iter(models.values()))
    return {
        "scores": first["scores"],
        "by_type": first["by_type"],
        "models": models,
        "comparisons": [
            {"first": one, "second": other, "scores": compare(counts[one], counts[other], resamples, seed)}
            for one, other in combinations(models, 2)
        ],
    }
