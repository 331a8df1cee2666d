"""Views on one core."""

import time
from typing import Any

import numpy as np

from enpar.bench.settings import BenchViews
from enpar.objectives.views import ViewMaker
from enpar.wordpieces import read_corpus


def measure(job: BenchViews) -> dict[str, Any]:
    """Make the views of all sentences, epoch after epoch, in one thread; cutting into wordpieces is not measured.

    Raises:
        UserError: the data or the tokenizer is missing.
    """
    corpus, tokenizer = read_corpus(job.data, job.encoder, job.views.max_wordpieces)
    maker = ViewMaker(corpus, job.views, job.objectives, tokenizer.mask_token_id, job.seed)
    maker.make(np.arange(min(len(corpus), job.sentences)), 0)
    views = instances = epoch = 0
    began = time.perf_counter()
    while (seconds := time.perf_counter() - began) < job.seconds:
        for start in range(0, len(corpus), job.sentences):
            batch = maker.make(np.arange(start, min(start + job.sentences, len(corpus))), epoch)
            views += len(batch.lengths)
            instances += batch.instances()
        epoch += 1
    return {
        "views_per_second": round(views / seconds, 1),
        "instances_per_second": round(instances / seconds, 1),
        "sentences": len(corpus),
        "epochs": epoch,
    }
