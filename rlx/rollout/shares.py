"""Draws more responses to some prompts than to others, as many as there are altogether: the shapes stay the same."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rlx.models.base import Model, Params
from rlx.rollout.sampler import sample
from rlx.rollout.types import Rollout, Sampling


def sample_shares(
    model: Model,
    params: Params,
    prompt_tokens: np.ndarray,
    prompt_valid: np.ndarray,
    shares: np.ndarray,
    *,
    most: int,
    sampling: Sampling,
    key: jax.Array,
    mesh: Mesh | None = None,
) -> Rollout:
    """Continues prompt p of P ``shares[p]`` times.

    Every response is a row of its own in one call of the sampler, so that a program serves all shares of one sum. (The
    prompt is evaluated once for each response.)

    Args:
      model: as :func:`~rlx.rollout.sampler.sample` takes it.
      params: of the model.
      prompt_tokens: ``[P, L]``, padded on the left.
      prompt_valid: ``[P, L]``.
      shares: ``[P]`` responses to each prompt, from 1 to ``most``; where the mesh has several devices, their sum must
        divide over them.
      most: K, places for responses to a prompt.
      sampling: how they are drawn.
      key: of the draws.
      mesh: as ``sample`` takes it.

    Returns:
      ``[P, K, ...]``: the responses stand first, 0 and False is what is absent.

    Raises:
      UserError: as ``sample``.
    """
    rows = [np.repeat(x, shares, 0) for x in (prompt_tokens, prompt_valid)]
    drawn: Any = jax.device_get(sample(model, params, *rows, group=1, sampling=sampling, key=key, mesh=mesh))
    present = places(shares, most)
    return Rollout._make(scatter(x[:, 0], present) for x in drawn)


def places(shares: np.ndarray, most: int) -> np.ndarray:
    """Which places of a batch hold a response, ``[P, K]``.

    >>> places(np.array([2, 1]), 3).tolist()
    [[True, True, False], [True, False, False]]
    """
    return np.arange(most) < np.asarray(shares)[:, None]


def scatter(rows: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Rows put in their places, in order, and zeros in the others: ``[sum, ...]`` to ``[P, K, ...]``.

    >>> scatter(np.array([5, 6, 7]), np.array([[True, True], [True, False]])).tolist()
    [[5, 6], [7, 0]]
    """
    found = np.zeros((*present.shape, *rows.shape[1:]), rows.dtype)
    found[present] = rows
    return found
