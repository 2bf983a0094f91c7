"""Reward functions that raise, hang or die: called again, then named; each fault is real, in a process of its own."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from rlx.errors import UserError
from rlx.rollout import rewards
from rlx.rollout.calls import Caller, Calls
from rlx.rollout.tasks.example import Example
from rlx.rollout.verifiers import Scorer
from rlx.rollout.worker import Failure, Worker

EXAMPLE = Example("2+3", "5", {"place": "row 7 of the data"})
HERE = f"{__name__}:"
NOW = Calls(pause_s=0.0)


def counted(response, example, *, folder, fails):
    """Fails in the first calls, in the way that the response says; the calls are counted in a file."""
    path = Path(folder) / "calls"
    path.touch()
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size <= fails:
        if response == "raise":
            raise ConnectionError("the judge is away\nfor a while")
        if response == "hang":
            time.sleep(3600)
        if response == "die":
            os.kill(os.getpid(), 9)
        if response == "exit":
            os._exit(3)
    print("a function may print")
    return len(example.info) / 4


def calls_of(folder):
    return (folder / "calls").stat().st_size


def test_a_function_that_recovers_costs_nothing(tmp_path):
    options = {"folder": str(tmp_path), "fails": 2}
    scorer = Scorer(HERE + "counted", options=options, calls=NOW)
    assert scorer([["raise"]], [EXAMPLE]).tolist() == [[0.25]]
    assert calls_of(tmp_path) == 3 and scorer.failures == 0


def test_one_that_does_not_ends_the_run_by_name(tmp_path):
    scorer = Scorer(HERE + "counted", options={"folder": str(tmp_path), "fails": 99}, calls=NOW)
    message = (
        r"verifier '.*calls_test:counted' raised ConnectionError: the judge is away \(call 3 of 3\), at row 7 of the "
        r"data, response 1: prompt '2\+3', response 'raise'\. Mend it, .*on_reward_error='zero'\.$"
    )
    with pytest.raises(UserError, match=message):
        scorer([["5", "raise"]], [EXAMPLE])


def test_or_costs_the_response_its_reward(tmp_path):
    scorer = Scorer(HERE + "counted", options={"folder": str(tmp_path), "fails": 99}, calls=NOW._replace(stop=False))
    with pytest.warns(RuntimeWarning, match=r"raised ConnectionError.*at row 7 of the data, response 0"):
        assert scorer([["raise", "5"]], [EXAMPLE]).tolist() == [[0, 0.25]]
    assert scorer.failures == 1


def test_pauses_grow(monkeypatch, tmp_path):
    waited = []
    monkeypatch.setattr("rlx.rollout.calls.time.sleep", waited.append)
    options = {"folder": str(tmp_path), "fails": 99}
    with pytest.raises(Failure, match=r"\(call 4 of 4\)"):
        Caller(HERE + "counted", counted, options, Calls(retries=3, pause_s=0.5))("raise", EXAMPLE)
    assert waited == [0.5, 1.0, 2.0]


def test_hangs_and_deaths_are_survived_in_a_process_of_its_own(tmp_path):
    """One worker lives through all of it: every failure ends its process, and the next call starts another one."""
    options = {"folder": str(tmp_path), "fails": 1}
    calls = Calls(retries=1, pause_s=0.0, timeout_s=1.0)
    caller = Caller(HERE + "counted", counted, options, calls)
    for response in ("hang", "die"):
        assert caller(response, EXAMPLE) == 0.25
        assert calls_of(tmp_path) == 2, "the call that failed, and the one that did not"
        (tmp_path / "calls").unlink()
    assert caller.worker is not None
    caller.worker.close()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ("hang", r"gave no answer within 0.5 s \(call 1 of 1\)"),
        ("exit", r"ended its process \(exit code 3\)"),
        ("raise", r"raised ConnectionError: the judge is away \(call"),
    ],
)
def test_what_happened_in_the_process_is_told(tmp_path, response, message):
    options = {"folder": str(tmp_path), "fails": 99}
    caller = Caller(HERE + "counted", counted, options, Calls(retries=0, timeout_s=0.5))
    with pytest.raises(Failure, match=message):
        caller(response, EXAMPLE)
    assert caller.worker is not None
    caller.worker.close()


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(Failure, match="an example that JSON cannot hold .*leave timeout_s out"):
        Worker(HERE + "counted", {}, 1.0)("5", Example("?", "5", {"array": np.zeros(2)}))


def test_built_in_verifiers_are_called_as_ever():
    reward = rewards.build({"components": {"right": "exact", "short": {"penalty": "linear"}}}, calls=NOW)
    assert reward.parts["right"].score.call.func.__name__ == "exact"
    assert reward([["5"]], [EXAMPLE], np.ones((1, 1), int)).report()["reward/failures"] == 0
