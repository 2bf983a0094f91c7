"""What is measured: a form has a name and, for given inputs, a way to run forward and with gradients."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import plain
from shapes import Case

from rlx import ops

FORWARD, BOTH = "forward", "forward+backward"
STATISTICS = ("logp", "entropy")


class Unavailable(Exception):
    """Why a form cannot run here or on these inputs; the table says it."""


class Runner(Protocol):
    """A form that is ready to run: whether its loss has an entropy, and what is known of a pass without running it."""

    entropy: bool
    costs: dict[str, dict[str, float]]

    def forward(self, case: Case) -> Any:
        """Log-probability and entropy, None for what the form does not give; waits for them."""

    def both(self, case: Case) -> Any:
        """Gradients of ``sum(a logp + b entropy)``, computed together with its value; waits for both."""


class Form(NamedTuple):
    """A name and what makes a runner of it; that may raise :class:`Unavailable`."""

    name: str
    build: Callable[[Case], Runner]


class Compiled:
    """A form in JAX, compiled beforehand for the inputs of a case."""

    def __init__(self, function: Callable, case: Case, *, entropy: bool = True):
        self.entropy, self.costs = entropy, {}
        inputs = (*case.arrays, case.targets)
        self._forward = self._compile(FORWARD, function, inputs)
        self._both = self._compile(BOTH, plain.value_and_grad(function, len(case.arrays)), case.arguments)

    def _compile(self, name: str, function: Callable, arguments: tuple[Any, ...]) -> Callable:
        start = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        seconds, memory = time.perf_counter() - start, compiled.memory_analysis()
        self.costs[name] = {"compile_s": seconds, "temp_mib": memory.temp_size_in_bytes / 2**20}
        return compiled

    def forward(self, case: Case) -> Any:
        """Values."""
        return jax.block_until_ready(self._forward(*case.arrays, case.targets))

    def both(self, case: Case) -> Any:
        """Gradients."""
        return jax.block_until_ready(self._both(*case.arguments))[1]


def naive(case: Case) -> Compiled:
    """What most code does, on the whole logits."""
    function = plain.given if len(case.arrays) == 1 else plain.head
    return Compiled(functools.partial(function, softcap=case.shape.softcap), case)


def saved(case: Case) -> Compiled:
    """The whole logits with a gradient written by hand."""
    if case.shape.softcap is not None:
        raise Unavailable("has no soft-cap")
    return Compiled(plain.given_saved if len(case.arrays) == 1 else plain.head_saved, case)


def ours(implementation: str | None, case: Case) -> Compiled:
    """``rlx.ops``, one body forced; None is what it picks by itself."""
    function = ops.token_statistics if len(case.arrays) == 1 else ops.linear_token_statistics
    options = {"statistics": STATISTICS, "softcap": case.shape.softcap, "implementation": implementation}

    def form(*inputs: jax.Array) -> tuple[Any, Any]:
        out = function(*inputs, **options)
        return out.logp, out.entropy

    try:
        return Compiled(form, case)
    except NotImplementedError as reason:
        raise Unavailable(f"declines: {reason}") from reason


class Summed(Compiled):
    """A form that gives nothing but ``-sum(logp)``, so that its gradients are of that: timed, not checked."""

    def __init__(self, function: Callable, case: Case):
        self.entropy, self.costs = False, {}
        inputs = (*case.arrays, case.targets)
        self._forward = self._compile(FORWARD, function, inputs)
        self._both = self._compile(BOTH, jax.value_and_grad(function, tuple(range(len(case.arrays)))), inputs)

    def forward(self, case: Case) -> Any:
        """Nothing to look at."""
        jax.block_until_ready(self._forward(*case.arrays, case.targets))
        return None, None

    def both(self, case: Case) -> Any:
        """Gradients."""
        return jax.block_until_ready(self._both(*case.arrays, case.targets))[1]


class Fused(Compiled):
    """``rlx.ops.fused_linear_token_loss``: the whole loss at once, with the gradient made on the way forward."""

    def __init__(self, case: Case):
        self.entropy, self.costs = True, {}

        def loss(x: jax.Array, w: jax.Array, targets: jax.Array, *weights: jax.Array) -> jax.Array:
            def of_token(found, a, b):
                return a * found.logp + b * found.entropy

            options = {"statistics": STATISTICS, "softcap": case.shape.softcap}
            return ops.fused_linear_token_loss(of_token, x, w, targets, *weights, **options)

        self._forward = self._compile(FORWARD, loss, case.arguments)
        self._both = self._compile(BOTH, jax.value_and_grad(loss, (0, 1)), case.arguments)

    def forward(self, case: Case) -> Any:
        """Nothing but the loss, which is not looked at."""
        jax.block_until_ready(self._forward(*case.arguments))
        return None, None


def tokamax(implementation: str, case: Case) -> Compiled:
    """tokamax's cross-entropy of a head: the sum over tokens, no entropy."""
    module = needed("tokamax")
    if case.shape.softcap is not None:
        raise Unavailable("has no soft-cap")

    def form(x, w, targets):
        return module.linear_softmax_cross_entropy_loss(x, targets, w, reduction="sum", implementation=implementation)

    try:
        return Summed(form, case)
    except (NotImplementedError, ValueError) as reason:
        raise Unavailable(f"declines: {str(reason).splitlines()[0]}") from reason


def needed(module: str) -> Any:
    """A module that a baseline needs; one that is absent or does not load makes the baseline unavailable."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Unavailable(f"not installed ({error.name})") from error
    except Exception as error:  # built for another jax or torch
        raise Unavailable(f"does not load: {type(error).__name__}: {str(error).splitlines()[0][:80]}") from error


def implementations() -> tuple[str, ...]:
    """The bodies that this machine can run, the plain one last."""
    kernel = {"tpu": ("tpu",), "gpu": ("hopper",)}.get(jax.default_backend(), ())
    return (*kernel, "xla", "reference")


def of_jax(names: list[str] | None) -> list[Form]:
    """The baselines in JAX and our bodies, all that this machine can run or those named."""
    bodies = [Form(f"rlx {name}", functools.partial(ours, name)) for name in names or implementations()]
    return [Form("jax naive", naive), Form("jax custom_vjp", saved), *bodies]
