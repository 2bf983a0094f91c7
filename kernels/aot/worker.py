"""Compiles every program for one target, in a process of its own: ``python worker.py TARGET [ROWS WIDTH VOCABULARY]``.

Prints a line ``@begin`` before and a line ``@end {json}`` after each program; compilers print in between.
:mod:`compile` starts this and reads it.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import plain
import targets
from jax.sharding import SingleDeviceSharding

from rlx import ops

SHAPE = (8192, 4096, 151936)
STATISTICS = ("logp", "entropy")
FORMS = ("kernel", "xla", "naive")


@contextlib.contextmanager
def as_on(device: Any) -> Iterator[None]:
    """Traces as a process on ``device`` would: code that asks jax where it runs is told so."""
    backend = "tpu" if device.platform == "tpu" else "gpu"
    with (
        mock.patch.object(jax, "default_backend", lambda: backend),
        mock.patch.object(jax, "devices", lambda *_: [device]),
        mock.patch.object(jax, "local_devices", lambda *_: [device]),
    ):
        yield


def head(implementation: str | None) -> Callable:
    """Log-probability and entropy of ``x @ w``; without an implementation the way most code does it."""
    if implementation is None:
        return plain.head

    def form(x, w, targets):
        return ops.linear_token_statistics(x, w, targets, statistics=STATISTICS, implementation=implementation)[:2]

    return form


def given(implementation: str | None) -> Callable:
    """The same of given logits."""
    if implementation is None:
        return plain.given

    def form(logits, targets):
        return ops.token_statistics(logits, targets, statistics=STATISTICS, implementation=implementation)[:2]

    return form


def programs(target: targets.Target, device: Any, shape: tuple[int, int, int]) -> Iterator[tuple[dict, Callable, list]]:
    """What is compiled: its name, the function, the shapes of its arguments on the device."""
    rows, width, vocabulary = shape
    here = functools.partial(jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(device))
    numbers = [here((rows,), jnp.int32), here((rows,), jnp.float32), here((rows,), jnp.float32)]
    x, w = here((rows, width), jnp.bfloat16), here((width, vocabulary), jnp.bfloat16)
    inputs = {"head": (head, [x, w]), "given logits": (given, [here((rows, vocabulary), jnp.bfloat16)])}
    for op, (make, arrays) in inputs.items():
        for form in FORMS:
            function = make({"kernel": target.kernel, "xla": "xla", "naive": None}[form])
            name = {"target": target.name, "op": op, "form": form}
            yield name | {"pass": "forward"}, function, [*arrays, numbers[0]]
            gradient = plain.value_and_grad(function, len(arrays))
            yield name | {"pass": "forward+backward"}, gradient, [*arrays, *numbers]


def compile_program(device: Any, function: Callable, arguments: list) -> dict[str, Any]:
    """Temporary memory, kernels and compile time of one program, or the reason why there is none."""
    start = time.perf_counter()
    try:
        with as_on(device):
            lowered = jax.jit(function).lower(*arguments)
        compiled = lowered.compile()
    except Exception as error:  # whatever a compiler has to say is the result
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    calls = re.findall(r'custom_call_target="([^"]+)"', compiled.as_text())
    return {
        "temp_mib": round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 2),
        "kernels": sum("tpu_custom_call" in call or "mosaic" in call for call in calls),
        "custom_calls": dict(collections.Counter(calls)),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main(argv: list[str]) -> None:
    """Compiles for ``argv[0]``; numbers behind it replace the shape."""
    target = targets.TARGETS[argv[0]]
    device = targets.device(target)
    shape = tuple(map(int, argv[1:])) or SHAPE
    for name, function, arguments in programs(target, device, shape):
        print("@begin", flush=True)
        found = name | {"device": device.device_kind, "shape": shape} | compile_program(device, function, arguments)
        print("@end", json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
