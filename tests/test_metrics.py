import json
import logging
import time
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enpar import metrics as module
from enpar.metrics import Progress, append_metrics, read_metrics, truncate_metrics


@pytest.fixture(autouse=True)
def _quick(monkeypatch, caplog):
    monkeypatch.setattr(module, "_POLL", 0.02)
    caplog.set_level(logging.INFO, logger="enpar")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@contextmanager
def progress(path, stage="pretrain", total_steps=None):
    follower = Progress(path, stage, total_steps)
    follower.start()
    yield
    follower.end("FINISHED")


def append_at(path, at, step, **measured):
    """A line that was written at this second; `__` is `/`."""
    row = {"step": step, "time": 1000.0 + at, **{name.replace("__", "/"): value for name, value in measured.items()}}
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


# The file of numbers

ROWS = st.lists(
    st.tuples(
        st.integers(0, 50),
        st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False)).filter(
            lambda m: not {"step", "time"} & set(m)
        ),
    ),
    max_size=8,
)


@given(ROWS, st.integers(-1, 51), st.binary(max_size=9).filter(lambda b: b"\n" not in b))
def test_lines_survive_truncation_and_a_half_written_end(tmp_path_factory, rows, step, half):
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    for at, metrics in rows:
        append_metrics(path, at, metrics)
    with path.open("ab") as file:
        file.write(b'{"step": ' + half)
    assert [(row.pop("step"), row) for row in read_metrics(path) if row.pop("time")] == rows
    truncate_metrics(path, step)
    kept = [row for row in rows if row[0] <= step]
    assert [(row.pop("step"), row) for row in read_metrics(path) if row.pop("time")] == kept
    assert path.read_bytes().count(b"\n") == len(kept)


def test_a_half_written_line_does_not_swallow_the_next_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "ti')
    append_metrics(path, 2, {"loss": 1.0})
    assert [row["step"] for row in read_metrics(path)] == [2]


def test_no_file_has_no_lines(tmp_path):
    truncate_metrics(tmp_path / "none.jsonl", 3)
    assert read_metrics(tmp_path / "none.jsonl") == []
    assert list(tmp_path.iterdir()) == []


# Progress


STEP = {
    "pretrain/loss/met": 1.0212,
    "pretrain/loss/mep": 5.9,
    "pretrain/loss/total": 7.314,
    "pretrain/accuracy/met": 0.61,
    "pretrain/accuracy/swap": 0.8125,
    "pretrain/instances_per_second": 12345.6,
    "pretrain/views_per_second": 113.4,
    "pretrain/learning_rate": 5e-5,
}
HELDOUT = {"heldout/loss/met": 2.0, "heldout/loss/total": float("nan"), "heldout/accuracy/met": 0.5}


def test_progress_shows_new_lines_in_groups(path, caplog):
    append_metrics(path, 10, STEP)
    with progress(path, total_steps=40):
        append_metrics(path, 20, STEP)
        append_metrics(path, 40, STEP | HELDOUT)
    said = "loss 7.31 (met 1.02  mep 5.9)  accuracy met 0.61  swap 0.812  113 views/s"
    assert caplog.messages == [
        f"step 20/40  {said}",
        f"step 40/40  {said}",
        "step 40/40  heldout  loss nan (met 2)  accuracy met 0.5",
    ]


def test_of_scores_progress_shows_the_f1s(path, caplog):
    scores = {f"dev/{name}/{key}": 0.5 for name in ("entity", "relation_exact") for key in ("precision", "f1")}
    with progress(path, "finetune"):
        append_metrics(path, 7, {"finetune/loss/span": 1.0, "finetune/sentences_per_second": 1999.9} | scores)
        append_metrics(path, 8, scores)
    evaluation = "dev  f1 entity 0.5  relation_exact 0.5"
    assert caplog.messages == [
        "step 7  loss span 1  2,000 sentences/s",
        f"step 7  {evaluation}",
        f"step 8  {evaluation}",
    ]


def test_a_step_every_five_seconds_is_shown_and_the_first_and_the_last_and_evaluations(path, caplog):
    with progress(path):
        append_at(path, 0.0, 0, dev__loss=1.0)
        for step in range(1, 10):
            append_at(path, step, step, pretrain__loss=step)
        append_at(path, 10, 10, pretrain__loss=10, dev__loss=2.0)
        for step in range(11, 14):
            append_at(path, step, step, pretrain__loss=step)
    steps = [message for message in caplog.messages if "dev" not in message]
    assert steps == [f"step {step}  loss {step}" for step in (1, 6, 10, 13)]
    assert [message for message in caplog.messages if "dev" in message] == [
        "step 0  dev  loss 1",
        "step 10  dev  loss 2",
    ]


def test_the_last_step_of_a_known_number_is_shown_once(path, caplog):
    with progress(path, total_steps=3):
        for step in (1, 2, 3):
            append_at(path, step, step)
    assert caplog.messages == ["step 1/3", "step 3/3"]


def test_time_left_is_counted_from_this_processs_first_step(path, caplog):
    append_at(path, 0, 9)
    with progress(path, total_steps=100):
        append_at(path, 100, 9, heldout__loss=1.0)  # an evaluation is no step
        append_at(path, 900, 10)
        append_at(path, 910, 20)
        append_at(path, 1130, 40)
    assert caplog.messages[1:] == ["step 10/100", "step 20/100  80 s left", "step 40/100  8 min left"]


def test_steps_done_again_after_a_break_are_shown_again(path, caplog):
    with progress(path):
        append_metrics(path, 1, {})
        append_metrics(path, 2, {"dev/loss": 1.0, "pretrain/loss": 1.0})
        append_metrics(path, 3, {})
        assert any(len(caplog.messages) == 3 or time.sleep(0.02) for _ in range(3000))
        truncate_metrics(path, 1)
        append_metrics(path, 2, {})
    assert caplog.messages == ["step 1", "step 2  loss 1", "step 2  dev  loss 1", "step 2"]
