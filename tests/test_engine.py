"""DeepSpeed's state: it continues exactly, and nothing in it is run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# torch.distributed is of one use in a process, so each case has a process of its own.
SETUP = """
import sys
from pathlib import Path
import torch
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
from enpar.config import Training
from enpar.training.engine import DeepSpeedEngine
from enpar.training.optimizer import build_optimizer, build_schedule

def begin(stage):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer({1e-2: model.parameters()}, Training())
    return DeepSpeedEngine(model, optimizer, build_schedule(optimizer, 0.1, 10), 1.0, stage)

def update(engine):
    for scale in (1.0, 2.0):
        engine.backward(engine.module(torch.full((1, 3), scale)).sum(), last=scale == 2.0)
    engine.step()

folder, stage = Path(sys.argv[1]), int(sys.argv[2])
engine = begin(stage)
update(engine)
engine.save(folder)
"""
CONTINUED = """
other = begin(stage)
other.load(folder)
for each in (engine, other):
    update(each)
assert torch.equal(engine.module.weight, other.module.weight)
assert engine.module.weight.abs().sum() > 0
"""
# What an attacker would put in place of the state: unpickling it would make the file.
HARMFUL = """
import os
class Harmful:
    def __reduce__(self):
        return os.mkdir, (str(folder / "run"),)
torch.save({"module": Harmful()}, folder / "state" / "mp_rank_00_model_states.pt")
try:
    begin(stage).load(folder)
except Exception as error:
    assert "weights_only" in str(error).lower() or "Unpickling" in type(error).__name__, error
assert not (folder / "run").exists()
"""


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("then", [CONTINUED, HARMFUL], ids=["continued", "harmful"])
def test_state(tmp_path: Path, stage: int, then: str):
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}
    arguments = [sys.executable, "-c", SETUP + then, str(tmp_path), str(stage)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
