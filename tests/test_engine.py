"""DeepSpeed's state: any number of workers at any ZeRO stage go on from what any other wrote."""

import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from enpar.config import Training
from enpar.training.engine import DeepSpeedEngine, Engine, TorchEngine
from enpar.training.optimizer import build_optimizer, build_schedule

STAGES = (0, 1, 2)
BEFORE, AFTER = 2, 3  # updates before the break and after it


def begin(weights: Path | None = None):
    """A model whose parameters no two workers can share without cutting one, its optimizer and schedule."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 3), torch.nn.Linear(3, 1))
    model[1].weight.requires_grad_(False)
    if weights:
        model.load_state_dict(load_file(weights))
    rates = {1e-2: model[:2].parameters(), 3e-2: model[2].parameters()}
    optimizer = build_optimizer(rates, Training(weight_decay=0.1))
    return model, optimizer, build_schedule(optimizer, 0.4, BEFORE + AFTER)


def train(engine: Engine, steps: range) -> None:
    """Updates of four micro-batches, shared by the workers."""
    for step in steps:
        batches = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))[engine.rank :: engine.world]
        for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
            engine.backward(engine.module(batch).pow(2).sum(), last=not left)
        engine.step()


def deepspeed(stage: int, weights: Path | None = None) -> DeepSpeedEngine:
    return DeepSpeedEngine(*begin(weights), 1.0, stage)


def write(folder: Path, name: str, engine: Engine) -> None:
    if engine.rank == 0:
        save_file(engine.module.state_dict(), folder / f"{name}.safetensors")


def break_off(folder: Path) -> None:
    """Write a state at each stage, and where each would have ended."""
    for stage in STAGES:
        engine = deepspeed(stage)
        name = f"{engine.world} workers, stage {stage}"
        train(engine, range(BEFORE))
        (folder / name).mkdir(exist_ok=True)
        engine.save(folder / name)
        write(folder, name, engine)
        train(engine, range(BEFORE, BEFORE + AFTER))
        write(folder, f"{name}, unbroken", engine)


def go_on(folder: Path) -> None:
    """From each state, at each stage."""
    for state, stage in product(sorted(path for path in folder.iterdir() if path.is_dir()), STAGES):
        engine = deepspeed(stage, state.with_name(f"{state.name}.safetensors"))
        assert engine.load(state) == BEFORE
        train(engine, range(BEFORE, BEFORE + AFTER))
        write(folder, f"{state.name}, then {engine.world} workers, stage {stage}", engine)


def run(act: str, folder: Path, world: int) -> None:
    """Have `world` processes, in each of which torch.distributed is of one use, do that."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(world):
        names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
        environment = {**os.environ, **{name: str(value) for name, value in names.items()}, "OMP_NUM_THREADS": "1"}
        arguments = [sys.executable, __file__, act, str(folder)]
        ranks.append(subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=240)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0] * world, "\n".join(said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each state and the weights that each combination ends with."""
    folder = tmp_path_factory.mktemp("states")
    for act, world in product(("break_off", "go_on"), (1, 2)):
        run(act, folder, world)
    return folder


def ends(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world", [1, 2])
def test_whoever_goes_on_ends_where_an_unbroken_run_ends(folder: Path, world: int, stage: int):
    engine = TorchEngine(*begin(), 1.0)
    train(engine, range(BEFORE + AFTER))
    unbroken = {name: value.detach() for name, value in engine.module.state_dict().items()}
    before = begin()[0].state_dict()
    assert not any(torch.allclose(before[name], unbroken[name], atol=1e-3) for name in unbroken if name != "1.weight")
    state = f"{world} workers, stage {stage}"
    for name in [f"{state}, then {w} workers, stage {s}" for w, s in product((1, 2), STAGES)] + [f"{state}, unbroken"]:
        torch.testing.assert_close(ends(folder, name), unbroken, atol=1e-6, rtol=1e-5)
    # The same workers at the same stage: to the last bit.
    same = ends(folder, f"{state}, then {world} workers, stage {stage}")
    torch.testing.assert_close(same, ends(folder, f"{state}, unbroken"), atol=0, rtol=0)


def test_nothing_in_a_state_can_carry_code(folder: Path):
    assert {file.name for state in folder.iterdir() if state.is_dir() for file in state.iterdir()} == {
        "optimizer.safetensors"
    }


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    {"break_off": break_off, "go_on": go_on}[sys.argv[1]](Path(sys.argv[2]))
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads now and then abort a process that ends by itself
