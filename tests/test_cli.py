import json
import subprocess
import sys

import pytest

from enpar import __version__
from enpar.verbs import VERBS


def enpar(*arguments, cwd=None):
    command = [sys.executable, "-m", "enpar", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["fetch", "name=wiki-leads", "output=o", "sorce=x"], ["sorce: no such setting", "source"]),
        (["pretrain", "data=d", "output=o", "train.steps=many"], ["train.steps: "]),
        (["pretrain", "data=d", "output=o", "train.steps=3", "deepspeed=3"], ["deepspeed: should be a ZeRO stage"]),
        (["fetch", "name=nowhere", "output=o"], ["name: ", "wiki-leads"]),
        (["fetch", "output=o"], ["name: must be given"]),
        (["fetch", "job.yaml"], ["job.yaml: No such file"]),
        (["fetch", "name=wiki-leads", "output=o", "source=none.jsonl"], ["none.jsonl: No such file"]),
    ],
)
def test_the_users_mistakes_end_with_2_and_one_line(tmp_path, arguments, parts):
    done = enpar(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("enpar: ")
    assert len(done.stderr.splitlines()) == 1
    assert all(part in done.stderr for part in parts), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_result_is_the_last_line_of_stdout(tmp_path):
    done = enpar("fetch", "name=sample-corpus", f"output={tmp_path / 'o'}")
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["path"] == str(tmp_path / "o")
    assert "Apache-2.0" in done.stderr
    again = enpar("fetch", "name=sample-corpus", f"output={tmp_path / 'o'}")
    assert (again.returncode, again.stdout) == (0, done.stdout)


def test_no_or_an_unknown_verb_ends_with_2_and_lists_the_verbs():
    for arguments in ([], ["frobnicate"]):
        done = enpar(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert "pretrain" in done.stderr


def test_help_lists_verbs_and_settings():
    done = enpar("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)
    done = enpar("pretrain", "--help")
    assert done.returncode == 0
    for part in ("train.batch_size (512)", "data (must be given)", "views.n_s", "Updates; give this or `epochs`."):
        assert part in done.stdout
    assert enpar("--version").stdout.strip() == f"enpar {__version__}"
