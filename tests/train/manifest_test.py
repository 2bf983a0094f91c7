"""A manifest that somebody has written by hand neither leads out of its folder nor breaks the reader."""

import json

import pytest

from rlx.train import manifest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "manifest.json cannot be read"),
        ("[1]", "manifest.json cannot be read"),
        (json.dumps({"files": {"a": [float("inf"), None]}}), "manifest.json cannot be read"),
        (json.dumps({"files": {"../a": [0, 0]}}), "names a file that is not in the folder: '../a'"),
        (json.dumps({"files": {"/dev/zero": [0, 0]}}), "names a file that is not in the folder: '/dev/zero'"),
        (json.dumps({"files": {"two\nlines": [0, 0]}}), r"two\nlines is missing"),
        (json.dumps({"files": {"\ud800": [0, 0]}}), r"\ud800 is missing"),
        (json.dumps({"files": {"a" * 5000: [0, 0]}}), "names a file that is not in the folder"),
    ],
    ids=range(8),
)
def test_what_a_stranger_wrote(tmp_path, text, problem):
    (tmp_path / manifest.NAME).write_text(text)
    found = manifest.problem(tmp_path)
    assert problem in found and len(found) < 400 and "\n" not in found
