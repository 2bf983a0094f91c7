"""How a stage of reinforcement learning draws responses of one turn: in groups, as leaves of trees, or by shares."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rlx.data.tokenizers import end_ids
from rlx.models import Model
from rlx.rollout import Engine, Rollout, Sampling, forks, segments, shares
from rlx.rollout.buckets import crop
from rlx.rollout.imports import by_name
from rlx.rollout.segments import Trees
from rlx.train.assemble import Run
from rlx.train.loop import HostBatch
from rlx.train.rollout_parts import candidates, segments_of
from rlx.train.rollout_settings import RolloutSettings

FORKS = 1
"""Stream of random numbers of a draw, for the branches of a tree."""
SHARES = "shares"
"""Array of a batch of prompts, ``[P]``: responses to each, where they differ in number."""


class Drawn(NamedTuple):
    """Responses to a batch of prompts.

    Attributes:
      rollout: ``[P, K, ...]``.
      present: ``[P, K]`` responses that there are.
      trees: that they are the leaves of.
    """

    rollout: Rollout
    present: np.ndarray
    trees: Trees | None = None

    @property
    def own(self) -> np.ndarray:
        """``[P, K, M]`` tokens of present responses, each of which was drawn once."""
        where = np.asarray(self.rollout.where) if self.trees is None else self.trees.own
        return where & self.present[..., None]


def draw(
    run: Run, settings: RolloutSettings, policy: Any, batch: HostBatch, key: jax.Array, *, group: int, greedy: bool
) -> Drawn:
    """Responses to the prompts of a batch, as a config draws them; with ``greedy`` the likeliest tokens, plainly.

    Args:
      run: model and mesh.
      settings: of the rollouts.
      policy: parameters.
      batch: of prompts; :data:`SHARES` may be among its arrays.
      key: of the draw.
      group: responses to a prompt.
      greedy: for evaluations.
    """
    mesh = run.mesh if run.mesh.size > 1 else None
    prompts = batch["tokens"][:, 0], batch["valid"][:, 0]
    if settings.buckets:
        prompts = crop(*prompts, (*settings.buckets, prompts[0].shape[1]))
    options: dict[str, Any] = {"sampling": sampling_of(run, settings, greedy), "key": key, "mesh": mesh}
    tree = None if greedy else segments_of(settings.segments, group, settings.max_new_tokens)
    if tree is not None:
        found = segments.draw(run.model, policy, *prompts, length=tree.length, branching=tree.branching, **options)
        return Drawn(found.rollout, found.present, found)
    if SHARES in batch and not greedy:
        most = candidates(settings)
        drawn = shares.sample_shares(run.model, policy, *prompts, batch[SHARES], most=most, **options)
        return Drawn(drawn, shares.places(batch[SHARES], most))
    branching = {} if greedy else settings.forks
    whole = forks.trunks_of(group, **branching) if branching else group
    own = engine_of(settings.engine, run.model, options["sampling"], mesh)
    drawn = own(policy, *prompts, group=whole, key=key)
    if branching:
        options["key"] = jax.random.fold_in(key, FORKS)
        drawn = forks.grow(run.model, policy, *prompts, drawn, **branching, **options)
    return Drawn(jax.device_get(drawn), np.ones((len(batch["tokens"]), group), bool))


@functools.lru_cache(maxsize=8)  # an engine may have a server to connect to
def engine_of(name: str, model: Model, sampling: Sampling, mesh: Mesh | None) -> Engine:
    """The engine that a config names: what ``make(model, sampling, mesh=mesh)`` returns."""
    return by_name(name, {}, "engine")(model, sampling, mesh=mesh)


def sampling_of(run: Run, settings: RolloutSettings, greedy: bool) -> Sampling:
    """How a stage draws, or how it is evaluated: by the likeliest tokens."""
    numbers: dict[str, Any] = {
        name: None if greedy else getattr(settings, name) for name in ("top_k", "top_p", "min_p")
    }
    stop = tuple(tuple(run.tokenizer.encode(text)) for text in settings.stop)
    ends: dict[str, Any] = {"eos_id": end_ids(run.tokenizer), "pad_id": run.tokenizer.pad_id, "stop": stop}
    return Sampling(settings.max_new_tokens, temperature=0.0 if greedy else settings.temperature, **numbers, **ends)
