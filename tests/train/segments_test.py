"""Trees of segments in the stage rl: every token is learnt from once, by the value of its node; runs resume."""

import jax
import numpy as np
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.metrics import values
from rlx.policy.trees import spo_tree_advantage
from rlx.report.rows import read_rows
from rlx.rollout import Rollout
from rlx.rollout.rewards import Rewards
from rlx.rollout.segments import ARRAYS, ROOT, tree_of
from rlx.train.assemble import assemble
from rlx.train.draws import Drawn
from rlx.train.lessons import make_estimator
from rlx.train.main import train
from rlx.train.response_metrics import of_trees
from rlx.train.responses import batch_of

pytestmark = pytest.mark.usefixtures("one_model")


def residue(response, example):
    """A third of the responses is right; a response that ends with an even token says nothing more."""
    return float(int(np.sum(response)) % 3 == 0)


residue.reads = "ids"  # type: ignore[attr-defined]


def config(name="spo_tree", steps=4, **rollout):
    found = rl.get_config(f"{name},smoke").to_dict()
    found["rl"]["rollout"] |= {"verifier": f"{__name__}:residue", **rollout}
    found["rl"] |= {"steps": steps, "log_every": 1, "eval_every": 2, "checkpoint_every": 2}
    found["sft"]["steps"] = 0
    return found


def trained(folder):
    return [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "rl" and row["split"] == "train"]


def small_batch():
    """A tree (2, 2) of segments of one token: the first response ends at once; the first and the third are right."""
    where = np.arange(2) < np.array([[1, 1, 2, 2]])[..., None]
    numbers = np.where(where, -1.0, 0.0).astype(np.float32)
    tokens = np.array([[[9, 0], [9, 0], [7, 8], [7, 5]]], np.int32)
    drawn = Rollout(tokens, where, where.sum(-1), where.any(-1), numbers, numbers, -numbers)  # type: ignore[arg-type]
    trees = tree_of(drawn, 1, (2, 2))
    prompt = {
        "tokens": np.array([[[0, 5, 6]]], np.int32), "valid": np.array([[[False, True, True]]]),
        "candidate_where": np.ones((1, 1), bool), "index": np.array([3]),
    }  # fmt: skip
    rewards = np.array([[1.0, 1.0, 1.0, 0.0]], np.float32)
    own = Drawn(drawn, trees.present, trees)
    run = assemble(config())
    return own, batch_of(run.tokenizer, ("tree_parent", "turn_ids"), prompt, own, Rewards(rewards, {"a": rewards}, 0))


def test_the_batch_scores_each_token_of_a_tree_once():
    drawn, batch = small_batch()
    assert batch["candidate_where"].tolist() == [[True, False, True, True]]
    scored = batch["where"][..., 3:] & batch["candidate_where"][..., None]
    assert scored.tolist() == [[[True, False], [False, False], [True, True], [False, True]]]
    assert batch["valid"][..., 3:].tolist() == [[[True, False], [True, False], [True, True], [True, True]]]
    found = values(of_trees(drawn, batch["candidate_where"]))
    assert found["leaves"] == 3 and found["shared_tokens"] == pytest.approx(1 / 5)


def test_the_advantage_of_a_token_is_that_of_its_node():
    _, batch = small_batch()
    scored = batch["where"][..., 3:] & batch["candidate_where"][..., None]
    # V: root (1 + 1/2)/2 = 3/4, first segment 1, second 1/2, its leaves 1 and 0
    found = make_estimator("spo_tree", more=ARRAYS)(batch, jax.random.PRNGKey(0))
    np.testing.assert_allclose(found[scored], [0.25, -0.25, 0.5, -0.5])
    # every leaf alike: the root is worth 2/3
    for over, want in (("parent", [1 / 3, -1 / 6, 1 / 2, -1 / 2]), ("root", [1 / 3, -1 / 6, 1 / 3, -2 / 3])):
        found = make_estimator(f"mc_tree(over='{over}')", more=ARRAYS)(batch, jax.random.PRNGKey(0))
        np.testing.assert_allclose(found[scored], want, rtol=1e-5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recorded):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, recorded(config(), folder)


def test_a_run_learns_from_trees(whole):
    folder, learnt = whole
    found = trained(folder)
    assert all(row["leaves"] <= 4 and 0 < row["shared_tokens"] < 0.5 for row in found)
    assert all(np.isfinite(row["loss"]) for row in found) and any(row["grad_norm"] > 0 for row in found)
    for batch in learnt:
        assert batch["tokens"].shape == (4, 4, 8 + 3) and batch["tree_parent"].shape == (4, 1 + 2 + 4)
        real = batch["tree_parent"] >= ROOT
        gains = spo_tree_advantage(batch["node_rewards"], batch["tree_parent"], where=real)
        assert (np.abs(gains) <= 1).all()
        first = batch["tokens"][..., 8]
        assert (first[:, 0] == first[:, 1]).all() and (first[:, 2] == first[:, 3]).all()


@pytest.mark.parametrize("moment", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_numbers(whole, assert_goes_on, moment):
    assert_goes_on(config(), whole[0], moment)


def test_trees_are_replayed_for_a_loss_that_reads_advantages(tmp_path):
    own = {"advantage": "spo_tree(scale=True)", "replay": {"capacity": 4, "share": 1.0}, "minibatches": 2}
    settings = config(steps=3, **own)
    settings["method"] = {"name": "spo_probability_mask_loss"}
    train(settings, tmp_path)
    assert trained(tmp_path)[-1]["replay_fill"] > 0


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        (
            {"segments": {"lenth": 1, "branching": (2, 2)}},
            r"segments has an unknown key 'lenth'\. Did you mean 'length'",
        ),
        ({"segments": {"length": 1}}, "config.rl.rollout.segments lacks the key 'branching'"),
        ({"segments": {"length": 0, "branching": (2, 2)}}, "segments.length must be a whole number of at least 1"),
        ({"segments": {"length": 1, "branching": 4}}, "branching is one number for each level"),
        ({"segments": {"length": 1, "branching": "22"}}, "branching is one number for each level"),
        ({"segments": {"length": 1, "branching": (8, 0.5)}}, "branching must hold whole numbers of at least 1"),
        ({"segments": {"length": 1, "branching": (2, 3)}}, "group=4 must be the leaves of a tree, 2 x 3 = 6"),
        ({"segments": {"length": 3, "branching": (2, 2)}}, "2 levels of 3 tokens leave none of max_new_tokens=3"),
        ({"forks": {"num_forks": 1, "num_branches": 1}}, "segments does not go with forks"),
        ({"critic": {"coefficient": 0.5}}, "segments does not go with critic"),
        ({"evolution": {"members": 2}}, "segments does not go with evolution"),
        ({"tempered": {"target": 0.5}}, "segments does not go with tempered"),
        ({"stop": ["\n"]}, "segments does not go with stop"),
    ],
)
def test_mistakes_are_named(rollout, message):
    with pytest.raises(UserError, match=message):
        assemble(config(**rollout))


@pytest.mark.parametrize("method", [{"name": "grpo"}, {"name": "dpo"}, {"name": "ppo_clip_loss"}])
def test_methods_that_read_no_trees_are_refused(method):
    with pytest.raises(UserError, match=f"segments draws trees, and {method['name']} reads none"):
        assemble(config() | {"method": method})


def test_an_environment_has_trees_of_its_own():
    from configs import rl_turns

    found = rl_turns.get_config("spo_tree,smoke").to_dict()
    found["rl"]["rollout"] |= {"max_new_tokens": 3, "segments": {"length": 1, "branching": (2, 2)}}
    with pytest.raises(UserError, match="segments does not go with task.environment"):
        assemble(found)
