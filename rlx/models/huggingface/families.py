"""What ``config.json`` says of each family, as options of the transformer, and the other way round."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlx.errors import UserError, close_matches, one_line
from rlx.models.huggingface.rotary import rotary_keys, rotary_options
from rlx.models.transformer import Config

Raw = Mapping[str, Any]

OWN = ("dtype", "param_dtype", "remat", "scan_layers", "attention_block", "head", "lora", "freeze", "init_std")
"""Options of :class:`Config` that ``config.json`` says nothing of."""
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
LARGEST = {"num_hidden_layers": 1024}
KINDS = {"sliding_attention": "sliding", "full_attention": "full"}


@dataclasses.dataclass(frozen=True)
class Family:
    """A ``model_type``.

    Attributes:
        architecture: its class for language models.
        fixed: options of :class:`Config` that all its models have.
        defaults: of keys that ``config.json`` may leave out.
        gemma: whether Gemma's keys are read.
    """

    architecture: str
    fixed: dict[str, Any]
    defaults: dict[str, Any]
    gemma: bool = False


_GEMMA = {"norm_offset": 1.0, "post_norms": True, "embed_scale": True}
_GEMMA_KEYS = {
    "tie_word_embeddings": True, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
_GEMMA3_KEYS = {
    "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6, "vocab_size": 262_208,
    "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip
_QWEN_KEYS = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
FAMILIES = {
    "llama": Family("LlamaForCausalLM", {}, {}),
    "qwen2": Family("Qwen2ForCausalLM", {"qkv_bias": True}, _QWEN_KEYS),
    "qwen3": Family("Qwen3ForCausalLM", {"qk_norm": True}, {**_QWEN_KEYS, "head_dim": 128}),
    "mistral": Family("MistralForCausalLM", {}, {"sliding_window": 4096}),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        _GEMMA,
        {**_GEMMA_KEYS, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "sliding_window_pattern": 2},
        gemma=True,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        {**_GEMMA, "qk_norm": True},
        {**_GEMMA_KEYS, **_GEMMA3_KEYS},
        gemma=True,
    ),
}
_MUST_BE = {
    "attention_bias": False, "mlp_bias": False, "use_bidirectional_attention": False, "quantization_config": None,
    "pretraining_tp": 1,
}  # fmt: skip
"""Keys of options that the transformer does not have, and the value that means none of it."""


def family_of(raw: Raw) -> tuple[str, Raw]:
    """The ``model_type`` and the part of ``config.json`` that is about text.

    Raises:
        UserError: another architecture, with close matches and those that are known.
    """
    if raw.get("model_type") == "gemma3" and isinstance(raw.get("text_config"), Mapping):
        return "gemma3_text", raw["text_config"]  # with images: the model of text in it
    named = raw.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else None
    kind = str(raw.get("model_type"))
    known = {family.architecture: kind for kind, family in FAMILIES.items()}
    heads = {family.architecture.replace("CausalLM", "SequenceClassification") for family in FAMILIES.values()}
    if kind not in FAMILIES or not (name is None or name in known or name in heads):
        asked = f"{name!r} (model_type {kind!r})" if name else f"model_type {kind!r}"
        hint = close_matches(str(name), known) or close_matches(kind, FAMILIES)
        raise UserError(f"config.json: unknown architecture {one_line(asked, 120)}.{hint} Known: {', '.join(known)}")
    return kind, raw


def options(raw: Raw) -> dict[str, Any]:
    """Fields of :class:`Config` of a ``config.json``.

    Raises:
        UserError: an unknown architecture, an option that the transformer does not have, or a senseless value.
    """
    kind, raw = family_of(raw)
    family = FAMILIES[kind]
    raw = {**family.defaults, **raw}
    for key, wanted in _MUST_BE.items():
        if raw.get(key) not in (wanted, None):
            raise UserError(f"config.json: {key}={one_line(raw[key], 80)} is not supported (only {wanted})")
    found = {**family.fixed, **_sizes(raw), "activation": _activation(raw), **_windows(kind, raw)}
    if family.gemma:
        found |= {
            "query_scalar": _number(raw, "query_pre_attn_scalar"),
            "softcap": _number(raw, "final_logit_softcapping", 0.0),
            "attention_softcap": _number(raw, "attn_logit_softcapping", 0.0),
        }
    if kind == "gemma3_text" and found["attention_softcap"]:
        raise UserError("config.json: attn_logit_softcapping is not supported for Gemma 3, which ignores it")
    return found | rotary_options(raw, local=kind == "gemma3_text" and bool(found["sliding_window"]))


def _sizes(raw: Raw) -> dict[str, Any]:
    heads = _whole(raw, "num_attention_heads")
    width = _whole(raw, "hidden_size")
    tied = raw.get("tie_word_embeddings", False)
    return {
        "vocab_size": _whole(raw, "vocab_size"),
        "hidden_size": width,
        "num_layers": _whole(raw, "num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": _whole(raw, "num_key_value_heads", heads),
        "head_dim": _whole(raw, "head_dim", width // heads),
        "intermediate_size": _whole(raw, "intermediate_size"),
        "norm_eps": _number(raw, "rms_norm_eps", 1e-6),
        "tie_embeddings": bool(tied),
    }


def _whole(raw: Raw, key: str, default: int | None = None) -> int:
    value = default if raw.get(key) is None else raw[key]
    largest = LARGEST.get(key, 2**31 - 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise UserError(f"config.json: {key}={one_line(value, 80)} must be a whole number from 1 to {largest}")
    return value


def _number(raw: Raw, key: str, default: float | None = None) -> float:
    value = default if raw.get(key) is None else raw[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e30:
        raise UserError(f"config.json: {key}={one_line(value, 80)} must be a number of at least 0")
    return float(value)


def _activation(raw: Raw) -> str:
    name = str(raw.get("hidden_activation") or raw.get("hidden_act") or "silu")
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(
            f"config.json: the activation {name[:80]!r} is not supported.{close_matches(name, ACTIVATIONS)}"
            f" Known: {known}"
        )
    return ACTIVATIONS[name]


def _windows(kind: str, raw: Raw) -> dict[str, Any]:
    """The sliding window, and which layers slide."""
    layers = _whole(raw, "num_hidden_layers")
    asked = {"llama": False, "mistral": True}.get(kind, raw.get("use_sliding_window", True))
    if not asked or (raw.get("sliding_window") is None and kind in ("mistral", "qwen2", "qwen3")):
        return {"sliding_window": 0, "layer_pattern": ()}
    types = None if kind == "mistral" else raw.get("layer_types")
    if types is None and "max_window_layers" in raw:
        first = raw["max_window_layers"]
        types = [
            "sliding_attention" if isinstance(first, int) and i >= first else "full_attention" for i in range(layers)
        ]
    elif types is None:
        period = _whole(raw, "sliding_window_pattern", 1)
        full = {period - 1} if kind != "mistral" else set()
        types = ["full_attention" if i % period in full else "sliding_attention" for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not all(isinstance(x, str) and x in KINDS for x in types):
        known = ", ".join(KINDS)
        raise UserError(f"config.json: layer_types must name one kind for each of {layers} layers: {known}")
    if "sliding_attention" not in types:
        return {"sliding_window": 0, "layer_pattern": ()}
    return {"sliding_window": _whole(raw, "sliding_window"), "layer_pattern": _shortest([KINDS[x] for x in types])}


def _shortest(kinds: list[str]) -> tuple[str, ...]:
    """The shortest pattern whose repetition gives the layers; none where all slide.

    >>> _shortest(["sliding", "full", "sliding"])
    ('sliding', 'full')
    """
    if set(kinds) == {"sliding"}:
        return ()
    fits = (size for size in range(1, len(kinds)) if all(x == kinds[i % size] for i, x in enumerate(kinds)))
    return tuple(kinds[: next(fits, len(kinds))])


def describe(config: Config, base: Raw | None = None) -> dict[str, Any]:
    """The ``config.json`` of a transformer: that of the folder it came from, ``base``, or a new one.

    Raises:
        UserError: no family has these options together.
    """
    if base is not None:
        kind, text = family_of(base)
        drop = ("text_config", "vision_config", "dtype", "quantization_config", "auto_map")
        own = {key: value for key, value in text.items() if key not in drop}
        return own | {"model_type": kind, "architectures": [FAMILIES[kind].architecture]}
    kind = _kind(config)
    found = {
        "architectures": [FAMILIES[kind].architecture],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        **_kind_keys(kind, config),
        **rotary_keys(config),
    }
    back = Config(**options(found))
    fields = [field.name for field in dataclasses.fields(Config) if field.name not in OWN]
    differing = [name for name in fields if getattr(back, name) != getattr(config, name)]
    if differing:
        raise UserError(f"no Hugging Face architecture has model.{differing[0]} as here; nearest is {kind}")
    return found


def _kind(c: Config) -> str:
    if c.norm_offset or c.post_norms or c.embed_scale:
        return "gemma3_text" if c.qk_norm else "gemma2"
    if c.qk_norm:
        return "qwen3"
    if c.qkv_bias:
        return "qwen2"
    return "mistral" if c.sliding_window else "llama"


def _kind_keys(kind: str, c: Config) -> dict[str, Any]:
    act = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == c.activation)
    slides = any(c.windows)
    names = {ours: theirs for theirs, ours in KINDS.items()}
    types = [names["sliding" if window else "full"] for window in c.windows]
    if kind in ("llama", "mistral"):
        return {"hidden_act": act} | ({"sliding_window": c.sliding_window or None} if kind == "mistral" else {})
    if kind in ("qwen2", "qwen3"):
        window = {"sliding_window": c.sliding_window} if slides else {}
        return {"hidden_act": act, "use_sliding_window": slides, "layer_types": types, **window}
    scalar = c.query_scalar or c.head_dim
    return {
        "hidden_activation": act,
        "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,  # transformers asks for an int
        "final_logit_softcapping": c.softcap or None,
        "attn_logit_softcapping": c.attention_softcap or None,
        "sliding_window": c.sliding_window or 4096,
        "layer_types": types,
    }
