"""Every loss that the trainer can feed goes through its step; state and own parameters move with it."""

import jax
import numpy as np
import optax
import pytest

import rlx
from rlx import catalog, errors, models
from rlx.method import Shapes
from rlx.train import sharding, state, step

ROWS, PROMPT, RESPONSE, VOCAB, EXAMPLES = 4, 2, 4, 16, 10
MODEL = {"name": "transformer", "vocab_size": VOCAB, "hidden_size": 8, "num_layers": 1, "num_heads": 2}
OPTIMIZER = optax.sgd(0.1)
# what the trainer of preferences and text has no source for: teachers, rankers, and rollouts
NO_SOURCE = {"logits", "teacher_logits", "advantages", "old_logprobs"}
UNPAIRED = ("kto", "apo_zero_unpaired")
TRAINABLE = sorted(
    name
    for name, entry in catalog.CATALOG.items()
    if entry.kind == "loss" and not NO_SOURCE & set(entry.needs) and name != "listmle"
)


def make_batch(name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (ROWS, 1 if name in UNPAIRED else 2, PROMPT + RESPONSE)
    where = np.broadcast_to(np.arange(PROMPT + RESPONSE) >= PROMPT, shape)
    batch = {
        "tokens": rng.integers(3, VOCAB, shape).astype(np.int32),
        "valid": np.ones(shape, bool),
        "where": where,
        "candidate_where": np.ones(shape[:2], bool),
        "index": np.array([3, 0, 7, EXAMPLES], np.int32),  # the last row only fills the batch up
        "labels": rng.integers(0, 2, shape[:2]).astype(np.float32),
        "scores": rng.normal(size=shape[:2]).astype(np.float32),
        "preference_probs": rng.random(ROWS).astype(np.float32),
    }
    batch["candidate_where"][-1] = False
    return batch | {f"kl_{key}": batch[key] for key in ("tokens", "valid", "where")}


def build(name: str, micro_batches: int = 1):
    model = models.build(MODEL | {"head": "scalar"})
    method, mesh = rlx.build(name), sharding.make_mesh()
    shapes = Shapes(model.hidden_size, VOCAB, EXAMPLES)
    current = state.create_state(model, method, OPTIMIZER, shapes, seed=0, mesh=mesh)
    advance = step.make_train_step(
        model, method, OPTIMIZER, mesh=mesh, prompt_length=PROMPT, micro_batches=micro_batches
    )
    return current, advance, {"reference": model.init(1)}


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("name", TRAINABLE)
def test_every_method_fits_the_step(name, micro_batches):
    current, advance, auxiliary = build(name, micro_batches)
    after, reported = jax.eval_shape(advance, current, make_batch(name), auxiliary)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), current)
    assert {"loss", "grad_norm"} <= reported.keys()


def test_power_dl_moves_the_labels_of_its_rows_alone():
    current, advance, auxiliary = build("power_dl")
    current, _ = advance(current, make_batch("power_dl"), auxiliary)
    (table,) = jax.tree.leaves(current.method_state)
    moved = np.flatnonzero(np.asarray(table) != 1)
    np.testing.assert_array_equal(moved, [0, 3, 7])


def test_power_dl_in_micro_batches_is_the_same():
    results = []
    for micro_batches in (1, 2):
        current, advance, auxiliary = build("power_dl", micro_batches)
        for _ in range(2):
            current, reported = advance(current, make_batch("power_dl"), auxiliary)
        results.append((reported["loss"].value, jax.tree.leaves(current.method_state)[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *results)


def test_gpm_trains_its_own_head():
    current, advance, auxiliary = build("gpm")
    before = jax.tree.map(np.asarray, current.params["method"])
    current, reported = advance(current, make_batch("gpm"), auxiliary)
    assert np.isfinite(reported["loss"].value)
    assert all((a != b).any() for a, b in zip(*map(jax.tree.leaves, (before, current.params["method"])), strict=True))


def test_a_reward_model_reports_its_accuracy():
    _, advance, auxiliary = build("bradley_terry_rm")
    current, *_ = build("bradley_terry_rm")
    _, reported = advance(current, make_batch("bradley_terry_rm"), auxiliary)
    assert reported["reward_accuracy"].count == ROWS - 1


def test_a_method_without_a_source_says_what_is_missing():
    current, advance, auxiliary = build("ppo_clip_loss")
    with pytest.raises(errors.UserError, match="Nothing provides advantages, old_logprobs"):
        advance(current, make_batch("dpo"), auxiliary)
