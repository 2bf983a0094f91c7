r"""Evolution strategies in the stage ``rl`` (EGGROLL): no gradient passes through the policy.

A step perturbs the policy N times by low-rank noise, lets every member answer all prompts of the batch, and moves the
policy along the noise, weighted by what the members earned: :func:`rlx.policy.evolution.eggroll_gradient`, which any
optimiser takes for the gradient. Noise is drawn anew from the key and the step, and so is no part of a checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlx import metrics
from rlx.data.dataset import Dataset
from rlx.errors import UserError
from rlx.metrics import Metrics
from rlx.models.moving import join, moving
from rlx.policy.evolution import eggroll_fitness, eggroll_gradient, eggroll_noise, perturb
from rlx.train.assemble import Run, Stage
from rlx.train.blocks import block_of
from rlx.train.loop import HostBatch, Programs
from rlx.train.moved import donating, whole
from rlx.train.reward_models import finder
from rlx.train.rollouts import DRAWS, evaluation, held_out_batches, reward_of, source_of
from rlx.train.state import TrainState, moving_params


@dataclasses.dataclass(frozen=True)
class EvolutionSettings:
    """The block ``evolution`` of rollouts.

    Attributes:
      members: N, even: members come in pairs of opposite signs.
      sigma: size of the noise.
      rank: of the noise of matrices.
    """

    members: int = 16
    sigma: float = 0.05
    rank: int = 1


def settings_of(block: Mapping[str, Any]) -> EvolutionSettings:
    """The block, checked.

    Raises:
      UserError: an unknown key, with close matches, or an impossible value.

    >>> settings_of({"membrs": 4})
    Traceback (most recent call last):
    rlx.errors.UserError: config.rl.rollout.evolution has an unknown key 'membrs'. Did you mean 'members'? ...
    """
    found = block_of(EvolutionSettings, block, "rl.rollout.evolution")
    if found.members < 2 or found.members % 2 or found.rank < 1 or found.sigma <= 0:
        raise UserError("config.rl.rollout.evolution needs an even number of members, rank >= 1 and sigma > 0.")
    return found


def make_evolution_programs(
    run: Run, stage: Stage, train_set: Dataset, held_out: Dataset, reward_model: Any = None
) -> Programs:
    """What the loop of a stage without gradients calls; arguments are those of ``make_rollout_programs``."""
    settings = stage.rollout
    assert settings is not None  # a stage of reinforcement learning
    own = settings_of(settings.evolution)
    reward = reward_of(settings, run, finder(run, (train_set.lengths.prompt, settings.max_new_tokens), reward_model))
    source, tests = (source_of(run, stage, dataset, reward) for dataset in (train_set, held_out))

    @jax.jit
    def member_of(policy: Any, key: jax.Array, member: jax.Array) -> Any:
        noise = eggroll_noise(key, policy, members=member[None], rank=own.rank)
        return jax.tree.map(lambda x: x[0], perturb(policy, noise, sigma=own.sigma))

    def update(state: TrainState, key: jax.Array, scores: jax.Array) -> tuple[TrainState, Metrics]:
        moved = moving_params(run.model, state.params)
        noise = eggroll_noise(key, moved["policy"], members=jnp.arange(own.members), rank=own.rank)
        slope = eggroll_gradient(noise, eggroll_fitness(scores), sigma=own.sigma)
        grads = {"policy": slope, "method": jax.tree.map(jnp.zeros_like, state.params["method"])}
        updates, opt_state = stage.optimizer.update(grads, state.opt_state, moved)
        params: Any = optax.apply_updates(moved, updates)
        reported: Metrics = {
            "loss": metrics.mean_of(-scores),
            "grad_norm": metrics.mean_of(optax.tree.norm(slope)),
            "member_deviation": metrics.mean_of(scores.std()),
        }
        after = state._replace(step=state.step + 1, params=params, opt_state=opt_state)
        return whole(after, state.params["policy"]), reported

    moved_by = donating(run.model, update)

    def step(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        scores, found, real = [], {}, batch["candidate_where"]
        for member in range(own.members):
            part = member_of(moving(run.model, state.params["policy"]), key, jnp.int32(member))
            policy = join(part, state.params["policy"])
            drawn = source.collect(policy, batch, jax.random.fold_in(key, DRAWS), group=settings.group)
            scores.append(np.mean(drawn.batch["rewards"], where=np.broadcast_to(real, drawn.batch["rewards"].shape)))
            found = metrics.merge(found, drawn.metrics)
        state, of_update = moved_by(state, key, jnp.asarray(scores, jnp.float32))
        return state, found | of_update

    return Programs(step, evaluation(tests), held_out_batches(held_out, stage))
