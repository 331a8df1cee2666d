"""What the machine or the cluster has, and whether the workers that a command asks for find room in it."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray
from ray._common.utils import get_system_memory  # as Ray itself counts: a container's limits hold
from ray._private.utils import get_num_cpus
from ray.util.placement_group import placement_group, remove_placement_group

from enpar import cluster
from enpar.errors import UserError

log = logging.getLogger("enpar")
_LOOK = 10.0  # seconds between two lines that say what is waited for
_PLACE = 2.0  # seconds in which processes are placed where there is room for them

Bundle = dict[str, float]  # what Ray reserves for one process, such as {"CPU": 0.5, "GPU": 1}


@dataclass(frozen=True)
class Capacity:
    """What there is, busy or not; `memory` is in bytes."""

    cpus: float
    gpus: float
    memory: float


def capacity(gpus: bool = False) -> Capacity:
    """Of the cluster that RAY_ADDRESS names, as it is now; else of this machine, for which Ray is not started.

    Args:
        gpus: whether this machine's GPUs matter; counting them takes seconds.

    Raises:
        UserError: the cluster cannot be joined.
    """
    if cluster.address() is None:
        return _machine(gpus)
    cluster.connect()
    nodes = ray.nodes()
    has = ray.cluster_resources()
    # Of the memory Ray counts only what was free when it started: on this machine alone we know better.
    here = len(nodes) == 1 and nodes[0]["NodeManagerAddress"] == ray.util.get_node_ip_address()
    memory = get_system_memory() if here else has.get("memory", 0.0)
    return Capacity(has.get("CPU", 0.0), has.get("GPU", 0.0), memory)


def _machine(gpus: bool) -> Capacity:
    count = 0
    if gpus:
        import torch

        count = torch.cuda.device_count()
    return Capacity(get_num_cpus(override_docker_cpu_warning=True), count, get_system_memory())


def require(wanted: Sequence[Bundle], asked: str, wait: float) -> None:
    """See that these processes find room: on this machine at once, in a cluster within `wait` seconds.

    A cluster that grows on demand grows by being asked; in one that others use, their end is waited for.

    Args:
        wanted: what each of the processes takes.
        asked: the setting, and what it asks for: the beginning of the sentence for people.
        wait: seconds.

    Raises:
        UserError: there is no room; says what was asked and what there is.
    """
    if cluster.address() is None:
        cpus, gpus = (sum(bundle.get(kind, 0.0) for bundle in wanted) for kind in ("CPU", "GPU"))
        has = _machine(gpus > 0)
        if cpus > has.cpus or gpus > has.gpus:
            raise UserError(f"{asked}; this machine has {_words(has.cpus, has.gpus if gpus else None)}: ask for less")
        return
    cluster.connect()
    group = placement_group(list(wanted), strategy="PACK")
    try:
        _wait(group, asked, wait)
    finally:
        remove_placement_group(group)


def most(wanted: Sequence[Sequence[Bundle]], asked: str) -> int:
    """The first of these sets of processes for which there is room now; waits, for ever, until there is for the last.

    Args:
        wanted: what each process of a set takes; the best set comes first.
        asked: as in `require`, of the last set.

    Returns:
        Its place among them, from 0.
    """
    cluster.connect()
    while True:
        for place, bundles in enumerate(wanted):
            group = placement_group(list(bundles), strategy="PACK")
            try:
                if group.wait(timeout_seconds=_LOOK if place == len(wanted) - 1 else _PLACE):
                    return place
            finally:
                remove_placement_group(group)
        log.warning("waiting for room: %s; %s", asked, _cluster())


def _wait(group: "ray.util.placement_group.PlacementGroup", asked: str, wait: float) -> None:
    end = time.monotonic() + wait
    while not group.wait(timeout_seconds=max(1, round(min(_LOOK, end - time.monotonic())))):
        if time.monotonic() >= end:
            raise UserError(
                f"{asked}; {_cluster()}: ask for less, or raise wait ({wait:g} seconds) "
                "where the cluster is busy or grows on demand"
            )
        log.info("waiting for room: %s; %s", asked, _cluster())


def _cluster() -> str:
    has, free = ray.cluster_resources(), ray.available_resources()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = [max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")]
    return (
        f"the cluster has {_words(has.get('CPU', 0.0), has.get('GPU', 0.0))}, at most {_words(*largest)} on one "
        f"node, and {_words(free.get('CPU', 0.0), free.get('GPU', 0.0))} are free"
    )


def _words(cpus: float, gpus: float | None) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus is not None else "")
