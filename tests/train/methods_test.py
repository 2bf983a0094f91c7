"""Every loss that has data to train on goes through the trainer's step, from its own config; state moves with it."""

import functools
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import rlx
from rlx import config as configs
from rlx import errors, models
from rlx.method import Shapes
from rlx.train import assemble, fresh, programs, sharding, state, step, trainer

CONFIG = Path(__file__).parents[2] / "configs" / "preference.py"
NAMES = configs.load_module(str(CONFIG)).NAMES
ROWS, PROMPT, RESPONSE, VOCAB, EXAMPLES = 4, 2, 4, 16, 10
MODEL = {"name": "transformer", "vocab_size": VOCAB, "hidden_size": 8, "num_layers": 1, "num_heads": 2}
OPTIMIZER = optax.sgd(0.1)


@functools.cache
def stage_of(name: str):
    """The last stage of the smoke config of a method, its state, a batch and the policies beside it."""
    run = assemble.assemble(configs.load(f"{CONFIG}:{name},smoke"))
    stage = run.stages[-1]
    train_set, _ = trainer.load_data(run, stage, Path("unused"))
    current = fresh.make_state(run, stage, len(train_set))
    batch = programs.as_read(
        next(train_set.batches(stage.settings.batch_size, seed=0, mismatched=stage.mismatched)), stage.method
    )
    beside, _ = programs.standing(stage, current.params["policy"], run)
    return run, stage, current, batch, beside, train_set.lengths.prompt


@pytest.mark.parametrize("name", NAMES)
def test_every_method_fits_the_step(name):
    """The step of its config takes its batch and gives its state back, in micro-batches too where it can be split."""
    run, stage, current, batch, beside, prompt = stage_of(name)
    for micro_batches in (1, 2) if stage.method.splittable else (1,):
        advance = step.make_train_step(
            run.model,
            stage.method,
            stage.optimizer,
            mesh=run.mesh,
            prompt_length=prompt,
            micro_batches=micro_batches,
            rules=stage.rules,
        )
        after, reported = jax.eval_shape(advance, current, batch, beside)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), current)
        assert {"loss", "grad_norm"} <= reported.keys()


def make_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (ROWS, 2, PROMPT + RESPONSE)
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


def test_power_dl_moves_the_labels_of_its_rows_alone():
    current, advance, auxiliary = build("power_dl")
    current, _ = advance(current, make_batch(), auxiliary)
    (table,) = jax.tree.leaves(current.method_state)
    moved = np.flatnonzero(np.asarray(table) != 1)
    np.testing.assert_array_equal(moved, [0, 3, 7])


def test_power_dl_in_micro_batches_is_the_same():
    results = []
    for micro_batches in (1, 2):
        current, advance, auxiliary = build("power_dl", micro_batches)
        for _ in range(2):
            current, reported = advance(current, make_batch(), auxiliary)
        results.append((reported["loss"].value, jax.tree.leaves(current.method_state)[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *results)


def test_gpm_trains_its_own_head():
    current, advance, auxiliary = build("gpm")
    before = jax.tree.map(np.asarray, current.params["method"])
    current, reported = advance(current, make_batch(), auxiliary)
    assert np.isfinite(reported["loss"].value)
    assert all((a != b).any() for a, b in zip(*map(jax.tree.leaves, (before, current.params["method"])), strict=True))


def test_a_reward_model_reports_its_accuracy():
    _, advance, auxiliary = build("bradley_terry_rm")
    current, *_ = build("bradley_terry_rm")
    _, reported = advance(current, make_batch(), auxiliary)
    assert reported["reward_accuracy"].count == ROWS - 1


def test_a_method_without_a_source_says_what_is_missing():
    current, advance, auxiliary = build("ppo_clip_loss")
    with pytest.raises(errors.UserError, match="Nothing provides advantages, old_logprobs"):
        advance(current, make_batch(), auxiliary)
