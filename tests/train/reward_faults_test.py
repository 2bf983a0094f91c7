"""A reward function that fails in a run: the run stops by its name, and goes on to the same numbers afterwards."""

from pathlib import Path
from typing import Any

import pytest

from configs import rl
from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.main import train
from rlx.train.rollout_settings import check

pytestmark = pytest.mark.usefixtures("one_model")


def digits(response, example, *, folder):
    """The share of digits; hangs while there is a file ``away`` and a checkpoint to go back to."""
    if (Path(folder) / "away").exists() and list(Path(folder).glob("*/checkpoints/00000001")):
        import time

        time.sleep(3600)
    return sum(letter.isdigit() for letter in response) / max(1, len(response))


def config(folder, **rollout):
    found: dict[str, Any] = {**rl.get_config("grpo,smoke").to_dict(), "stages": ("rl",)}
    del found["sft"]
    found["data"]["eval_fraction"] = 0.0
    found["rl"] |= {"steps": 2, "log_every": 1, "eval_every": 0, "checkpoint_every": 1}
    verifier = {"verifier": f"{__name__}:digits", "options": {"folder": str(folder)}}
    found["rl"]["rollout"] |= {"reward": {"components": {"digits": verifier}}, "retries": 0, **rollout}
    return found


def test_a_hanging_reward_function_stops_the_run_which_goes_on_once_it_is_mended(tmp_path):
    train(config(tmp_path), tmp_path / "whole")
    (tmp_path / "away").touch()
    slow = config(tmp_path, timeout_s=4.0)
    message = r"digits' gave no answer within 4 s \(call 1 of 1\), at .*, response 0: prompt .*, response .*\. Mend it"
    (tmp_path / "whole" / "checkpoints" / "00000001").rename(tmp_path / "hidden")
    with pytest.raises(UserError, match=message):
        train(slow, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("0*")] == ["00000001"]
    (tmp_path / "away").unlink()
    train(slow, tmp_path / "run")
    assert read_rows(tmp_path / "run" / "metrics.jsonl") == read_rows(tmp_path / "whole" / "metrics.jsonl")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"retries": -1}, "retries must be a whole number of at least 0"),
        ({"pause_s": -1}, "pause_s must be a number of at least 0, not -1"),
        ({"timeout_s": 0}, "timeout_s must be a number of more than 0, not 0"),
        ({"on_reward_error": "zer"}, "on_reward_error: unknown 'zer'. Did you mean 'zero'"),
    ],
)
def test_mistakes_are_named(keys, message):
    with pytest.raises(UserError, match=message):
        check({"max_new_tokens": 4, **keys}, {}, 4)
