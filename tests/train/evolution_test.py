"""EGGROLL in the stage rl: the update is that of the catalogue on the members' mean rewards, and a run resumes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.policy.evolution import eggroll_noise, eggroll_update, perturb
from rlx.rollout import Sampling, sample
from rlx.train.assemble import assemble
from rlx.train.fresh import make_state
from rlx.train.interrupts import Stopped
from rlx.train.main import train
from rlx.train.trainer import load_data, programs_of

pytestmark = pytest.mark.usefixtures("one_model")


def length(response, example):
    """Rewards bytes below 128: what even an untrained policy differs in."""
    return float(np.mean([token < 128 for token in response])) if len(response) else 0.0


length.reads = "ids"  # type: ignore[attr-defined]


def config(**rollout):
    found = rl.get_config("eggroll_update,smoke").to_dict()
    del found["sft"]
    found["stages"] = ("rl",)
    own = {"evolution": {"members": 4, "sigma": 0.1}, "group": 1, "verifier": f"{__name__}:length"}
    found["rl"]["rollout"] |= own | rollout
    found["rl"]["optimizer"] = {"name": "sgd", "learning_rate": 0.5}
    return found


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_the_update_of_the_catalogue(tmp_path):
    run = assemble(config())
    (stage,) = run.stages
    train_set, held_out = load_data(run, stage, tmp_path)
    state = make_state(run, stage, len(train_set))
    before, key = jax.device_get(state.params["policy"]), jax.random.fold_in(state.key, 0)
    batch = next(train_set.batches(4, seed=0))
    noise = eggroll_noise(key, before, members=jnp.arange(4), rank=1)
    members = perturb(before, noise, sigma=0.1)
    sampling = Sampling(3, eos_id=run.tokenizer.eos_id, pad_id=run.tokenizer.pad_id)
    scores = []
    for i in range(4):
        policy = jax.tree.map(lambda x, i=i: x[i], members)
        prompts = batch["tokens"][:, 0], batch["valid"][:, 0]
        drawn = sample(run.model, policy, *prompts, group=1, sampling=sampling, key=jax.random.fold_in(key, 1))
        real = np.asarray(drawn.where) & (np.asarray(drawn.tokens) != run.tokenizer.eos_id)
        scores.append(np.mean([length(t[w], None) for t, w in zip(drawn.tokens[:, 0], real[:, 0], strict=True)]))
    want = eggroll_update(before, noise, jnp.asarray(scores, jnp.float32), sigma=0.1, learning_rate=0.5)
    programs = programs_of(run, stage, train_set, held_out, None, None, tmp_path)
    after, found = programs.step(state, batch)
    assert isinstance(stage.optimizer, optax.GradientTransformation) and np.ptp(scores) > 0
    np.testing.assert_allclose(float(found["loss"].value), -np.mean(scores), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after.params["policy"], want)


def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path):
    train(config(), tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config(), tmp_path / "stopped", stop=lambda stage, step: step == 2)
    train(config(), tmp_path / "stopped")
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        ({"evolution": {"members": 3}}, "needs an even number of members"),
        ({"keep": 2}, r"config\.rl\.rollout\.keep is not used: evolution takes no gradients"),
    ],
)
def test_mistakes_are_named(rollout, message):
    with pytest.raises(UserError, match=message):
        assemble(config(**rollout))
    with pytest.raises(UserError, match="goes with config.method='eggroll_update'"):
        assemble(config() | {"method": {"name": "grpo"}})
