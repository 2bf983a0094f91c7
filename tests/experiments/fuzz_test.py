"""Inputs of every kind are accepted or refused in one line; a reader that fails, hangs or dies is found and named."""

import os
import time
from pathlib import Path

import pytest

from experiments import fuzz, fuzz_pool, fuzz_targets
from experiments.fuzz_pool import Job, Limits
from rlx.errors import UserError


def test_a_thousand_cases_have_no_finding(tmp_path, capsys):
    assert fuzz.main(["--count=1000", "--seed=7", f"--out={tmp_path / 'found'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:]] == list(fuzz_targets.KINDS)
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize("kind", fuzz_targets.KINDS)
def test_a_case_is_a_function_of_its_name_and_the_seeds_are_valid(kind, tmp_path):
    assert fuzz_targets.case(kind, 3, 5) == fuzz_targets.case(kind, 3, 5)
    assert len({fuzz_targets.case(kind, seed, 0) for seed in range(8)}) > 4
    outcomes = []
    for variant, contents in fuzz_targets.seeds_of(kind).items():
        whole = contents if kind != "overrides" else [b""]
        outcomes += [fuzz_targets.judge(kind, variant, content, tmp_path) for content in whole]
    said = [message for outcome, message in outcomes if outcome != "accepted"]
    assert not [message for message in said if kind != "templates" or "chat template" not in message]


def reader(content):
    """What goes wrong, by the words of the case."""
    if content == b"fails":
        raise KeyError("not\nfor users")
    if content == b"says too much":
        raise UserError("one\nTraceback")
    if content == b"hangs":
        while True:
            time.process_time()
    if content == b"dies":
        os.abort()
    if content == b"grows":
        bytearray(2**40)


def test_what_goes_wrong_is_found(tmp_path, capsys, monkeypatch):
    """The worker's own loop, with a reader that does as it is told."""
    monkeypatch.setitem(
        fuzz_targets.KINDS, "rows", (1, lambda variant, content, folder: reader(content), dict, None, ())
    )
    limits, job = Limits(0.3, 2**28), Job("rows", 0, 0, 1)
    found = {}
    for words in (b"works", b"fails", b"says too much", b"hangs", b"grows"):
        monkeypatch.setattr(fuzz_targets, "case", lambda *name, words=words: ("pairs", words))
        before = fuzz_pool.signal.signal(fuzz_pool.signal.SIGPROF, fuzz_pool._alarm)
        try:
            found[words] = fuzz_pool._case(job, 0, tmp_path, limits)["outcome"]
        finally:
            fuzz_pool.signal.signal(fuzz_pool.signal.SIGPROF, before)
    assert found.pop(b"grows") == "MemoryError"
    assert list(found.values()) == ["accepted", "KeyError", "unreadable", "hang"]


def test_findings_are_told_saved_and_read_again(tmp_path, capsys):
    run = fuzz.Run([Job("rows", 0, 0, 1)], Limits(1.0, 2**28), tmp_path / "found")
    run._take(Job("rows", 0, 0, 1), {"number": 0, "outcome": "crash", "message": "exit code -6", "seconds": 0.5})
    assert "finding: crash, kind rows, seed 0" in capsys.readouterr().out
    (saved,) = (tmp_path / "found").iterdir()
    assert saved.read_bytes() == fuzz_targets.case("rows", 0, 0)[1]
    assert run.tallies["rows"].row()["findings"] == 1
    assert fuzz.main([f"--case={saved}"]) == 0
    assert capsys.readouterr().out.split(":")[0].strip() in ("accepted", "refused")


def test_a_worker_that_dies_is_replaced(monkeypatch):
    worker = fuzz_pool.Worker(Limits(5.0, 2**31))
    try:
        worker._process.kill()
        answers = list(worker.run(Job("tokenizers", 0, 0, 3)))
    finally:
        worker.close()
    assert [answer["outcome"] for answer in answers if "outcome" in answer][0] == "crash"
    assert [answer["number"] for answer in answers if "number" in answer] == [0, 1, 2]
    assert answers[-1].keys() == {"peak"}


def test_unknown_kinds_are_named(capsys):
    with pytest.raises(SystemExit):
        fuzz.main(["--kinds=row"])
    assert "the kinds are rows" in capsys.readouterr().err
    assert Path(fuzz.__file__).exists()
