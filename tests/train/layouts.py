"""The same training, 20 steps on fixed batches, on every layout of devices: what ``layouts_test`` compares.

``python -m tests.train.layouts FOLDER METHOD.DTYPE ...``, in each of several processes, writes the trajectories on the
devices of all of them into ``FOLDER``.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

import rlx
from rlx import models
from rlx.method import Method, Shapes
from rlx.train import processes, sharding, state, step
from rlx.train.critic import CriticSettings, with_critic

ROWS, GROUP, PROMPT, RESPONSE, VOCAB, EXAMPLES, STEPS = 8, 2, 3, 6, 32, 16, 20
OPTIMIZER = optax.sgd(0.3, momentum=0.5)
METHODS: dict[str, dict[str, Any]] = {
    "dpo": {"name": "dpo", "beta": 0.5},
    "kto": {"name": "kto", "beta": 0.5},
    "power_dl": {"name": "power_dl", "beta": 0.5, "gamma": 0.3},
    "clip_cov": {"name": "clip_cov_grpo", "select": "clip_cov_keep(1.0, 1.0, 0.2, 0.0, 50.0)"},
    "ppo": {"name": "ppo"},
}


class Layout(NamedTuple):
    """A mesh, micro-batches, and whether ``jax.pmap`` maps over the axis ``data`` instead."""

    mesh: dict[str, int]
    micro_batches: int = 1
    pmap: bool = False


ONE = Layout({})
LAYOUTS = {
    "data 8": Layout({"data": 8}),
    "fsdp 8": Layout({"fsdp": 8}),
    "data 2 x fsdp 2 x model 2": Layout({"data": 2, "fsdp": 2, "model": 2}),
    "fsdp 2 x sequence 2 x model 2": Layout({"fsdp": 2, "sequence": 2, "model": 2}),
    "pmap 8": Layout({"data": 8}, pmap=True),
    "4 micro-batches": Layout({}, 4),
    "data 2 x 2 micro-batches": Layout({"data": 2}, 2),
}
FINE = Layout({"data": 2}, 8)
"""Two devices have four rows each: eight micro-batches part the responses of a row."""


class Trajectory(NamedTuple):
    """Losses ``[STEPS]``, all parameters and all numbers of the method's state at the end."""

    losses: np.ndarray
    params: np.ndarray
    method_state: np.ndarray


def build(name: str, axis_name: str | None = None) -> Method:
    built = rlx.build(METHODS[name], axis_name=axis_name)
    return with_critic(built, CriticSettings()) if name == "ppo" else built


def make_model(dtype: str) -> models.Model:
    size = {"vocab_size": VOCAB, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
    return models.build({"name": "transformer", "dtype": dtype, "param_dtype": dtype, "head": "scalar", **size})


def make_batch(seed: int, name: str) -> dict[str, np.ndarray]:
    """Ragged rows with padding on both sides, and now and then a padding row; what responses bring is drawn, too."""
    rng = np.random.default_rng(seed)
    candidates = 1 if name == "kto" else GROUP
    shape = (ROWS, candidates, PROMPT + RESPONSE)

    def rows() -> tuple[np.ndarray, ...]:
        lengths = rng.integers(1, RESPONSE + 1, (ROWS, candidates, 1))
        starts = rng.integers(0, PROMPT, (ROWS, 1, 1))
        position = np.broadcast_to(np.arange(PROMPT + RESPONSE), shape)
        where = (position >= PROMPT) & (position < PROMPT + lengths)
        valid = where | ((position >= starts) & (position < PROMPT))
        return rng.integers(3, VOCAB, shape).astype(np.int32), valid, where

    batch = dict(zip(("tokens", "valid", "where"), rows(), strict=True))
    batch["candidate_where"] = np.ones((ROWS, candidates), bool)
    batch["candidate_where"][-1] = seed % 3 > 0
    batch["index"] = (np.arange(ROWS, dtype=np.int32) + seed * ROWS // 2) % EXAMPLES
    if name == "kto":
        batch |= dict(zip(("kl_tokens", "kl_valid", "kl_where"), rows(), strict=True))
        batch["labels"] = (rng.random((ROWS, 1)) < 0.5).astype(np.float32)
    if name in ("clip_cov", "ppo"):
        tokens = (ROWS, candidates, RESPONSE)
        batch["old_logprobs"] = -np.log(VOCAB) + 0.1 * rng.standard_normal(tokens)
        batch |= {name: rng.standard_normal(tokens) for name in ("token_rewards", "old_values", "returns")}
        batch["rewards"] = rng.standard_normal((ROWS, candidates))
    return batch


def of_process(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows that this process reads."""
    share = ROWS // jax.process_count()
    return {key: array[jax.process_index() * share :][:share] for key, array in batch.items()}


def trajectory(name: str, dtype: str, layout: Layout = ONE) -> Trajectory:
    """Trains with a method, everything in ``dtype``."""
    with jax.enable_x64(dtype == "float64"):
        model, mesh = make_model(dtype), sharding.make_mesh({} if layout.pmap else layout.mesh)
        built = build(name, "rows" if layout.pmap else None)
        current = state.create_state(model, built, OPTIMIZER, Shapes(16, VOCAB, EXAMPLES), seed=0, mesh=mesh)
        auxiliary = {"reference": jax.tree.map(jax.numpy.copy, current.params["policy"])}
        options = {"prompt_length": PROMPT, "micro_batches": layout.micro_batches}
        if layout.pmap:
            current, auxiliary = sharding.replicate((current, auxiliary), 8)
            advance = step.make_pmap_step(model, built, OPTIMIZER, axis_name="rows", **options)
        else:
            advance = step.make_train_step(model, built, OPTIMIZER, mesh=mesh, **options)
        losses = []
        for i in range(STEPS):
            batch = of_process({key: as_type(array, dtype) for key, array in make_batch(i, name).items()})
            if layout.pmap:
                placed = {key: array.reshape(8, -1, *array.shape[1:]) for key, array in batch.items()}
            else:
                placed = sharding.put_batch(batch, mesh)
            current, reported = advance(current, placed, auxiliary)
            losses.append(np.asarray(reported["loss"].value).flat[0])
        plain = jax.tree.map(lambda x: x[0], current) if layout.pmap else current
        return Trajectory(np.array(losses), flat(plain.params), flat(plain.method_state))


def as_type(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(dtype) if array.dtype.kind == "f" else array


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree, those on other processes' devices included."""

    def everywhere(x: jax.Array) -> Any:
        place = x.sharding
        return NamedSharding(place.mesh, PartitionSpec()) if isinstance(place, NamedSharding) else place

    whole = jax.jit(lambda tree: tree, out_shardings=jax.tree.map(everywhere, tree))(tree)
    return np.concatenate([np.zeros(0), *(np.asarray(x).ravel() for x in jax.tree.leaves(whole))])


@functools.cache
def one_device(name: str, dtype: str) -> Trajectory:
    return trajectory(name, dtype)


def main(folder: Path, wanted: list[str]) -> None:
    with processes.started(processes.plan_of({})):
        for key in wanted:
            name, dtype = key.split(".")
            found = trajectory(name, dtype, Layout({"data": 2, "fsdp": jax.device_count() // 2}))
            if jax.process_index() == 0:
                np.savez(folder / f"{key}.npz", **found._asdict())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
