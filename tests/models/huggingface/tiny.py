"""Tiny models of every family: their ``config.json``, and weights that a name and a seed make anew anywhere."""

import json

import numpy as np

COMMON = {
    "vocab_size": 17, "hidden_size": 32, "intermediate_size": 24, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
GEMMA = {"tie_word_embeddings": True, "head_dim": 16, "query_pre_attn_scalar": 20, "sliding_window": 4}


def raw(kind, architecture, layers, **own):
    name = {"model_type": kind, "architectures": [f"{architecture}ForCausalLM"], "num_hidden_layers": layers}
    return {**COMMON, **name, **own}


RAW = {
    "llama": raw("llama", "Llama", 2, rope_theta=500_000.0, rope_scaling=LLAMA3, rms_norm_eps=1e-5),
    "qwen2": raw("qwen2", "Qwen2", 2, rope_theta=1e6, tie_word_embeddings=True),
    "qwen2_sliding": raw(
        "qwen2", "Qwen2", 3, rope_theta=1e6, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "qwen3": raw("qwen3", "Qwen3", 2, rope_theta=1e6, head_dim=16),
    "mistral": raw("mistral", "Mistral", 2, rope_theta=1e4, sliding_window=5),
    "mistral_full": raw("mistral", "Mistral", 2, rope_theta=1e6, sliding_window=None, head_dim=4),
    "gemma2": raw(
        "gemma2", "Gemma2", 3, **GEMMA, final_logit_softcapping=6.0, attn_logit_softcapping=3.0, rope_theta=1e4
    ),
    "gemma3": raw(
        "gemma3_text", "Gemma3", 4, **GEMMA, rope_theta=1e6, rope_local_base_freq=1e4,
        rope_scaling={"rope_type": "linear", "factor": 8.0}, sliding_window_pattern=3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    ),
}  # fmt: skip
"""Some have sliding and full layers; every window is shorter than the texts."""
LENGTH, PADDING = 12, (0, 4)
"""Positions of the texts, and how many of each are padding, on the left."""


def numbers(name, shape):
    """The weight of this name: large, so that no mistake drowns, and no norm without effect."""
    rng = np.random.default_rng(list(name.encode()))
    return (rng.normal(size=shape) * (0.4 if len(shape) == 1 else 0.25)).astype(np.float32) + (
        0.5 if "norm" in name else 0
    )


def texts():
    """Tokens and which of them are real, ``[2, LENGTH]``."""
    tokens = np.random.default_rng(0).integers(0, COMMON["vocab_size"], (len(PADDING), LENGTH)).astype(np.int32)
    return tokens, np.arange(LENGTH) >= np.array(PADDING)[:, None]


def write_config(folder, raw):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
