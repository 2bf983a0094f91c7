"""A wish of any process that all learn of after the same step."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlx.train.interrupts import STOP

WISHES = ("", "stop", STOP, "SIGUSR1", "SIGTERM", "SIGINT")
"""What can be wished, the strongest last."""


def make_agreement() -> Callable[[str], str]:
    """``(own wish) -> wish of all``, called once after every step.

    With several processes the answer is what was wished one call before: it comes along with the step under way, so
    that no device waits for it.
    """
    if jax.process_count() == 1:
        return lambda wish: wish
    first = [next(d for d in jax.devices() if d.process_index == i) for i in range(jax.process_count())]
    mesh = Mesh(np.array(first), ("process",))
    strongest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
    spread = NamedSharding(mesh, PartitionSpec("process"))
    under_way: list[jax.Array] = []

    def agree(wish: str) -> str:
        own = np.array([WISHES.index(wish)], np.int32)
        under_way.append(strongest(jax.make_array_from_process_local_data(spread, own)))
        return WISHES[int(under_way.pop(0))] if len(under_way) > 1 else ""

    return agree
