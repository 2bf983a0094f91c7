"""Selective replay: what enters the buffer, what is drawn from it, and runs that go on with the buffer they had."""

import jax
import numpy as np
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train import updates
from rlx.train.assemble import assemble
from rlx.train.interrupts import Stopped
from rlx.train.main import train
from rlx.train.memory import REPLAY
from rlx.train.replay import blank, entered, refill, sizes_of
from rlx.train.restore import restore
from rlx.train.rollout_parts import ReplaySettings

pytestmark = pytest.mark.usefixtures("one_model")


def held(order, sizes):
    order = np.array(order, np.int32)
    rows = {"rewards": np.arange(len(order), dtype=np.float32)[:, None]}
    return {
        "rows": rows,
        "order": order,
        "sizes": np.array(sizes, np.float32),
        "steps": np.zeros(len(order), np.int32),
    }


def test_only_prompts_with_an_advantage_enter_and_the_oldest_leave():
    empty = held([-1, -1, -1], [0, 0, 0])
    batch = {"rewards": np.array([[10.0], [11.0], [12.0], [13.0]], np.float32)}
    once = entered(empty, batch, np.array([0.0, 2.0, 0.0, 1.0]), 4)
    assert once["rows"]["rewards"].ravel().tolist() == [11, 13, 2] and once["order"].tolist() == [0, 1, -1]
    assert once["steps"].tolist() == [4, 4, 0] and once["sizes"].tolist() == [2, 1, 0]
    twice = entered(once, batch, np.array([3.0, 0.0, 5.0, 0.0]), 6)
    assert twice["rows"]["rewards"].ravel().tolist() == [12, 13, 10] and twice["order"].tolist() == [3, 1, 2]
    assert once["order"].tolist() == [0, 1, -1]  # nothing is changed in place
    many = entered(empty, batch, np.ones(4), 0)
    assert sorted(many["rows"]["rewards"].ravel()) == [11, 12, 13]


def test_rows_without_an_advantage_are_replaced_until_a_share_has_one():
    buffer, sizes = held([5, 4, -1, 3], [1, 1, 0, 1]), np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    into, rows = refill(buffer, sizes, ReplaySettings(4, share=0.5), jax.random.PRNGKey(0))
    assert into.tolist() == [0, 2] and len(set(rows)) == 2 and 2 not in rows
    into, rows = refill(buffer, sizes, ReplaySettings(4, share=1.0), jax.random.PRNGKey(0))
    assert into.tolist() == [0, 2, 3] and sorted(rows) == [0, 1, 3]
    for share, own in ((0.1, sizes), (1.0, np.ones(6))):
        assert len(refill(buffer, own, ReplaySettings(4, share=share), jax.random.PRNGKey(0))[0]) == 0


def test_rows_are_drawn_in_proportion_to_their_advantages():
    buffer, settings = held([0, 1, 2, -1], [1.0, 3.0, 0.0, 0.0]), ReplaySettings(4, share=1.0)
    keys = jax.random.split(jax.random.PRNGKey(1), 400)
    drawn = [int(refill(buffer, np.zeros(1), settings, key)[1][0]) for key in keys]
    counts = np.bincount(drawn, minlength=4)
    assert counts[2] <= 2 and counts[3] == 0 and 0.68 < counts[1] / 400 < 0.82


def test_the_size_of_a_prompt_counts_real_tokens_of_real_responses():
    where = np.ones((1, 3, 4), bool)
    where[0, 0, 3] = False
    batch = {
        "where": where,
        "candidate_where": np.array([[True, True, False]]),
        "old_logprobs": np.zeros((1, 3, 2)),
    }
    advantages = np.array([[[2.0, 50.0], [-1.0, 3.0], [7.0, 7.0]]])
    np.testing.assert_allclose(sizes_of(batch, advantages), [2.0 + 2.0])


def seldom(response, example):
    """Half of the prompts teach nothing."""
    return float(int(example.answer) % 2 and int(np.sum(response)) % 2)


seldom.reads = "ids"  # type: ignore[attr-defined]


def config(name="grpo", steps=6, **rollout):
    found = rl.get_config(f"{name},smoke").to_dict()
    found["rl"]["rollout"] |= {"verifier": f"{__name__}:seldom", "replay": {"capacity": 5, "share": 1.0}, **rollout}
    found["rl"] |= {"steps": steps, "log_every": 1, "eval_every": 0, "checkpoint_every": 3}
    found["sft"]["steps"] = 0
    return found


def trained(folder):
    return [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "rl" and row["split"] == "train"]


def more():
    """Stale responses, several updates on a batch, and fewer rows than prompts."""
    return config("ppo_clip_loss", minibatches=2, sync_every=2, keep=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(more(), folder)
    return folder


def test_a_run_reports_what_it_replays(whole):
    found = trained(whole)
    assert found[0]["replayed"] == 0 and max(row["replayed"] for row in found) > 0
    assert all(0 <= row["replay_fill"] <= 1 for row in found)
    assert [row["replay_fill"] for row in found] == sorted(row["replay_fill"] for row in found)
    assert any(row["replay_age"] >= 1 for row in found)
    memory = restore(whole).state.memory[REPLAY]
    assert (memory["sizes"][memory["order"] >= 0] > 0).all()
    rewards = memory["rows"]["rewards"][memory["order"] >= 0]
    assert (rewards.max(-1) > rewards.min(-1)).all()


@pytest.mark.parametrize("moment", [2, 4])
def test_a_stopped_run_goes_on_with_the_same_buffer(tmp_path, whole, moment):
    with pytest.raises(Stopped):
        train(more(), tmp_path, stop=lambda stage, step: step == moment)
    train(more(), tmp_path)
    assert read_rows(tmp_path / "metrics.jsonl") == read_rows(whole / "metrics.jsonl")
    ours, theirs = (restore(folder).state for folder in (tmp_path, whole))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_replayed_prompt_keeps_what_it_was_drawn_with(tmp_path, monkeypatch):
    learnt, put = [], updates.put_whole

    def watched(batch, mesh):
        learnt.append({name: np.array(array) for name, array in batch.items()})
        return put(batch, mesh)

    monkeypatch.setattr(updates, "put_whole", watched)
    train(config(steps=4), tmp_path)
    replayed = [round(4 * row["replayed"]) for row in trained(tmp_path)]
    assert sum(replayed) > 0
    seen: dict[bytes, dict[str, np.ndarray]] = {}
    again = 0
    for batch in learnt:
        rows = [{name: array[i] for name, array in batch.items()} for i in range(4)]
        for row in rows:
            before = seen.get(row["tokens"].tobytes() + row["old_logprobs"].tobytes())
            again += before is not None
            for name in row if before is not None else ():
                np.testing.assert_array_equal(row[name], before[name])
        seen |= {row["tokens"].tobytes() + row["old_logprobs"].tobytes(): row for row in rows}
    assert again == sum(replayed)


@pytest.mark.parametrize("name", ["remax", "ppo"])
def test_greedy_rewards_and_values_are_replayed_along(tmp_path, name):
    settings = config(name, steps=2)
    train(settings, tmp_path)
    assert trained(tmp_path)[-1]["replay_fill"] > 0
    run = assemble(settings)
    rows = blank(run, run.stages[0], 8)["rows"]
    assert rows["tokens"].shape == (5, 4, 8 + 3)
    assert (rows["baseline_rewards"] if name == "remax" else rows["old_values"][..., 0, 0]).shape == (5,)


def test_a_checkpoint_of_another_capacity_is_refused(tmp_path):
    with pytest.raises(Stopped):
        train(config(), tmp_path, stop=lambda stage, step: step == 1)
    with pytest.raises(UserError, match="memory/replay/.* so the memory of rollouts differs"):
        train(config(replay={"capacity": 6}), tmp_path, force=True)


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        ({"replay": {"capcity": 4}}, r"replay has an unknown key 'capcity'\. Did you mean 'capacity'"),
        ({"replay": {"share": 0.5}}, "config.rl.rollout.replay lacks the key 'capacity'"),
        ({"replay": {"capacity": 0}}, "replay.capacity must be a whole number of at least 1, not 0"),
        ({"replay": {"capacity": 4, "share": 0.0}}, "replay needs 0 < share <= 1"),
        ({"replay": {"capacity": 4, "epsilon": -1}}, "epsilon >= 0"),
        ({"tempered": {"target": 0.5}}, "replay does not go with tempered: leave out one of them"),
        ({"evolution": {"members": 2}}, "replay does not go with evolution"),
    ],
)
def test_mistakes_are_named(rollout, message):
    with pytest.raises(UserError, match=message):
        assemble(config("ppo_clip_loss", **rollout))


@pytest.mark.parametrize("method", ["dpo", "egpo_llm", "hinton_kd"])
def test_methods_without_advantages_are_refused(method):
    own = config() | {"method": {"name": method}}
    with pytest.raises(UserError, match=f"replay draws by the size of advantages, and {method} has none"):
        assemble(own)
