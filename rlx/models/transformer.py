"""Decoder-only transformer (Llama and Qwen2 family): nnx modules inside, pure functions on nested dicts outside."""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import Any

import jax
import numpy as np
from flax import nnx

from rlx.errors import UserError, close_matches
from rlx.models import axes
from rlx.models.base import Decode, Model, Params
from rlx.models.heads import ScalarHead
from rlx.models.layers import Attention, RMSNorm, SwiGLU, Weights, causal_mask, rotary_tables

CHOICES = {"head": ("none", "scalar"), "remat": ("none", "dots", "full"), "dtype": ("float32", "bfloat16", "float64")}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options. Sizes that are 0 follow the usual ratios: ``num_kv_heads = num_heads``,
    ``head_dim = hidden_size / num_heads``, ``intermediate_size = 4 * hidden_size``.

    Attributes:
        head: ``'scalar'`` adds a value or reward head.
        remat: ``'full'`` recomputes each layer in the backward pass: a third of the memory; ``'dots'`` keeps the
            products with weights and recomputes the rest, attention above all.
        scan_layers: one traced layer under ``lax.scan`` with stacked weights: faster to compile from about 8 layers.
        dtype: type of the computation; ``float64`` needs ``jax_enable_x64``.
        param_dtype: type of the parameters, by default the wider of float32 and ``dtype``.
        init_std: standard deviation of the first weights; narrow models (below some 256) learn sooner from 0.1.
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
    scan_layers: bool = False
    dtype: str = "float32"
    param_dtype: str = ""
    init_std: float = 0.02

    def __post_init__(self):
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
        if self.num_heads % self.num_kv_heads:
            sizes = f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}"
            raise UserError(f"model.num_heads must be a multiple of model.num_kv_heads: {sizes}")
        if self.head_dim % 2:
            raise UserError(f"model.head_dim must be even for rotary embeddings, not {self.head_dim}")


class Block(nnx.Module):
    """Pre-norm residual block on ``[B * T, D]``."""

    def __init__(self, c: Config, weights: Weights):
        self.attention_norm = RMSNorm(weights, c.hidden_size, c.norm_eps)
        self.attention = Attention(weights, c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.qkv_bias)
        self.mlp_norm = RMSNorm(weights, c.hidden_size, c.norm_eps)
        self.mlp = SwiGLU(weights, c.hidden_size, c.intermediate_size)

    def keep(self, x: jax.Array, rope, mask: Any, rows: tuple[int, int]):
        """The output and the keys and values it attended to, ``[B, G, T, d]``."""
        q, k, v = self.attention.project(self.attention_norm(x), rope, rows)
        x = axes.activation(x + self.attention.mix(q, k, v, mask))
        return axes.activation(x + self.mlp(self.mlp_norm(x))), k, v

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
        self.final_norm = RMSNorm(weights, c.hidden_size, c.norm_eps)
        untied = not c.tie_embeddings
        self.unembedding = weights((c.hidden_size, c.vocab_size), ("embed", "vocab")) if untied else None
        self.head = ScalarHead(weights, c.hidden_size) if c.head == "scalar" else None

    def embed(self, tokens: jax.Array) -> jax.Array:
        """``[N, T] -> [N * T, D]``, or ``[N, T, D]`` (:func:`rlx.models.axes.leading`)."""
        rows = tokens if axes.splits_length() else tokens.reshape(-1)
        return axes.activation(self.embedding[...].astype(self.config.dtype)[rows])

    def output_matrix(self) -> jax.Array:
        """``[D, V]``: the transposed embedding when tied."""
        matrix = self.embedding[...].T if self.unembedding is None else self.unembedding[...]
        return matrix.astype(self.config.dtype)

    def rope(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        c = self.config
        return rotary_tables(positions, c.head_dim, c.rope_theta, c.dtype)

    def run_layers(self, x: jax.Array, *context: Any) -> jax.Array:
        """Applies the blocks as a list or a scan, with or without rematerialisation."""
        c = self.config
        layers: Any = self.layers
        blocks = [layers] if c.scan_layers else [layers[str(i)] for i in range(c.num_layers)]
        graph = nnx.graphdef(blocks[0])

        def block(x, state):
            return nnx.merge(graph, state)(x, *context)

        if c.remat != "none":
            kept = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if c.remat == "dots" else None
            block = jax.checkpoint(block, prevent_cse=not c.scan_layers, policy=kept)
        if c.scan_layers:
            return jax.lax.scan(lambda x, state: (block(x, state), None), x, nnx.state(self.layers))[0]
        for layer in blocks:
            x = block(x, nnx.state(layer))
        return x

    def encode(self, tokens: jax.Array, positions: jax.Array, mask: Any) -> jax.Array:
        """Hidden states ``[N, T, D]`` of tokens at ``positions [N | 1, T]``; for ``mask`` see ``Attention.mix``."""
        x = self.run_layers(self.embed(tokens), self.rope(positions), mask, tokens.shape)
        return self.final_norm(x).reshape(*tokens.shape, -1)

    def __call__(self, tokens: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        mask, positions = causal_mask(tokens.shape, valid)
        return self.encode(tokens, positions, mask)


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

    return Model(
        init=functools.partial(_init, config, nnx.to_pure_dict(state)),
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
        shapes=functools.partial(nnx.to_pure_dict, state),
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


def _init(config: Config, shapes: Params, seed: int, shardings: Params | None = None) -> Params:
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
    if names[-1] == "scale":
        return np.ones(shape, dtype)
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
