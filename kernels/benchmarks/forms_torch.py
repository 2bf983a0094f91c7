"""The baselines in PyTorch: naive, and what TRL, Liger and Cut Cross-Entropy offer. Each is optional."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from forms import Form, Unavailable, needed
from shapes import Case

CHUNK = 4096
"""Columns of a chunk where a library leaves the choice to its caller."""


class Eager:
    """A form in PyTorch. Weights are kept as ``[V, D]``, the layout of its libraries; arrays of JAX are not copied."""

    def __init__(self, function: Callable, case: Case, *, entropy: bool = True):
        self.torch = needed("torch")
        self.torch.set_num_threads(os.cpu_count() or 1)
        self.function, self.entropy, self.costs = function, entropy, {}
        self._loaded: dict[int, tuple[Any, list[Any], Any]] = {}
        self._load(case)

    def _load(self, case: Case) -> tuple[list[Any], Any]:
        """Arrays and targets of a case, converted once."""
        key = id(case.targets)
        if key not in self._loaded:
            first, *rest = map(self.torch.from_dlpack, case.arrays)
            arrays = [first.detach().requires_grad_(), *(w.T.contiguous().requires_grad_() for w in rest)]
            self._loaded[key] = case.targets, arrays, self.torch.from_dlpack(case.targets).long()
        return self._loaded[key][1:]

    def _wait(self) -> None:
        if self.torch.cuda.is_available():
            self.torch.cuda.synchronize()

    def forward(self, case: Case) -> Any:
        """Values."""
        arrays, targets = self._load(case)
        with self.torch.no_grad():
            out = self.function(*arrays, targets)
        self._wait()
        return out

    def both(self, case: Case) -> Any:
        """Gradients, those of weights as ``[D, V]`` views."""
        arrays, targets = self._load(case)
        a, b = map(self.torch.from_dlpack, (case.a, case.b))
        logp, entropy = self.function(*arrays, targets)
        loss = (a * logp).sum() if entropy is None else (a * logp).sum() + (b * entropy).sum()
        first, *rest = self.torch.autograd.grad(loss, arrays)
        self._wait()
        return first, *(gradient.T for gradient in rest)


def capped(case: Case, logits: Any) -> Any:
    """The logits after the soft-cap of the case."""
    cap = case.shape.softcap
    return logits if cap is None else cap * (logits / cap).tanh()


def of_logits(case: Case, function: Callable, **options: Any) -> Eager:
    """A form of given logits, with the product before it if the case is a head."""
    if len(case.arrays) == 1:
        return Eager(lambda logits, targets: function(capped(case, logits), targets), case, **options)
    return Eager(lambda x, w, targets: function(capped(case, x @ w.T), targets), case, **options)


def naive_statistics(logits: Any, targets: Any) -> tuple[Any, Any]:
    """log_softmax in float32, gather, entropy."""
    logp = logits.float().log_softmax(-1)
    return logp.gather(-1, targets[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def naive(case: Case) -> Eager:
    """What most code does."""
    return of_logits(case, naive_statistics)


def compiled(case: Case) -> Eager:
    """The naive form after ``torch.compile``."""
    torch = needed("torch")
    if not torch.cuda.is_available():
        raise Unavailable("needs a GPU: on a CPU it wants a C++ compiler")
    return of_logits(case, torch.compile(naive_statistics))


def trl_full(case: Case) -> Eager:
    """TRL's two functions of whole logits."""
    utils = needed("trl.trainer.utils")
    return of_logits(case, lambda z, t: (utils.selective_log_softmax(z, t), utils.entropy_from_logits(z)))


def trl_chunked(case: Case) -> Eager:
    """TRL's head in chunks of the vocabulary."""
    apply = needed("trl.kernels.chunked_logprob").ChunkedLogProbFunction.apply
    cap = case.shape.softcap
    return Eager(lambda x, w, t: apply(x, w, None, t, 1.0, CHUNK, cap, 1.0, ("entropy",))[:2], case)


def liger(case: Case) -> Eager:
    """Liger's head in chunks of the vocabulary: log-probability alone."""
    apply = needed("liger_kernel.chunked_loss.fused_linear_ppo")._ChunkedSelectiveLogProbFunction.apply
    if case.shape.softcap is not None:
        raise Unavailable("has no soft-cap")
    return Eager(lambda x, w, t: (apply(x, w, t, None, 1.0, CHUNK), None), case, entropy=False)


def cut_cross_entropy(case: Case) -> Eager:
    """Cut Cross-Entropy without its filter of small gradients: log-probability alone."""
    loss = functools.partial(needed("cut_cross_entropy").linear_cross_entropy, reduction="none", filter_eps=None)
    if not needed("torch").cuda.is_available():
        raise Unavailable("needs a GPU")
    return Eager(lambda x, w, t: (-loss(x, w, t, softcap=case.shape.softcap), None), case, entropy=False)


GIVEN = [Form("torch naive", naive), Form("torch compile", compiled), Form("TRL", trl_full)]
HEAD = [
    *GIVEN,
    Form("TRL chunked", trl_chunked),
    Form("Liger chunked (logp only)", liger),
    Form("Cut Cross-Entropy (logp only)", cut_cross_entropy),
]
