"""Trees of responses: whole ones fork where the policy was least sure, and are finished anew from there (ETTRL)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rlx.errors import UserError
from rlx.models.base import Model, Params
from rlx.policy.branching import etmr_fork_positions
from rlx.rollout.sampler import sample
from rlx.rollout.types import Rollout, Sampling


def trunks_of(group: int, num_forks: int = 3, num_branches: int = 2) -> int:
    """M, whole responses to a prompt, of a group of ``M (1 + num_branches num_forks)``.

    Raises:
      UserError: the group is no multiple of a tree.

    >>> trunks_of(14, 3, 2)
    2
    """
    leaves = 1 + num_forks * num_branches
    if num_forks < 1 or num_branches < 1 or group % leaves:
        raise UserError(
            f"a tree with {num_forks} forks of {num_branches} branches has 1 + {num_forks} x {num_branches} = {leaves} "
            f"leaves: the group must be a multiple of that, and is {group}."
        )
    return group // leaves


def grow(
    model: Model,
    params: Params,
    prompt_tokens: np.ndarray,
    prompt_valid: np.ndarray,
    trunks: Rollout,
    *,
    num_forks: int = 3,
    num_branches: int = 2,
    sampling: Sampling,
    key: jax.Array,
    mesh: Mesh | None = None,
) -> Rollout:
    """The responses, and ``num_branches`` new ends of each from its ``num_forks`` tokens of the largest entropy.

    The token at a fork is drawn again; what stands before it is kept, log-probabilities and all. A response shorter
    than its forks is drawn anew from the start instead. No response gets longer than ``sampling`` allows: its end is
    cut off then, and it counts as not finished.

    Args:
      model: as :func:`~rlx.rollout.sampler.sample` takes it.
      params: of the model.
      prompt_tokens: ``[P, L]``, padded on the left.
      prompt_valid: ``[P, L]``.
      trunks: M responses to each prompt.
      num_forks: N, of a response.
      num_branches: B, of a fork.
      sampling: how they were drawn, and are.
      key: of the new draws.
      mesh: as ``sample`` takes it.

    Returns:
      ``M (1 + B N)`` responses to each prompt, the whole ones first.

    References:
      *ETTRL: Balancing Exploration and Exploitation in LLM Test-Time Reinforcement Learning via Entropy Mechanism*,
      arXiv:2508.11356.
    """
    whole: Any = jax.device_get(trunks)
    found = etmr_fork_positions(trunks.entropy, num_forks=num_forks, num_branches=num_branches, where=trunks.where)
    places = np.repeat(np.maximum(np.asarray(found.positions), 0), num_branches, -1)  # [P, M, B N]
    before: Any = Rollout._make(np.repeat(x[:, :, None], places.shape[-1], 2) for x in whole)
    rows = len(prompt_tokens), places.shape[1] * places.shape[2]
    before, places = jax.tree.map(lambda x: x.reshape(*rows, *x.shape[3:]), (before, places))
    prompts = prompts_with(prompt_tokens, prompt_valid, before.tokens, places)
    drawn: Any = jax.device_get(sample(model, params, *prompts, group=1, sampling=sampling, key=key, mesh=mesh))
    after = Rollout._make(x.reshape(*rows, *x.shape[2:]) for x in drawn)
    branches = _joined(before, after, places)
    return Rollout._make(np.concatenate(pair, 1) for pair in zip(whole, branches, strict=True))


def prompts_with(tokens: np.ndarray, valid: np.ndarray, response: np.ndarray, places: np.ndarray) -> tuple[Any, Any]:
    """Prompts with the kept beginning of a response after them, ``[P B, L + M]``, padded on the left."""
    rows, size = places.shape, response.shape[-1]
    kept = np.arange(size) < places[..., None]
    shape = (*rows, tokens.shape[-1])
    whole = np.concatenate([np.broadcast_to(tokens[:, None], shape), response], -1)
    real = np.concatenate([np.broadcast_to(valid[:, None], shape), kept], -1)
    order = np.argsort(real, -1, kind="stable")  # what is not real goes to the left, the rest keeps its order
    moved, kept = (np.take_along_axis(x, order, -1).reshape(-1, x.shape[-1]) for x in (whole, real))
    return np.where(kept, moved, 0), kept


def _joined(before: Any, after: Any, places: np.ndarray) -> Any:
    """The beginning of one response and the end of another, at most as long as both are."""
    size = before.tokens.shape[-1]
    index = np.arange(size)
    kept = index < places[..., None]
    source = np.clip(index - places[..., None], 0, size - 1)

    def join(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(kept, x, np.take_along_axis(y, source, -1))

    whole = places + after.lengths
    of_tokens = [join(x, y) for x, y in zip(before, after, strict=True) if np.ndim(x) == places.ndim + 1]
    tokens, where, *statistics = of_tokens
    ends: Any = np.minimum(whole, size), after.finished & (whole <= size)
    return Rollout._make((tokens, where, *ends, *statistics))
