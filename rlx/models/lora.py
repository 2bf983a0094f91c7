"""Low-rank adapters of linear maps, ``y = x W + s (x A) B``: W stays, A and B are trained.

References: Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv:2106.09685; the scale of
``use_rslora`` is that of Kalajdzievski, arXiv:2312.03732.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rlx.errors import UserError, close_matches
from rlx.models.base import Model, Params
from rlx.ops.product import weight_product

TARGETS = {
    "query": "attention",
    "key": "attention",
    "value": "attention",
    "output": "attention",
    "gate": "mlp",
    "up": "mlp",
    "down": "mlp",
}
"""Names of the linear maps of a block, and the part of it where they are."""
ALL = "all-linear"
INITS = ("kaiming", "gaussian")


@dataclasses.dataclass(frozen=True)
class Lora:
    """The block ``model.lora``.

    Attributes:
        rank: r, columns of A.
        alpha: the product is scaled by ``alpha / r``.
        targets: linear maps that get an adapter, of :data:`TARGETS`, or ``'all-linear'``.
        modules: ``{target: {"rank": r, "alpha": a}}``, where a target differs.
        use_rslora: scale by ``alpha / sqrt(r)``.
        init: how A starts; B starts at 0. ``kaiming``: uniform within ``1 / sqrt(I)``; ``gaussian``: of deviation
            ``1 / r``.
        adapter: folder of an adapter in PEFT's format to start from; what the block leaves out is as it has it.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: Any = ("query", "value")
    modules: Any = ()
    use_rslora: bool = False
    init: str = "kaiming"
    adapter: str | None = None

    def __post_init__(self):
        targets = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        targets = tuple(TARGETS) if ALL in targets else targets
        modules = self.modules.items() if isinstance(self.modules, Mapping) else self.modules
        modules = tuple((name, tuple(sorted(dict(own).items()))) for name, own in modules)
        object.__setattr__(self, "targets", tuple(name for name in TARGETS if name in targets) or targets)
        object.__setattr__(self, "modules", modules)
        _check(self, targets)

    def rank_of(self, target: str) -> int:
        """r of a target.

        >>> Lora(modules={"value": {"rank": 4}}).rank_of("value")
        4
        """
        return self._own(target).get("rank", self.rank)

    def alpha_of(self, target: str) -> float:
        """alpha of a target."""
        return self._own(target).get("alpha", self.alpha)

    def scale_of(self, target: str) -> float:
        """What the product ``A B`` of a target is multiplied by.

        >>> Lora(rank=4, alpha=8).scale_of("query"), Lora(rank=4, alpha=8, use_rslora=True).scale_of("query")
        (2.0, 4.0)
        """
        rank = self.rank_of(target)
        return self.alpha_of(target) / (rank**0.5 if self.use_rslora else rank)

    def _own(self, target: str) -> dict[str, Any]:
        return dict(dict(self.modules).get(target, ()))


def _check(c: Lora, targets: tuple[str, ...]) -> None:
    options = (*TARGETS, ALL)
    if not targets:
        raise UserError(f"model.lora.targets is empty: name some of {', '.join(options)}.")
    for key, names in (("targets", targets), ("modules", [name for name, _ in c.modules])):
        for name in names:
            if name not in TARGETS:
                hint = close_matches(str(name), options)
                raise UserError(f"model.lora.{key}: unknown linear map {name!r}.{hint} Known: {', '.join(options)}.")
            if name not in targets:
                raise UserError(f"model.lora.modules.{name} is not used: {name} is not among the targets.")
    for name, own in c.modules:
        for key, _ in own:
            if key not in ("rank", "alpha"):
                raise UserError(f"model.lora.modules.{name} has no key {key!r}.{close_matches(key, ('rank', 'alpha'))}")
    for name in targets:
        rank, alpha = c.rank_of(name), c.alpha_of(name)
        if type(rank) is not int or rank < 1:
            raise UserError(f"model.lora: the rank of {name} must be a whole number of at least 1, not {rank!r}.")
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
            raise UserError(f"model.lora: alpha of {name} must be a number above 0, not {alpha!r}.")
    if c.init not in INITS:
        raise UserError(f"model.lora.init: unknown {c.init!r}.{close_matches(str(c.init), INITS)} Known: {INITS}.")


def settings_of(block: Mapping[str, Any] | Lora | None) -> Lora | None:
    """The block, checked; None where it is empty: no adapter.

    Raises:
        UserError: an unknown key, with close matches, or an impossible value.

    >>> settings_of({"rnk": 4})
    Traceback (most recent call last):
    rlx.errors.UserError: model.lora has no key 'rnk'. Did you mean 'rank'? ...
    """
    if block is None or isinstance(block, Lora):
        return block
    if not block:
        return None
    keys = [field.name for field in dataclasses.fields(Lora)]
    for key in block:
        if key not in keys:
            raise UserError(f"model.lora has no key {key!r}.{close_matches(key, keys)} Keys: {', '.join(keys)}.")
    if block.get("adapter") is None:
        return Lora(**block)
    from rlx.models import peft

    return Lora(**{**peft.read_settings(block["adapter"]), **block})


class LowRank(nnx.Module):
    """``x -> s (x A) B``: two thin products, ``A [I, r]``, ``B [r, O]``; the rank is not split over devices."""

    def __init__(self, weights: Callable, kernel: nnx.Param, rank: int, scale: float, dtype: str):
        (size, width), (inner, outer) = kernel[...].shape[-2:], kernel.get_metadata("axes")[-2:]
        self.scale, self.dtype = scale, dtype
        self.a = weights((size, rank), (inner, "rank"))
        self.b = weights((rank, width), ("rank", outer))

    def factors(self) -> tuple[jax.Array, jax.Array]:
        """A and B in the type of the computation."""
        return self.a[...].astype(self.dtype), self.b[...].astype(self.dtype)

    def product(self, x: jax.Array, factors: tuple[jax.Array, jax.Array]) -> jax.Array:
        """``s (x A) B``."""
        a, b = factors
        return weight_product(weight_product(x, a) * self.scale, b)


def attach(block: Any, weights: Any, lora: Lora | None) -> None:
    """Gives the linear maps of a transformer block their adapters, stored in at least float32."""
    if lora is None:
        return
    kind = str(jnp.promote_types(weights.param_dtype, jnp.float32))
    own = type(weights)(weights.dtype, kind, weights.stack)
    for name in lora.targets:
        linear = getattr(getattr(block, TARGETS[name]), name)
        adapter = LowRank(own, linear.kernel, lora.rank_of(name), lora.scale_of(name), weights.dtype)
        linear.lora = nnx.data(adapter)


def draw(lora: Lora, names: list[str], shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> np.ndarray:
    """The first numbers of a leaf: A is drawn, B is 0, so that the model starts as it is without the adapter."""
    if names[-1] == "b":
        return np.zeros(shape, dtype)
    kind = np.float64 if dtype == np.float64 else np.float32
    if lora.init == "gaussian":
        return (rng.standard_normal(shape, kind) / kind(shape[1])).astype(dtype)
    return ((2 * rng.random(shape, kind) - 1) / kind(np.sqrt(shape[0]))).astype(dtype)


def starting(lora: Lora, init: Callable[..., Params]) -> Callable[..., Params]:
    """``init``, and the adapter to start from where the settings name one."""
    if lora.adapter is None:
        return init
    folder = Path(lora.adapter)

    def start(seed: int, shardings: Any = None) -> Params:
        from rlx.models import peft

        filled = peft.fill(folder, lora, init(seed, shardings))
        return filled if shardings is None else jax.tree.map(_put, filled, shardings)

    return start


def _put(leaf: Any, where: Any) -> jax.Array:
    """The array in its place, where what was read from a file is not yet."""
    if isinstance(leaf, jax.Array):
        return leaf
    return jax.make_array_from_callback(leaf.shape, where, lambda index: leaf[index])


def trainable(lora: Lora | None, freeze: tuple[str, ...], params: Params) -> Any:
    """Which leaves training moves: adapters and heads, or everything without adapters; never what is frozen."""

    def moves(path: Any, _: Any) -> bool:
        names = [entry.key for entry in path]
        return (lora is None or "lora" in names or names[0] == "head") and not _matches(names, freeze)

    return jax.tree_util.tree_map_with_path(moves, params)


def _matches(names: list[str], patterns: tuple[str, ...]) -> bool:
    return any(_within(names, pattern.split("/")) for pattern in patterns)


def _within(names: list[str], wanted: list[str]) -> bool:
    return any(names[i : i + len(wanted)] == wanted for i in range(len(names)))


def check_freeze(freeze: tuple[str, ...], shapes: Params) -> None:
    """Raises a UserError for a name that no parameter has."""
    paths = [[entry.key for entry in path] for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    for pattern in freeze:
        if not any(_within(path, pattern.split("/")) for path in paths):
            known = sorted({name for path in paths for name in path})
            raise UserError(f"model.freeze: no parameter is called {pattern!r}.{close_matches(pattern, known)}")


def adapted(params: Params) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The linear maps of ``params`` that have an adapter: their path and what they hold."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), params)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, Mapping):
            continue
        if "lora" in node:
            yield path, dict(node)
        stack += [((*path, name), child) for name, child in node.items() if name != "lora"]


def merge(model: Model, params: Params) -> Params:
    """The parameters of the same model without adapters: ``W + s A B`` in the type of W, the same bits every time.

    Raises:
        UserError: the model has no adapters.
    """
    lora = model.lora
    if lora is None:
        raise UserError("this model has no adapters to merge: its config has no model.lora.")

    def merged(node: Any, name: str) -> Any:
        if not isinstance(node, Mapping):
            return node
        rest = {key: merged(child, key) for key, child in node.items() if key != "lora"}
        return rest | ({"kernel": _sum(node["kernel"], node["lora"], lora.scale_of(name))} if "lora" in node else {})

    return merged(params, "")


@functools.partial(jax.jit, static_argnums=2)
def _sum(kernel: jax.Array, factors: dict[str, jax.Array], scale: float) -> jax.Array:
    kind = jnp.promote_types(kernel.dtype, factors["a"].dtype)
    product = jnp.matmul(factors["a"].astype(kind), factors["b"].astype(kind), precision="highest")
    return (kernel.astype(kind) + scale * product).astype(kernel.dtype)
