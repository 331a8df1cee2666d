"""Corpus files that a test writes, and what is said of one that cannot be read."""

import json

import pytest

from enpar.corpora import load
from enpar.errors import UserError


def write(path, *items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def refused(format, path):
    with pytest.raises(UserError) as error:
        load(format, path)
    assert "\n" not in str(error.value)
    return str(error.value)
