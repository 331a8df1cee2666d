"""How many trials run at once: so many that no stage of one can wait for ever for what the others hold."""

from collections.abc import Iterable, Mapping, Sequence

from enpar import cluster
from enpar.config import PretrainJob
from enpar.errors import UserError
from enpar.sweep.plan import Trial
from enpar.sweep.settings import TuneJob
from enpar.sweep.trial import Terms
from enpar.training.resources import check_resources, settle


def terms_of(job: TuneJob, there: Mapping[str, float]) -> Terms:
    """What all trials have in common, on a machine or cluster with these resources."""
    gpus = job.resources.gpus
    return Terms(
        metrics=job.metrics,
        larger=job.mode == "max",
        first_alone=job.scheduler == "asha",
        cpus=job.resources.cpus,
        gpus=min(1.0, there.get("GPU", 0.0)) if gpus is None else gpus,
    )


def at_once(job: TuneJob, trials: Sequence[Trial], there: Mapping[str, float]) -> int:
    """Trials at the same time.

    Fine-tunings take turns if they must, since each asks for all it needs at once; a pre-training that got its
    training workers would wait for ever for the makers of its views, if those of others hold the rest.

    Raises:
        UserError: this machine cannot hold one trial, or so many as `concurrency` says.
    """
    terms = terms_of(job, there)
    cpus = max([_cpus(run.pretrain) for trial in trials for run in trial.runs if run.pretrain], default=0.0)
    gpus = max([_gpus(run.pretrain) for trial in trials for run in trial.runs if run.pretrain], default=0.0)
    finetuning = (terms.cpus, terms.gpus) if job.base.finetune is not None else (0.0, 0.0)
    wanted = {"CPU": max(cpus, finetuning[0]), "GPU": max(gpus, finetuning[1])}
    fitting = min(int((there.get(kind, 0.0) + 1e-6) / amount) for kind, amount in wanted.items() if amount)
    if not cluster.address():  # a cluster may yet grow
        _check(job, wanted, fitting, there)
    return job.concurrency or max(1, fitting)


def find_room(trials: Iterable[Trial]) -> None:
    """See that a cluster has room for a pre-training, or makes it within `wait`.

    Those of later trials are not asked about: what they wait for may be the end of earlier ones.

    Raises:
        UserError: it has not.
    """
    if cluster.address():
        found = [run.pretrain for trial in trials for run in trial.runs if run.pretrain]
        for one in {pretraining.scaling.model_dump_json(): pretraining for pretraining in found}.values():
            check_resources(settle(one))


def _check(job: TuneJob, wanted: Mapping[str, float], fitting: int, there: Mapping[str, float]) -> None:
    words = " and ".join(f"{amount:g} {kind}s" for kind, amount in wanted.items() if amount)
    has = ", ".join(f"{there.get(kind, 0.0):g} {kind}s" for kind, amount in wanted.items() if amount)
    if not fitting:
        raise UserError(
            f"a trial asks for {words} (resources and base.pretrain.scaling); this machine has {has}: lower them"
        )
    if job.concurrency and job.concurrency > fitting:
        raise UserError(
            f"concurrency: {job.concurrency} trials of {words} each; this machine has {has}: {fitting} fit at once"
        )


def _cpus(job: PretrainJob) -> float:
    scaling = job.scaling
    return (scaling.num_workers or 1) * (scaling.cpus_per_worker + scaling.view_workers * scaling.cpus_for_views)


def _gpus(job: PretrainJob) -> float:
    return float(job.scaling.num_workers or 1) if job.scaling.use_gpu else 0.0
