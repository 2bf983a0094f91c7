"""Policies beside the trained one: which a method needs, how they start, how they follow, and that runs resume them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx import errors, models
from rlx.method import Shapes, stateless
from rlx.train import policies, sharding, state, step
from rlx.train.policies import Rule
from rlx.types import Array

MODEL = {"name": "transformer", "vocab_size": 16, "hidden_size": 8, "num_layers": 1, "num_heads": 2}
PROMPT = 2


def against_opponents(policy_logps: Array, opponent_logps: Array, *, where=None, reduce=None) -> Array:
    """A loss with two opponents, no method of the catalogue."""
    units = policy_logps[..., 0] - opponent_logps[..., 0].mean(-1)
    return rlx.aggregate.finish(units, None if where is None else where[..., 0], reduce)


def batch(rows: int = 4) -> dict[str, np.ndarray]:
    shape = (rows, 2, 6)
    return {
        "tokens": np.random.default_rng(0).integers(3, 16, shape).astype(np.int32),
        "valid": np.ones(shape, bool),
        "where": np.broadcast_to(np.arange(6) >= PROMPT, shape),
        "candidate_where": np.ones(shape[:2], bool),
        "index": np.arange(rows, dtype=np.int32),
    }


def test_a_method_says_which_policies_it_reads():
    assert policies.roles_of(rlx.build("dpo")) == ("reference",)
    assert policies.roles_of(rlx.build("simpo")) == ()
    assert policies.roles_of(rlx.build("kto")) == ("reference",)
    assert policies.roles_of(stateless(against_opponents)) == ("opponents",)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"refrence": {}}, "unknown role 'refrence'. Did you mean 'reference'"),
        ({"teacher": {}}, "policies.teacher is not used: dpo reads reference"),
        ({"reference": {"updat": "ema"}}, "unknown key 'updat'. Did you mean 'update'"),
        ({"reference": {"update": "emma"}}, "unknown 'emma'. Did you mean 'ema'"),
        ({"reference": {"update": "ema", "decay": 1.0}}, r"decay must be in \[0, 1\), not 1.0"),
        ({"reference": {"update": "snapshot", "every": 0}}, "every must be a whole number of at least 1, not 0"),
        ({"reference": {"update": "snapshot", "count": 2}}, "only opponents that are snapshots can be several"),
        ({"reference": {"update": "ema", "run": "runs/a"}}, "only a fixed reference, anchor or teacher"),
        ({"reference": {"dtype": "bfloat"}}, "dtype: unknown 'bfloat'. Did you mean 'bfloat16'"),
        ({"reference": {"update": "ema", "dtype": "bfloat16"}}, "a role that follows the policy is held as the policy"),
    ],
)
def test_wrong_rules(config, message):
    with pytest.raises(errors.UserError, match=message):
        policies.check(config, rlx.build("dpo"))


def test_snapshots_push_the_oldest_out():
    rules = {"opponents": Rule("snapshot", every=2, count=2)}
    current = policies.followers(rules, {"w": jnp.float32(0)})
    seen = []
    for taken in range(1, 7):
        current = policies.follow(rules, current, {"w": jnp.float32(taken)}, jnp.int32(taken))
        seen.append(current["opponents"]["w"].tolist())
    assert seen == [[0, 0], [2, 0], [2, 0], [4, 2], [4, 2], [6, 4]]


def test_a_moving_average_follows():
    rules = {"reference": Rule("ema", decay=0.75), "opponents": Rule("ema", decay=0.5)}
    current = policies.followers(rules, {"w": jnp.float32(0)})
    for taken in (1, 2):
        current = policies.follow(rules, current, {"w": jnp.float32(4)}, jnp.int32(taken))
    assert current["reference"]["w"] == 1.75 and current["opponents"]["w"].tolist() == [3.0]


@pytest.mark.parametrize("axes", [{}, {"data": 2, "fsdp": 2}])
def test_opponents_in_the_step(axes):
    """The forward of J opponents is that of J policies; they follow inside the compiled step, on any mesh."""
    model, optimizer = models.build(MODEL), optax.sgd(0.1)
    method, mesh = stateless(against_opponents), sharding.make_mesh(axes)
    rules = policies.check({"opponents": {"update": "snapshot", "every": 1, "count": 2}}, method)
    current = state.create_state(model, method, optimizer, Shapes(8, 16, 10), seed=0, mesh=mesh, rules=rules)
    advance = step.make_train_step(model, method, optimizer, mesh=mesh, prompt_length=PROMPT, rules=rules)
    first = jax.tree.map(np.asarray, current.params["policy"])
    current, reported = advance(current, batch(), {})
    np.testing.assert_allclose(reported["loss"].value, 0, atol=1e-5)  # both opponents were the policy itself
    second = jax.tree.map(np.asarray, current.params["policy"])
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    for role, expected in ((0, second), (1, first)):
        found = jax.tree.map(lambda x, role=role: np.asarray(x[role]), current.followers["opponents"])
        jax.tree.map(np.testing.assert_array_equal, found, expected)
