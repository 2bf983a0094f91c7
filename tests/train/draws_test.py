"""What draws: an engine of the user's own, texts that end a response, and mistakes in both."""

import numpy as np
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.rollout import engine
from rlx.train.assemble import assemble
from rlx.train.main import train

CALLS = []


def recording(model, sampling, *, mesh=None):
    """An engine that writes down what it is asked for."""
    own = engine(model, sampling, mesh=mesh)

    def draw(params, tokens, valid, *, group, key):
        CALLS.append((len(tokens), group, sampling.temperature))
        return own(params, tokens, valid, group=group, key=key)

    return draw


def config(**rollout):
    found = rl.get_config("grpo,smoke").to_dict()
    found["sft"] |= {"steps": 1, "until_loss": None}
    found["rl"] |= {"steps": 2, "eval_every": 0}
    found["rl"]["rollout"] |= rollout
    return found


@pytest.mark.usefixtures("one_model")
def test_another_engine_stands_in_to_the_same_numbers(tmp_path):
    train(config(), tmp_path / "own")
    CALLS.clear()
    train(config(engine=f"{__name__}:recording"), tmp_path / "other")
    assert read_rows(tmp_path / "own" / "metrics.jsonl") == read_rows(tmp_path / "other" / "metrics.jsonl")
    assert CALLS[:2] == [(4, 4, 1.0)] * 2 and CALLS[2] == (4, 1, 0.0)  # two steps, and the evaluation at the end


@pytest.mark.usefixtures("one_model")
def test_a_text_ends_a_response(tmp_path):
    texts = [str(digit) for digit in range(10)]
    rows = {}
    for stop in ((), texts):
        folder = tmp_path / str(len(stop))
        train(config(stop=stop), folder)
        found = read_rows(folder / "metrics.jsonl")
        rows[len(stop)] = next(row for row in found if row["stage"] == "rl" and row["split"] == "train")
    assert rows[10]["finished"] > rows[0]["finished"] and rows[10]["length"] < rows[0]["length"]
    assert np.isfinite(rows[10]["loss"])


@pytest.mark.usefixtures("one_model")
def test_shorter_prompts_are_drawn_from_in_their_bucket_to_the_same_numbers(tmp_path):
    rows = []
    for i, buckets in enumerate(((), (3, 7))):  # BOS and "dd+dd=" are 7 tokens, of 8
        train(config(buckets=buckets), tmp_path / str(i))
        rows.append(read_rows(tmp_path / str(i) / "metrics.jsonl"))
    assert [row["reward"] for row in rows[0] if "reward" in row] == [
        row["reward"] for row in rows[1] if "reward" in row
    ]
    for ours, theirs in zip(*rows, strict=True):
        for name, value in ours.items():
            assert value == theirs[name] or abs(value - theirs[name]) < 1e-5 * max(1, abs(value)), name


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        ({"engine": "rlx.rollout:enjine"}, r"has no function 'enjine'\. Did you mean 'engine'"),
        ({"engine": "sampler"}, r"unknown engine 'sampler'; engines are \[\] or 'module:function'"),
        ({"stop": "\n"}, r"config\.rl\.rollout\.stop holds texts, \('\\n',\) for example, not '\\n'"),
        (
            {"buckets": (8, 0)},
            r"config\.rl\.rollout\.buckets holds lengths of prompts, \(64, 128\) for example, not \(8, 0\)",
        ),
        ({"stop": ("",)}, r"config\.rl\.rollout\.stop holds texts"),
        (
            {"engine": f"{__name__}:recording", "budget": {"n_low": 1}},
            r"config\.rl\.rollout\.budget is drawn by the sampler of rlx alone: .* engine='.*:recording'",
        ),
    ],
)
def test_mistakes_are_named(rollout, message):
    with pytest.raises(UserError, match=message):
        assemble(config(**rollout))
