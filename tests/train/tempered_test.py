"""Tempered responses in a batch: which, where, at what temperature; and what does not go with them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.assemble import assemble
from rlx.train.main import train
from rlx.train.responses import Collected
from rlx.train.tempered import Tempered, TemperedSettings, settings_of, surprise

P, K, L, M = 4, 2, 3, 2


def batch_of(logprob: float, reward: np.ndarray, mark: int) -> dict[str, np.ndarray]:
    """Responses whose first tokens all are ``mark``; the last token of each is no real one."""
    rows = len(reward)
    where = np.zeros((rows, K, L + M), bool)
    where[..., L] = True
    return {
        "tokens": np.full((rows, K, L + M), mark),
        "where": where,
        "candidate_where": np.ones((rows, K), bool),
        "index": np.arange(rows),
        "rewards": reward.astype(np.float32),
        "old_logprobs": np.full((rows, K, M), logprob, np.float32),
    }


class Fixed:
    """A source that tells who asked, and for how many prompts."""

    def __init__(self, temperature: float, asked: list):
        self.prompt_length, self.temperature, self.asked = L, temperature, asked

    def collect(self, policy: Any, batch: dict, key: jax.Array, *, group: int, greedy: bool = False) -> Collected:
        self.asked.append((self.temperature, len(batch["tokens"]), group))
        drawn = batch_of(-9.0, np.tile([0.0, 1.0], (len(batch["tokens"]), 1)), 7)
        return Collected(drawn, {}, 0)


def mixed(logprob: float, shards: int = 1, **settings: Any) -> tuple[dict[str, np.ndarray], dict[str, float], list]:
    asked: list = []
    chosen = TemperedSettings(target=0.5, **settings)
    part = Tempered({t: Fixed(t, asked) for t in (chosen.low, chosen.high)}, chosen, shards)
    batch = batch_of(logprob, np.zeros((P, K)), 1) | {"advantages": np.full((P, K, 1), -2.0)}
    prompts = {"tokens": np.zeros((P, 1, L), int)}
    found, reported = part.mix(None, prompts, batch, jax.random.key(0))
    return found, {name: float(value.value) for name, value in reported.items()}, asked


def test_below_the_target_all_good_hot_responses_come_first() -> None:
    batch, reported, asked = mixed(-0.2, share=1.0)
    assert asked == [(1.2, P, K)] and reported == {"tempered": 0.5, "temperature": pytest.approx(1.2)}
    assert batch["tokens"][..., 0].ravel().tolist() == [7] * P + [1] * P
    assert batch["advantages"].ravel().tolist() == [1.0] * P + [-2.0] * P
    assert batch["old_logprobs"][0, 0, 0] == -9.0 and batch["rewards"].ravel().tolist() == [1.0] * P + [0.0] * P
    assert batch["index"].tolist() == [0, 1, 2, 3] and batch["tokens"].shape == (P, K, L + M)


def test_above_the_target_half_as_many_cold_ones() -> None:
    batch, reported, asked = mixed(-0.8, share=1.0)
    assert asked == [(0.8, P, K)] and reported["tempered"] == 0.25
    assert batch["tokens"][..., 0].ravel().tolist() == [7] * 2 + [1] * 6


def test_a_share_of_the_prompts_and_a_number_of_responses() -> None:
    batch, _, asked = mixed(-0.2, share=0.5, number=1)
    assert asked == [(1.2, 2, K)] and (batch["tokens"] == 7).all(-1).sum() == 1
    assert mixed(-0.2, share=0.01)[2] == [(1.2, 1, K)]


@pytest.mark.parametrize(("share", "shards", "prompts"), [(0.25, 2, 2), (0.25, 4, 4), (0.8, 2, 4), (0.5, 2, 2)])
def test_every_shard_draws_as_many(share: float, shards: int, prompts: int) -> None:
    assert mixed(-0.2, shards, share=share)[2] == [(1.2, prompts, K)]


def test_no_response_is_good_enough() -> None:
    batch, reported, _ = mixed(-0.2, threshold=5.0)
    assert reported["tempered"] == 0 and (batch["tokens"] == 1).all() and (batch["advantages"] == -2.0).all()


def test_the_entropy_is_that_of_real_tokens() -> None:
    batch = batch_of(-0.5, np.zeros((2, K)), 1)
    batch["old_logprobs"][..., 1] = -100.0  # not real
    batch["old_logprobs"][1] = -100.0
    batch["candidate_where"][1] = False
    assert surprise(batch) == 0.5
    assert surprise(batch | {"candidate_where": np.zeros((2, K), bool)}) == 0.0


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"targt": 0.5}, "config.rl.rollout.tempered has an unknown key 'targt'. Did you mean 'target'?"),
        ({"high": 1.3}, "config.rl.rollout.tempered lacks the key 'target'"),
        ({"target": 0.5, "low": 1.5}, "needs 0 < low <= high"),
        ({"target": 0.5, "share": 0.0}, "0 < share <= 1"),
    ],
)
def test_mistakes_in_the_block_are_named(block: dict, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        settings_of(block)


def config(method: str = "ppo_clip_loss", **rollout: Any) -> dict[str, Any]:
    found = rl.get_config(f"{method},smoke").to_dict()
    found["rl"]["rollout"] |= {"tempered": {"target": 0.5}, **rollout}
    del found["sft"]
    return found | {"stages": ("rl",)}


@pytest.mark.usefixtures("one_model")
def test_a_run_says_how_hot_it_drew(tmp_path: Path) -> None:
    train(config(minibatches=2), tmp_path)
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if row["split"] == "train"]
    assert len(rows) == 3 and all(row["temperature"] == pytest.approx(0.8) for row in rows)  # entropy starts at log V
    assert all(0 <= row["tempered"] <= 1 and "covariance" in row for row in rows)


@pytest.mark.parametrize(
    ("method", "rollout", "message"),
    [
        ("grpo", {}, "config.rl.rollout.tempered sets advantages to 1, which grpo does not read"),
        ("ppo_clip_loss", {"keep": 2}, "config.rl.rollout.tempered does not go with keep: leave out one of them"),
        ("ppo_clip_loss", {"sync_every": 2}, "does not go with sync_every"),
    ],
)
def test_what_does_not_go_with_it_is_named(method: str, rollout: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        assemble(config(method, **rollout))
