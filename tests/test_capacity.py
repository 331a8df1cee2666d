"""What a command asks for against what there is: on this machine, and in a cluster that is joined."""

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group

from enpar import annotate, cluster
from enpar.capacity import capacity, most, require
from enpar.config import AnnotateJob
from enpar.errors import UserError
from enpar.sweep.capacity import find_room
from enpar.sweep.plan import plan
from enpar.sweep.settings import TuneJob
from enpar.sweep.space import draw

CPUS, MEMORY = int(capacity().cpus), capacity().memory
ONE = {"CPU": 1.0}


@pytest.fixture
def joined(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if RAY_ADDRESS had named the Ray of the tests."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


@pytest.fixture
def taken(joined: None) -> Iterator["ray.util.placement_group.PlacementGroup"]:
    """Somebody else has all CPUs."""
    group = placement_group([{"CPU": CPUS}])
    assert group.wait(30)
    yield group
    remove_placement_group(group)


def refusal(wanted: list[dict[str, float]], wait: float) -> str:
    with pytest.raises(UserError) as error:
        require(wanted, "num_workers: so many", wait)
    return str(error.value)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_this_machine_has_what_it_has():
    require([ONE] * CPUS, "", 0)
    assert refusal([ONE] * CPUS + [{"CPU": 0.5}], 0) == (
        f"num_workers: so many; this machine has {CPUS} CPUs: ask for less"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs")
def test_this_machine_has_no_gpu():
    assert "this machine has" in (said := refusal([{"CPU": 0.1, "GPU": 1}], 0)) and "and 0 GPUs" in said


def test_a_cluster_of_this_machine_has_what_the_machine_has(joined: None):
    assert capacity().cpus == CPUS
    assert capacity().memory == MEMORY
    require([ONE] * CPUS, "", 30)
    require([ONE] * CPUS, "", 30)  # what was tried is given back


def test_the_most_is_taken_for_which_there_is_room(joined: None):
    assert most([[ONE] * (CPUS + 1), [ONE] * CPUS, [ONE]], "") == 1
    assert most([[ONE] * CPUS, [ONE]], "") == 0


def test_what_a_cluster_never_has_is_said_after_the_wait(joined: None):
    said = refusal([{"CPU": CPUS + 1.0}], 1)
    assert said.startswith(f"num_workers: so many; the cluster has {CPUS} CPUs and 0 GPUs, at most {CPUS} CPUs and ")
    assert f"{CPUS} CPUs and 0 GPUs are free: ask for less, or raise wait (1 seconds)" in said


def test_a_busy_cluster_is_said_to_be_busy(taken: object):
    assert "0 CPUs and 0 GPUs are free" in refusal([ONE], 1)


@pytest.mark.parametrize("ask", [lambda wanted: require(wanted, "", 60), lambda wanted: most([wanted], "")])
def test_what_gets_free_is_taken(
    taken: "ray.util.placement_group.PlacementGroup", ask: Callable[[list[dict[str, float]]], object]
):
    waiting = threading.Thread(target=ask, args=([ONE] * CPUS,), daemon=True)
    waiting.start()
    remove_placement_group(taken)
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_sweep_asks_for_room_for_one_pretraining_before_anything_starts(joined: None, tmp_path: Path):
    for workers, there in ((1, True), (4 * CPUS, False)):
        pretrain = {"data": "d", "train": {"steps": 1}, "scaling": {"num_workers": workers}, "wait": 1}
        space = {"pretrain.seed": {"grid": [1, 2]}}
        base = {"pretrain": pretrain, "finetune": {"corpus": {"train": "t", "dev": "d"}}}
        job = TuneJob(base=base, space=space, output=tmp_path)
        trials = [plan(job, drawn, tmp_path) for drawn in draw(job)]
        with nullcontext() if there else pytest.raises(UserError, match=f"scaling: {4 * CPUS} workers .* raise wait"):
            find_room(trials)


def test_annotating_with_more_workers_than_cpus_is_refused_and_writes_nothing(tmp_path: Path):
    (tmp_path / "in.jsonl").write_text('{"text": "Ada met Bob."}\n' * 2 * CPUS)
    asked = {"documents_per_part": 1, "num_workers": 2 * CPUS, "tracking": {"enabled": False}}
    with pytest.raises(UserError, match=f"num_workers: {2 * CPUS} workers are {2 * CPUS} CPUs; this machine has"):
        annotate.run(AnnotateJob(input=str(tmp_path / "in.jsonl"), output=tmp_path / "out", **asked))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001", "head"])
def test_an_address_of_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, given: str):
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(UserError, match=f"RAY_ADDRESS: {given}: expected the head's host:port"):
        cluster.address()
