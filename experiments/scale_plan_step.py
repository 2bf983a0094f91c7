"""Compiles a training step for devices that are not there: ``python -m experiments.scale_plan_step CASE.json``.

Prints a line ``@case`` with what the compiler says: bytes on one device, operations, collectives.
:mod:`experiments.scale_plan` starts this, one process for each case.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.update({"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"})
os.environ["JAX_PLATFORMS"] = "cpu"  # the compiler of the devices described comes with a plug-in that needs none

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding

import rlx
from experiments.scale_plan_collectives import collectives
from rlx import models
from rlx.method import Method, Shapes
from rlx.models.moving import moving
from rlx.train import policies, sharding, state, step

METHODS: dict[str, Any] = {"dpo": "dpo", "grpo": {"name": "grpo", "kl": "k3(0.04)"}}


H200 = Path(__file__).parents[1] / "kernels" / "aot" / "h200.textproto"


def described(topology: str) -> list[Any]:
    """The devices of a topology: ``v5e:4x4`` of TPUs, or ``h200:1x1x8``, slices x hosts x GPUs of a host."""
    from jax.experimental import topologies

    name, _, shape = topology.partition(":")
    if name != "h200":
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)
    text = H200.read_text(encoding="utf-8")
    return list(topologies.get_topology_desc("", platform="cuda", topology=shape, target_config=text).devices)


@contextlib.contextmanager
def as_on(devices: list[Any]) -> Iterator[None]:
    """Traces as a process on these devices would: code that asks jax where it runs is told so."""
    backend = "tpu" if devices[0].platform == "tpu" else "gpu"
    with (
        mock.patch.object(jax, "default_backend", lambda: backend),
        mock.patch.object(jax, "devices", lambda *_: devices),
        mock.patch.object(jax, "local_devices", lambda *_: devices),
    ):
        yield


def batch_of(case: dict[str, Any], method: Method, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch, and what a rollout or a cache brings along."""
    rows, group, time_steps = case["rows"], case["group"], case["prompt"] + case["response"]
    place = NamedSharding(mesh, sharding.BATCH)

    def array(shape: tuple[int, ...], kind: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), kind, sharding=place)

    batch = {name: array((group, time_steps), kind) for name, kind in (("tokens", jnp.int32), ("valid", bool))}
    batch |= {"where": batch["valid"], "candidate_where": array((group,), bool), "index": array((), jnp.int32)}
    tokens = array((group, case["response"]), jnp.float32)
    brought = {"rewards": array((group,), jnp.float32), "old_logprobs": tokens}
    if case["reference"] == "cached":
        brought |= {"reference_logps": array((group,), jnp.float32), "reference_logprobs": tokens}
    names = {*method.needs, *method.prepare_needs, *method.optional}
    return batch | {name: x for name, x in brought.items() if name in names}


def as_held(rule: policies.Rule, blank: Any) -> Any:
    """What ``policies.held_as`` makes of parameters, in the same places."""
    held = jax.eval_shape(partial(policies.held_as, rule), blank)
    return jax.tree.map(lambda x, of: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=of.sharding), held, blank)


def compile_case(case: dict[str, Any]) -> dict[str, Any]:
    """What the compiler says of the step of a case.

    Raises:
      Exception: whatever it has to complain of, memory above all.
    """
    devices = described(case["topology"])
    sizes = [case["mesh"].get(axis, 1) for axis in sharding.AXES]
    mesh = Mesh(np.array(devices).reshape(sizes), sharding.AXES, axis_types=(AxisType.Auto,) * len(sizes))
    model, method, optimizer = models.build(case["model"]), rlx.build(METHODS[case["method"]]), optax.adamw(1e-6)
    blank = state.blank_state(model, method, optimizer, Shapes(model.hidden_size, model.vocab_size), mesh=mesh)
    on_the_fly = case["reference"] == "on the fly"
    rule = policies.Rule(dtype="bfloat16")
    auxiliary = {"reference": as_held(rule, moving(model, blank.params["policy"]))} if on_the_fly else {}
    rules = {"reference": rule}
    began = time.perf_counter()
    options = {"prompt_length": case["prompt"], "micro_batches": case["micro_batches"], "rules": rules}
    with as_on(devices):
        advance = step.make_train_step(model, method, optimizer, mesh=mesh, **options)
        lowered = advance.lower(blank, batch_of(case, method, mesh), auxiliary)
    compiled = lowered.compile()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if case.get("dump"):
        Path(case["dump"]).write_text(text, encoding="utf-8")
    sizes_of = {
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    return {
        "device": devices[0].device_kind,
        "chips": len(devices),
        "parameters": sum(x.size for x in jax.tree.leaves(blank.params["policy"])),
        "bytes": sizes_of,
        "collectives": collectives(text),
        "compile_s": round(time.perf_counter() - began, 1),
    }


def main(argv: list[str]) -> None:
    case = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    if case.get("libtpu"):
        sys.path.append(case["libtpu"])
    print("@case", json.dumps(compile_case(case)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
