"""Examples of calls: nested groups: segments, turns, anchor states, trees; and evolution strategies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlx.policy import evolution

Example = tuple[tuple[Any, ...], dict[str, Any]]


def anchor_states(rng: np.random.Generator) -> Example:
    rooms = ["hall", "kitchen", "garden"]
    return ([[rooms[i] for i in rng.integers(0, 3, n)] for n in (3, 1, 4)],), {}


def matchtir_matching_reward(rng: np.random.Generator) -> Example:
    return (rng.random((3, 4)),), {}


def eggroll_update(rng: np.random.Generator) -> Example:
    parameters = rng.normal(size=(4, 3)).astype(np.float32)
    noise = evolution.eggroll_noise(jax.random.key(0), jnp.zeros((4, 3), jnp.float32), members=jnp.arange(6))
    return (parameters, jax.tree.map(np.asarray, noise), rng.normal(size=6).astype(np.float32)), {"sigma": 0.2}


EXAMPLES = {
    "anchor_states": anchor_states,
    "matchtir_matching_reward": matchtir_matching_reward,
    "eggroll_update": eggroll_update,
}
