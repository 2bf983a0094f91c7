"""Rollouts dealt out by success rates: how many to whom, absent responses count nowhere, and runs resume."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rl
from rlx import build
from rlx.errors import UserError
from rlx.metrics import Mean, values
from rlx.policy.rollouts import knapsack_budget_allocation
from rlx.report.rows import read_rows
from rlx.rollout import Rollout
from rlx.rollout.rewards import Rewards
from rlx.train.assemble import assemble
from rlx.train.budget import UNSEEN, allocate, blank, rates_of, remember
from rlx.train.budget import measured as of_budget
from rlx.train.lessons import make_estimator
from rlx.train.main import train
from rlx.train.memory import RATES
from rlx.train.response_metrics import measured
from rlx.train.restore import restore
from rlx.train.rollout_parts import BudgetSettings

pytestmark = pytest.mark.usefixtures("one_model")

SETTINGS = BudgetSettings(n_low=2, n_up=8)


def test_known_prompts_share_what_the_others_leave():
    rates = np.array([UNSEEN, 0.5, 0.2, 0.9])
    found = allocate(rates, 4, SETTINGS)
    assert found[0] == 4 and found.sum() == 16
    np.testing.assert_array_equal(
        found[1:], knapsack_budget_allocation(rates[1:], budget=12, n_low=2, n_up=8).allocation
    )


@pytest.mark.parametrize(
    ("rates", "shares"),
    [
        ([UNSEEN] * 3, [4, 4, 4]),
        ([1.0, 0.0, 1.0, 0.0], [2, 6, 2, 6]),  # nobody has a use for more: those never solved take it
        ([1.0, 1.0, 0.0], [2, 2, 8]),
        ([1.0, 1.0, 1.0], [4, 4, 4]),
    ],
)
def test_what_nobody_has_a_use_for_is_drawn_all_the_same(rates, shares):
    assert allocate(np.array(rates), 4, SETTINGS).tolist() == shares


def test_every_budget_is_spent_within_its_bounds():
    generator = np.random.default_rng(0)
    for _ in range(50):
        rates = np.where(generator.random(6) < 0.3, UNSEEN, generator.integers(0, 5, 6) / 4)
        found = allocate(rates, 4, SETTINGS)
        assert found.sum() == 24 and found.min() >= 2 and found.max() <= 8


def test_rates_are_those_of_the_last_time_and_of_real_responses():
    batch = {
        "candidate_where": np.array([[True, True, False], [True, False, False], [False, False, False]]),
        "correct": np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]], np.float32),
        "rewards": np.array([[1.0, 0.0, 9.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]], np.float32),
        "index": np.array([3, 1, 4]),  # the last one fills the batch up
    }
    held = blank(4)
    after = remember(held, batch)
    assert after.tolist() == [UNSEEN, 1.0, UNSEEN, 0.5] and (held == UNSEEN).all()
    assert rates_of(after, batch).tolist() == [0.5, 1.0, UNSEEN]
    found = values(of_budget(rates_of(held, batch), batch))
    assert found == {"share_largest": 2, "share_smallest": 1, "prompts_known": 0, "prompts_effective": 0.5}


def test_absent_responses_count_in_no_metric():
    where = np.array([[[True, True], [True, False], [False, False]], [[True, True]] * 3])
    numbers = np.where(where, 1.0, 99.0).astype(np.float32)
    lengths = where.sum(-1)
    drawn = Rollout(lengths, where, lengths, lengths > 0, numbers, numbers, numbers)  # type: ignore[arg-type]
    total = np.array([[1.0, 0.0, 77.0], [0.0, 0.0, 0.0]], np.float32)
    real = where.any(-1)
    found = measured(drawn, Rewards(np.where(real, total, 0), {"a": total}, 0), real, 2)
    numbers_of = values({name: metric for name, metric in found.items() if isinstance(metric, Mean)})
    assert numbers_of["reward"] == pytest.approx(1 / 5) and numbers_of["length"] == pytest.approx(9 / 5)
    assert numbers_of["pass_at_2"] == 0.5 and numbers_of["rollout_entropy"] == 1 and numbers_of["finished"] == 1


def test_advantages_are_those_of_the_smaller_group():
    rewards = np.array([[1.0, 0.0, 1.0, 5.0]], np.float32)
    present = np.array([[True, True, True, False]])
    where = np.broadcast_to(present[..., None], (1, 4, 2))
    batch = {"where": where, "candidate_where": present, "rewards": rewards, "old_logprobs": np.zeros((1, 4, 2))}
    small = {name: array[:, :3] for name, array in batch.items()}
    for name in ("grpo", "dr_grpo", "rloo", "opo", "ngrpo", "passk"):
        found, want = (make_estimator(name)(x, jax.random.PRNGKey(0)) for x in (batch, small))
        np.testing.assert_allclose(found[:, :3], want, rtol=1e-6)
        assert not found[:, 3].any()


@pytest.mark.parametrize("name", ["dapo", "gspo", "cispo"])
def test_losses_are_those_of_the_smaller_group(name):
    method = build(name)
    generator = np.random.default_rng(0)
    where = np.ones((2, 4, 3), bool)
    where[:, 3] = False
    arrays = {
        key: jnp.asarray(generator.normal(size=(2, 4, 3)) - 2, jnp.float32) for key in ("logprobs", "old_logprobs")
    }
    arrays |= {key: jnp.asarray(generator.integers(0, 2, (2, 4)), jnp.float32) for key in ("rewards", "correct")}

    def loss(cut: int):
        batch = {key: array[:, :cut] for key, array in (arrays | {"where": jnp.asarray(where)}).items()}
        constants, _ = method.prepare(batch, {}, {}, None)
        numerator, denominator = method.aggregate.terms(*method.apply(constants, batch, {}))
        return method.aggregate.divide(numerator, denominator)

    np.testing.assert_allclose(loss(4), loss(3), rtol=1e-6)


def residue(response, example):
    """Rewards that differ between responses, by a third of them right."""
    return float(int(np.sum(response)) % 3 == 0)


residue.reads = "ids"  # type: ignore[attr-defined]


def config(name="grpo", **rollout):
    """Six steps of four prompts each, from 18: most prompts of the last two were seen in the first epoch."""
    found = rl.get_config(f"{name},smoke").to_dict()
    found["rl"]["rollout"] |= {"verifier": f"{__name__}:residue", "budget": {"n_low": 2}, **rollout}
    found["rl"] |= {"steps": 6, "log_every": 1, "eval_every": 0, "checkpoint_every": 3}
    found["sft"]["steps"] = 0
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recorded):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, recorded(config(), folder)


def trained(folder):
    return [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "rl" and row["split"] == "train"]


def test_a_run_spends_its_budget_on_prompts_by_what_is_known_of_them(whole):
    folder, learnt = whole
    found = trained(folder)
    assert found[0]["prompts_known"] == 0 and found[-1]["prompts_known"] > 0.5
    assert [row["share_largest"] for row in found[:4]] == [4] * 4 and max(row["share_largest"] for row in found) > 4
    assert min(row["share_smallest"] for row in found) >= 2 and {"pass_at_2", "prompts_effective"} <= set(found[0])
    for batch in learnt:
        assert batch["tokens"].shape == (4, 8, 8 + 3) and batch["candidate_where"].sum() == 16
        np.testing.assert_array_equal(batch["where"].any(-1), batch["candidate_where"])
        assert not batch["rewards"][~batch["candidate_where"]].any()
    rates = np.asarray(restore(folder).state.memory[RATES])
    assert rates.shape == (18,) and (rates >= 0).sum() >= 16
    np.testing.assert_allclose(rates[learnt[-1]["index"]], [
        correct[real].mean() for correct, real in zip(learnt[-1]["correct"], learnt[-1]["candidate_where"], strict=True)
    ])  # fmt: skip


@pytest.mark.parametrize("moment", [2, 5])
def test_a_stopped_run_goes_on_with_the_same_shares(whole, assert_goes_on, moment):
    assert_goes_on(config(), whole[0], moment)


def test_pairs_replay_and_a_baseline_go_along(tmp_path):
    pairs = config() | {"method": {"name": "dpo"}}
    pairs["rl"]["steps"] = 5
    train(pairs, tmp_path / "dpo")
    again = config("remax", replay={"capacity": 4, "share": 1.0}, keep=2)
    train(again, tmp_path / "remax")
    for name in ("dpo", "remax"):
        assert all(np.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in trained(tmp_path / name)[-2:])


WINS = {"components": {"a": {"verifier": "exact"}, "b": {"model": "reward", "options": {"win_rate": True}}}}


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        ({"budget": {"n_lo": 1}}, r"budget has an unknown key 'n_lo'\. Did you mean 'n_low'"),
        ({"budget": {"n_low": 0}}, "budget.n_low must be a whole number of at least 1"),
        ({"budget": {"n_up": 2.5}}, "budget.n_up must be a whole number"),
        ({"budget": {"n_low": 5}}, "budget needs n_low <= group <= n_up, not 5, 4 and 8"),
        ({"budget": {"n_up": 3}}, "not 2, 4 and 3"),
        ({"forks": {"num_forks": 1, "num_branches": 1}}, "budget does not go with forks: leave out one of them"),
        ({"segments": {"length": 1, "branching": (2, 2)}}, "budget does not go with segments"),
        ({"tempered": {"target": 0.5}}, "budget does not go with tempered"),
        ({"evolution": {"members": 2}}, "budget does not go with evolution"),
        ({"verifier": None, "reward": WINS}, "budget does not go with win_rate of the reward 'b'"),
    ],
)
def test_mistakes_are_named(rollout, message):
    with pytest.raises(UserError, match=message):
        assemble(config("ppo_clip_loss", **rollout))


def test_an_environment_has_no_budget():
    from configs import rl_turns

    found = rl_turns.get_config("gigpo,smoke").to_dict()
    found["rl"]["rollout"]["budget"] = {"n_low": 2}
    with pytest.raises(UserError, match="budget does not go with task.environment"):
        assemble(found)
