"""Decoder-only transformer (Llama, Qwen, Gemma, Mistral): nnx modules inside, pure functions outside."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rlx import fields
from rlx.errors import UserError, close_matches
from rlx.models import axes, lora
from rlx.models.base import Decode, Model, Params
from rlx.models.heads import ScalarHead
from rlx.models.layers import ACTIVATIONS, Attention, RMSNorm, SwiGLU, Weights, causal_mask, rotary_tables
from rlx.models.rope import RopeScaling, scaling_of

CHOICES = {
    "head": ("none", "scalar"),
    "remat": ("none", "dots", "full"),
    "dtype": ("float32", "bfloat16", "float64"),
    "activation": tuple(ACTIVATIONS),
}
KINDS = ("full", "sliding")
SIZES = {
    "vocab_size": (1, 2**24),
    "hidden_size": (1, 2**20),
    "num_layers": (0, 10_000),
    "num_heads": (1, 2**16),
    "num_kv_heads": (0, 2**16),
    "head_dim": (0, 2**16),
    "intermediate_size": (0, 2**24),
}
"""Bounds: what lies beyond is a mistake, or a file that means harm."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options. Sizes that are 0 follow the usual ratios: ``num_kv_heads = num_heads``,
    ``head_dim = hidden_size / num_heads``, ``intermediate_size = 4 * hidden_size``.

    Attributes:
        head: ``'scalar'`` adds a value or reward head.
        remat: ``'full'`` recomputes each layer in the backward pass: a third of the memory; ``'dots'`` keeps the
            products with weights and recomputes the rest, attention above all.
        attention_block: causal attention works off so many queries at a time, each block against the keys up to its own
            end, and again in the backward pass: memory grows with the length, not with its square, and half of the
            products are saved. For long sequences; 0: all at once.
        scan_layers: one traced layer under ``lax.scan`` with stacked weights: faster to compile from about 8 layers.
        dtype: type of the computation; ``float64`` needs ``jax_enable_x64``.
        param_dtype: type of the parameters, by default the wider of float32 and ``dtype``.
        lora: block of :class:`rlx.models.lora.Lora`: low-rank adapters and the scalar head are trained, the rest stays.
        freeze: names of parameters, or of parts of the tree of parameters (``'embedding'``, ``'layers/0'``), that stay.
        init_std: standard deviation of the first weights; narrow models (below some 256) learn sooner from 0.1.
        activation: of the gate, ``silu`` or ``gelu_tanh``.
        qk_norm: a norm of each head's queries and keys before the rotation.
        norm_offset: is added to the stored scale of every norm: 1 in Gemma.
        post_norms: a norm of what attention and feed-forward give, before it is added to the residual stream.
        embed_scale: multiply embeddings by ``sqrt(hidden_size)``, rounded to ``dtype``.
        query_scalar: scores are divided by its square root, by that of ``head_dim`` where it is 0.
        attention_softcap: ``c * tanh(score / c)`` before the mask; 0: none.
        softcap: the same of the logits, see ``Model.softcap``.
        sliding_window: a token of a sliding layer sees itself and ``sliding_window - 1`` tokens before it; 0: all.
        layer_pattern: kinds of layers, ``sliding`` or ``full``, repeated over the depth; empty: sliding ones if there
            is a window.
        rope_local_theta: of sliding layers, which are not scaled then; 0: that of the others.
        rope_scaling: block of :class:`rlx.models.rope.RopeScaling`.
    """

    vocab_size: int = 259
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 0
    head_dim: int = 0
    intermediate_size: int = 0
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    qkv_bias: bool = False
    head: str = "none"
    remat: str = "none"
    attention_block: int = 0
    scan_layers: bool = False
    dtype: str = "float32"
    param_dtype: str = ""
    init_std: float = 0.02
    activation: str = "silu"
    qk_norm: bool = False
    norm_offset: float = 0.0
    post_norms: bool = False
    embed_scale: bool = False
    query_scalar: float = 0.0
    attention_softcap: float = 0.0
    softcap: float = 0.0
    sliding_window: int = 0
    layer_pattern: tuple[str, ...] = ()
    rope_local_theta: float = 0.0
    rope_scaling: RopeScaling | Mapping[str, Any] | None = None
    lora: lora.Lora | Mapping[str, Any] | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self):
        self._check_values()
        for field, allowed in CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                hint = close_matches(str(value), allowed)
                raise UserError(f"model.{field}={value!r} must be one of {', '.join(allowed)}.{hint}")
        set_default = functools.partial(object.__setattr__, self)
        set_default("num_kv_heads", self.num_kv_heads or self.num_heads)
        set_default("head_dim", self.head_dim or self.hidden_size // self.num_heads)
        set_default("intermediate_size", self.intermediate_size or 4 * self.hidden_size)
        set_default("param_dtype", self.param_dtype or ("float64" if self.dtype == "float64" else "float32"))
        set_default("lora", lora.settings_of(self.lora))
        set_default("freeze", (self.freeze,) if isinstance(self.freeze, str) else tuple(self.freeze))
        if self.num_heads % self.num_kv_heads:
            sizes = f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}"
            raise UserError(f"model.num_heads must be a multiple of model.num_kv_heads: {sizes}")
        if not isinstance(self.attention_block, int) or self.attention_block < 0:
            raise UserError(f"model.attention_block is a number of queries, 0 or more, not {self.attention_block!r}.")
        if self.head_dim % 2:
            raise UserError(f"model.head_dim must be even for rotary embeddings, not {self.head_dim}")
        set_default("rope_scaling", scaling_of(self.rope_scaling))
        set_default("layer_pattern", tuple(self.layer_pattern or ()))
        self._check_windows()

    def _check_values(self) -> None:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        loose = ("freeze", "layer_pattern", *CHOICES)  # checked, or made a tuple, below
        fields.check(Config, {key: value for key, value in values.items() if key not in loose}, "model")
        for key, (low, high) in SIZES.items():
            if not low <= values[key] <= high:
                raise UserError(f"model.{key} must be at least {low} and at most {high}, not {values[key]}")

    def _check_windows(self) -> None:
        for kind in self.layer_pattern:
            if kind not in KINDS:
                hint = close_matches(str(kind), KINDS)
                raise UserError(f"model.layer_pattern has the kind {kind!r}; kinds are {', '.join(KINDS)}.{hint}")
        if len(self.layer_pattern) > self.num_layers:
            counts = f"{len(self.layer_pattern)} kinds, model.num_layers={self.num_layers}"
            raise UserError(f"model.layer_pattern is longer than the model is deep: {counts}")
        for key in ("sliding_window", "softcap", "attention_softcap", "query_scalar", "rope_local_theta"):
            if getattr(self, key) < 0:
                raise UserError(f"model.{key}={getattr(self, key)} must not be negative (0: off)")
        if "sliding" in self.layer_pattern and not self.sliding_window:
            raise UserError("model.layer_pattern has sliding layers: set model.sliding_window to the tokens they see")

    @property
    def windows(self) -> tuple[int, ...]:
        """The sliding window of each layer, 0 where it sees everything."""
        pattern = self.layer_pattern or ("sliding",)
        kinds = (pattern[i % len(pattern)] for i in range(self.num_layers))
        return tuple(self.sliding_window if kind == "sliding" else 0 for kind in kinds)


class Block(nnx.Module):
    """Pre-norm residual block on ``[B * T, D]``."""

    def __init__(self, c: Config, weights: Weights):
        norm = functools.partial(RMSNorm, weights, c.hidden_size, c.norm_eps, c.norm_offset)
        self.attention_norm = norm()
        self.attention = Attention(weights, c)
        self.attention_post_norm = norm() if c.post_norms else None
        self.mlp_norm = norm()
        self.mlp = SwiGLU(weights, c.hidden_size, c.intermediate_size, c.activation)
        self.mlp_post_norm = norm() if c.post_norms else None
        lora.attach(self, weights, lora.settings_of(c.lora))

    def join(self, x: jax.Array, attended: jax.Array) -> jax.Array:
        """The residual stream after what attention found, and after the feed-forward that reads it."""
        x = axes.activation(x + (attended if self.attention_post_norm is None else self.attention_post_norm(attended)))
        y = self.mlp(self.mlp_norm(x))
        return axes.activation(x + (y if self.mlp_post_norm is None else self.mlp_post_norm(y)))

    def keep(self, x: jax.Array, rope, mask: Any, rows: tuple[int, int]):
        """The output and the keys and values it attended to, ``[B, G, T, d]``."""
        q, k, v = self.attention.project(self.attention_norm(x), rope, rows)
        return self.join(x, self.attention.mix(q, k, v, mask)), k, v

    def __call__(self, x: jax.Array, *context: Any) -> jax.Array:
        return self.keep(x, *context)[0]


class Transformer(nnx.Module):
    """Tokens to the hidden states after the final norm."""

    def __init__(self, config: Config):
        c = self.config = config
        weights = Weights(c.dtype, c.param_dtype)
        self.embedding = weights((c.vocab_size, c.hidden_size), ("vocab", "embed"))
        if c.scan_layers:
            self.layers = Block(c, Weights(c.dtype, c.param_dtype, (c.num_layers,)))
        else:
            self.layers = nnx.Dict({str(i): Block(c, weights) for i in range(c.num_layers)})
        self.final_norm = RMSNorm(weights, c.hidden_size, c.norm_eps, c.norm_offset)
        untied = not c.tie_embeddings
        self.unembedding = weights((c.hidden_size, c.vocab_size), ("embed", "vocab")) if untied else None
        self.head = ScalarHead(weights, c.hidden_size) if c.head == "scalar" else None

    def embed(self, tokens: jax.Array) -> jax.Array:
        """``[N, T] -> [N * T, D]``, or ``[N, T, D]`` (:func:`rlx.models.axes.leading`)."""
        c, rows = self.config, tokens if axes.splits_length() else tokens.reshape(-1)
        x = axes.look_up(self.embedding[...].astype(c.dtype), rows)
        return x * np.asarray(c.hidden_size**0.5, c.dtype) if c.embed_scale else x

    def output_matrix(self) -> jax.Array:
        """``[D, V]``: the transposed embedding when tied."""
        matrix = self.embedding[...].T if self.unembedding is None else self.unembedding[...]
        return matrix.astype(self.config.dtype)

    def rope(self, positions: jax.Array, window: int = 0) -> tuple[jax.Array, jax.Array]:
        """The rotary tables of layers with this window."""
        c = self.config
        if window and c.rope_local_theta:
            return rotary_tables(positions, c.head_dim, c.rope_local_theta, c.dtype)
        return rotary_tables(positions, c.head_dim, c.rope_theta, c.dtype, scaling_of(c.rope_scaling))

    def contexts(self, positions: jax.Array, look: Callable[[int], Any]) -> dict[int, Any]:
        """By window of the layers, what they read beside the residual stream: rotary tables and ``look(window)``."""
        return {window: (self.rope(positions, window), look(window)) for window in dict.fromkeys(self.config.windows)}

    def run_layers(self, x: jax.Array, contexts: dict[int, Any], rows: tuple[int, ...]) -> jax.Array:
        """Applies the blocks as a list or a scan, with or without rematerialisation."""
        c = self.config
        layers: Any = self.layers
        blocks = [layers] if c.scan_layers else [layers[str(i)] for i in range(c.num_layers)]
        graph = nnx.graphdef(blocks[0])

        def block(x, state, window):
            return nnx.merge(graph, state)(x, *_context(contexts, window), rows)

        if c.remat != "none":
            kept = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if c.remat == "dots" else None
            static = () if c.scan_layers else (2,)
            block = jax.checkpoint(block, prevent_cse=not c.scan_layers, policy=kept, static_argnums=static)
        if c.scan_layers:
            alike = len(contexts) == 1
            windows = None if alike else np.array(c.windows, np.int32)
            return jax.lax.scan(lambda x, layer: (block(x, *layer), None), x, (nnx.state(self.layers), windows))[0]
        for layer, window in zip(blocks, c.windows, strict=True):
            x = block(x, nnx.state(layer), window)
        return x

    def encode(self, tokens: jax.Array, positions: jax.Array, look: Callable[[int], Any]) -> jax.Array:
        """Hidden states ``[N, T, D]`` of tokens at ``positions [N | 1, T]``; ``look(window)`` is the mask of layers
        with this sliding window (0: none), see ``Attention.mix``; one that attends must be a pytree."""
        x = self.run_layers(self.embed(tokens), self.contexts(positions, look), tokens.shape)
        return self.final_norm(x).reshape(*tokens.shape, -1)

    def __call__(self, tokens: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        positions = causal_mask(tokens.shape, valid)[1]
        return self.encode(tokens, positions, lambda window: causal_mask(tokens.shape, valid, window)[0])


def _context(contexts: dict[int, Any], window: Any) -> Any:
    """Of a layer's window; one that a scan hands over selects between two kinds of layers."""
    if window is None or isinstance(window, int):
        return contexts[window] if isinstance(window, int) else next(iter(contexts.values()))
    (sliding,) = (kind for kind in contexts if kind)
    return jax.tree.map(lambda near, far: jnp.where(window > 0, near, far), contexts[sliding], contexts[0])


def build(config: Config) -> Model:
    """The pure functions of a transformer of this configuration."""
    if config.dtype == "float64" and jax.dtypes.canonicalize_dtype(float) != config.dtype:
        raise UserError("model.dtype='float64' needs 64-bit types: set JAX_ENABLE_X64=1 or jax.enable_x64(True)")
    graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(config)))

    def module(params: Params) -> Transformer:
        return nnx.merge(graph, nnx.State(params))

    def apply(params, tokens, valid=None):
        model = module(params)
        return model(tokens, valid), model.output_matrix()

    def head(params, hidden):
        model = module(params)
        assert model.head is not None  # config.head == "scalar"
        return model.head(hidden)

    from rlx.models import decoding, packing, prefix

    adapters = lora.settings_of(config.lora)
    lora.check_freeze(config.freeze, nnx.to_pure_dict(state))
    init = functools.partial(draw_parameters, config, nnx.to_pure_dict(state))
    return Model(
        init=lora.starting(adapters, init) if adapters else init,
        apply=apply,
        partition=functools.partial(_partition, state),
        head=head if config.head == "scalar" else None,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        decode=Decode(
            functools.partial(decoding.prefill, module),
            functools.partial(decoding.step, module),
            decoding.fork,
            functools.partial(_unrolled, config) if config.scan_layers else None,
        ),
        shared=functools.partial(prefix.apply, module),
        packed=functools.partial(packing.apply, module),
        softcap=config.softcap or None,
        shapes=functools.partial(nnx.to_pure_dict, state),
        trainable=functools.partial(lora.trainable, adapters, config.freeze) if adapters or config.freeze else None,
        lora=adapters,
    )


@functools.cache
def _as_list(config: Config) -> Model:
    return build(dataclasses.replace(config, scan_layers=False))


def _unrolled(config: Config, params: Params) -> tuple[Model, Params]:
    return _as_list(config), {**params, "layers": _apart(params["layers"])}


@jax.jit
def _apart(stacked: Params) -> Params:
    count = len(jax.tree.leaves(stacked)[0])
    return {str(i): jax.tree.map(operator.itemgetter(i), stacked) for i in range(count)}


def draw_parameters(config: Config, shapes: Params, seed: int, shardings: Params | None = None) -> Params:
    """Normal(0, ``init_std``), residual outputs scaled by ``1 / sqrt(2 L)``, norms one, biases and head zero.

    Each leaf draws from its own stream, so that options which add parameters leave the others unchanged, and stacked
    layers hold what a list of layers would. With ``shardings`` a leaf goes to its devices before the next is drawn.
    """

    def leaf(path, shape, where=None):
        drawn = host(path, shape)
        return drawn if where is None else jax.make_array_from_callback(drawn.shape, where, drawn.__getitem__)

    def host(path, shape):
        names = [entry.key for entry in path]
        if not (config.scan_layers and names[0] == "layers"):
            return _draw(config, names, shape.shape, shape.dtype, seed)
        rest, size = names[1:], shape.shape[1:]
        layers = [["layers", str(i), *rest] for i in range(config.num_layers)]
        return np.stack([_draw(config, layer, size, shape.dtype, seed) for layer in layers])

    return jax.tree_util.tree_map_with_path(leaf, shapes, *([] if shardings is None else [shardings]))


def _draw(config: Config, names: list[str], shape: tuple[int, ...], dtype, seed: int) -> np.ndarray:
    if "lora" in names:
        own, rng = lora.settings_of(config.lora), np.random.default_rng([seed, *"/".join(names).encode()])
        assert own is not None  # its parameters are there
        return lora.draw(own, names, shape, dtype, rng)
    if names[-1] == "scale":
        return np.full(shape, 1 - config.norm_offset, dtype)
    if names[-1] == "bias" or names[0] == "head":
        return np.zeros(shape, dtype)
    residual = {"output", "down"} & set(names)
    std = config.init_std / np.sqrt(2 * config.num_layers) if residual else config.init_std
    kind = np.float64 if dtype == np.float64 else np.float32
    rng = np.random.default_rng([seed, *"/".join(names).encode()])
    return (rng.standard_normal(shape, kind) * kind(std)).astype(dtype)


def _partition(state: nnx.State, params: Params) -> Params:
    """A ``PartitionSpec`` for each leaf of ``params``, from the logical axes of the weights."""
    specs = {path: axes.spec(variable.get_metadata("axes")) for path, variable in nnx.to_flat_state(state)}
    return jax.tree_util.tree_map_with_path(lambda path, _: specs[tuple(entry.key for entry in path)], params)
