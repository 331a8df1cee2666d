import json
from pathlib import Path

import pytest

from enpar.errors import UserError
from enpar.output import Output
from enpar.storage import atomic

SETTINGS = {"seed": 1, "train": {"steps": 3}, "overwrite": False, "tracking": {"enabled": True}}


def changed(**settings):
    return SETTINGS | settings


def test_a_folder_is_claimed_continued_and_returned(tmp_path):
    output = Output(tmp_path / "deep" / "run", "pretrain", SETTINGS)
    assert output.claim() is None
    (output.path / "half").write_text("kept")
    assert not (output.path / "_SUCCESS").exists()

    assert Output(output.path, "pretrain", SETTINGS).claim() is None  # broken off and begun again
    assert (output.path / "half").read_text() == "kept"

    output.finish({"steps": 3})
    assert Output(output.path, "pretrain", SETTINGS).claim() == {"steps": 3}
    manifest = json.loads((output.path / "manifest.json").read_text())
    recorded = {"seed": 1, "train": {"steps": 3}}  # what may change between runs, and may hold a password, is not
    assert (manifest["stage"], manifest["settings"], manifest["result"]) == ("pretrain", recorded, {"steps": 3})
    assert manifest["versions"]["torch"]


def test_check_changes_nothing(tmp_path):
    Output(tmp_path / "run", "pretrain", SETTINGS).check()
    assert not (tmp_path / "run").exists()


def test_overwrite_replaces_a_run_and_its_files(tmp_path):
    output = Output(tmp_path, "pretrain", SETTINGS)
    output.claim()
    (tmp_path / "model").write_text("old")
    output.finish({"steps": 3})
    assert Output(tmp_path, "pretrain", changed(seed=2)).claim(overwrite=True) is None
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "_SUCCESS").exists()


@pytest.mark.parametrize(
    ("settings", "part"),
    [(changed(seed=2), "seed: 1 → 2"), (changed(train={"steps": 4}), "train.steps: 3 → 4"), ({}, "seed: 1 → None")],
)
@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_by_name(tmp_path, settings, part, finished):
    output = Output(tmp_path, "pretrain", SETTINGS)
    output.claim()
    if finished:
        output.finish({})
    with pytest.raises(UserError, match="overwrite=true") as error:
        Output(tmp_path, "pretrain", settings).claim()
    assert part in str(error.value)


@pytest.mark.parametrize("more", [{"tracking": {"enabled": False}}, {"scaling": {"num_workers": 3}}, {"wait": 9.0}])
def test_where_a_run_is_tracked_and_who_does_it_may_change(tmp_path, more):
    Output(tmp_path, "pretrain", changed(scaling={"num_workers": 2, "use_gpu": True}, wait=30.0)).claim()
    Output(tmp_path, "pretrain", changed(**more)).check()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ["holiday.jpg", "manifest.json"])
def test_a_foreign_folder_is_never_touched(tmp_path, overwrite, content):
    (tmp_path / content).write_text("mine")
    with pytest.raises(UserError, match="something else"):
        Output(tmp_path, "pretrain", SETTINGS).claim(overwrite)
    assert (tmp_path / content).read_text() == "mine"


def test_the_output_of_another_stage_is_never_touched(tmp_path):
    Output(tmp_path, "annotate", SETTINGS).claim()
    with pytest.raises(UserError, match="the output of `enpar annotate`"):
        Output(tmp_path, "pretrain", SETTINGS).claim(overwrite=True)
    assert (tmp_path / "manifest.json").exists()


def test_a_file_is_no_output(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder"):
        Output(tmp_path / "x", "pretrain", SETTINGS).claim()


def test_atomic_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(IsADirectoryError), atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        temporary.parent.read_text()  # breaks off
    assert path.read_text() == "old"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(IsADirectoryError), atomic(tmp_path / "folder") as temporary:  # noqa: PT012
        temporary.mkdir()
        (temporary / "y").touch()
        temporary.read_text()  # breaks off
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_nothing_that_is_read_is_in_what_may_be_replaced(tmp_path):
    output = Output(tmp_path / "run", "finetune", SETTINGS)
    output.claim()
    (tmp_path / "run" / "encoder").mkdir()
    output.apart_from(init="bert-base-cased", data=tmp_path, test=None)
    for inside in (tmp_path / "run", tmp_path / "run" / "encoder"):
        with pytest.raises(UserError, match="which init reads; name another folder"):
            output.apart_from(init=inside)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"output: .*file/run: Not a directory"):
        Output(tmp_path / "file" / "run", "finetune", SETTINGS).claim()


def test_in_a_ray_job_only_an_absolute_folder_lasts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Output(Path("runs/a"), "pretrain", SETTINGS).check()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    Output(tmp_path / "runs" / "a", "pretrain", SETTINGS).check()
    with pytest.raises(UserError, match=r"output: runs/a would be lost .* output=\$PWD/runs/a"):
        Output(Path("runs/a"), "pretrain", SETTINGS).check()
