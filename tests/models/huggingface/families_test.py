"""``config.json`` of every family: read, written, and refused with the name of what is not there."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.errors import UserError
from rlx.models.huggingface import config_of, describe
from rlx.models.huggingface.families import options
from rlx.models.rope import RopeScaling, scaling_of
from rlx.models.transformer import Config, build
from tests.models.huggingface.tiny import LLAMA3, RAW, write_config


def config(name, **own):
    return Config(**options({**RAW[name], **own}))


@pytest.mark.parametrize("name", RAW)
def test_a_config_goes_to_json_and_back(name):
    found = config(name)
    assert Config(**options(json.loads(json.dumps(describe(found))))) == found
    assert Config(**options(describe(found, RAW[name]))) == found


def test_what_families_differ_in():
    assert config("qwen2").qkv_bias and not config("qwen3").qkv_bias and config("qwen3").qk_norm
    assert config("qwen2_sliding").windows == (0, 4, 4) and config("mistral").windows == (5, 5)
    assert config("gemma2").windows == (4, 0, 4) and config("gemma3").windows == (4, 4, 0, 4)
    assert config("mistral_full").windows == config("qwen2").windows == (0, 0)
    gemma = config("gemma3")
    assert (gemma.rope_theta, gemma.rope_local_theta, gemma.softcap) == (1e6, 1e4, 0.0)
    assert gemma.rope_scaling == RopeScaling("linear", 8.0) and config("gemma2").softcap == 6.0


def test_what_files_may_leave_out():
    """Releases of Gemma name little of what they are."""
    names = ("model_type", "architectures", "hidden_size", "intermediate_size", "num_hidden_layers")
    small = {name: RAW["gemma3"][name] for name in names} | {"num_hidden_layers": 12, "sliding_window": 512}
    found = Config(**options(small))
    assert found.windows == (512, 512, 512, 512, 512, 0) * 2 and found.tie_embeddings
    assert (found.vocab_size, found.num_heads, found.num_kv_heads, found.head_dim) == (262_208, 8, 4, 256)


def shape(kind, architecture, *sizes, **own):
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads",
    )  # fmt: skip
    return {
        "model_type": kind, "architectures": [f"{architecture}ForCausalLM"], **dict(zip(names, sizes, strict=True)),
        **own,
    }  # fmt: skip


RELEASES = {
    "Llama-3.1-8B": (
        8_030_261_248,
        shape("llama", "Llama", 128_256, 4096, 14_336, 32, 32, 8, rope_scaling={
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        }, rope_theta=5e5, attention_bias=False, mlp_bias=False, pretraining_tp=1, hidden_act="silu"),
    ),
    "Qwen2.5-0.5B": (
        494_032_768,
        shape("qwen2", "Qwen2", 151_936, 896, 4864, 24, 14, 2, tie_word_embeddings=True, use_sliding_window=False,
              sliding_window=32_768, max_window_layers=24, use_mrope=False, rope_theta=1e6),
    ),
    "Qwen3-8B": (
        8_190_735_360,
        shape("qwen3", "Qwen3", 151_936, 4096, 12_288, 36, 32, 8, head_dim=128, attention_bias=False,
              rope_scaling=None, sliding_window=None, use_sliding_window=False, rope_theta=1e6),
    ),
    "gemma-2-2b": (
        2_614_341_888,
        shape("gemma2", "Gemma2", 256_000, 2304, 9216, 26, 8, 4, head_dim=256, attn_logit_softcapping=50.0,
              final_logit_softcapping=30.0, query_pre_attn_scalar=256, sliding_window=4096,
              cache_implementation="hybrid", hidden_act="gelu_pytorch_tanh", rope_theta=1e4),
    ),
    "gemma-3-1b": (
        999_885_952,
        shape("gemma3_text", "Gemma3", 262_144, 1152, 6912, 26, 4, 1, head_dim=256, attn_logit_softcapping=None,
              final_logit_softcapping=None, sliding_window=512, sliding_window_pattern=6, rope_scaling=None,
              rope_theta=1_000_000, rope_local_base_freq=10_000, query_pre_attn_scalar=256),
    ),
    "Mistral-7B-v0.1": (
        7_241_732_096,
        shape("mistral", "Mistral", 32_000, 4096, 14_336, 32, 32, 8, sliding_window=4096, rope_theta=1e4),
    ),
}  # fmt: skip
"""Parameters of releases, as their pages count them, and what is in their ``config.json``."""


@pytest.mark.parametrize("name", RELEASES)
def test_releases_have_as_many_parameters_as_they_say(name):
    count, raw = RELEASES[name]
    shapes = build(Config(**options(raw), scan_layers=True)).shapes()
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


def test_rotary_keys_of_transformers_5():
    flat = {"rope_theta": 5e5, **LLAMA3}
    assert config("llama", rope_scaling=None, rope_theta=None, rope_parameters=flat) == config("llama")
    both = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    own = {"rope_scaling": None, "rope_theta": None, "rope_local_base_freq": None, "rope_parameters": both}
    assert config("gemma3", **own) == config("gemma3")


def test_scaled_frequencies():
    """Short waves stay, long ones are stretched by the factor, and between them it goes up without a step."""
    scaling = scaling_of({"type": "llama3", "factor": 8.0, "original_length": 64})
    wavelengths = np.array([1.0, 16.0, 64.0, 1000.0])
    np.testing.assert_allclose(scaling(jnp.asarray(2 * np.pi / wavelengths)) * wavelengths / (2 * np.pi),
                               [1, 1, 1 / 8, 1 / 8], rtol=1e-5)  # fmt: skip
    between = np.asarray(scaling(jnp.asarray(2 * np.pi / np.linspace(16, 64, 50))))
    assert (np.diff(between) < 0).all()


REFUSED = {
    "architecture": ("llama", {"architectures": ["LlamaForCasualLM"]}, "'LlamaForCasualLM' .* mean 'LlamaForCausalLM'"),
    "no name": ("llama", {"architectures": [["x"]]}, "unknown architecture"),
    "type": ("llama", {"model_type": "falcon", "architectures": ["FalconForCausalLM"]}, "Known: LlamaForCausalLM, Qw"),
    "yarn": ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling type 'yarn' is not supported"),
    "dynamic": ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "type 'dynamic' is not supported"),
    "lacks": ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "'llama3' lacks 'low_freq_factor'"),
    "no block": ("llama", {"rope_scaling": 3}, "rope_scaling=3 must be an object or null"),
    "partial": ("llama", {"partial_rotary_factor": 0.5}, "rotary option partial_rotary_factor=0.5 is not supported"),
    "theta": ("llama", {"rope_theta": "a"}, "rope_theta=a must be a number above 0"),
    "bias": ("llama", {"attention_bias": True}, r"attention_bias=True is not supported \(only False\)"),
    "quantised": ("qwen3", {"quantization_config": {"bits": 4}}, "quantization_config=.* is not supported"),
    "activation": ("gemma2", {"hidden_activation": "gelu"}, "the activation 'gelu' is not supported"),
    "both ways": ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True is not supported"),
    "softcap": ("gemma3", {"attn_logit_softcapping": 50.0}, "not supported for Gemma 3"),
    "kinds": ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "layer_types must name one kind for each of 3"),
    "text": ("llama", {"hidden_size": "many"}, "hidden_size=many must be a whole number from 1 to"),
    "deep": (
        "llama",
        {"num_hidden_layers": 10**9},
        "num_hidden_layers=1000000000 must be a whole number from 1 to 1024",
    ),
    "missing": ("llama", {"vocab_size": None}, "vocab_size=None must be a whole number"),
    "scalar": ("gemma2", {"query_pre_attn_scalar": True}, "query_pre_attn_scalar=True must be a number of at least 0"),
    "heads": ("llama", {"num_key_value_heads": 3}, "multiple of model.num_kv_heads"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_named(name):
    kind, own, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as caught:
        config(kind, **own)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json holds no JSON that can be read"),
        ("[" * 100_000, "config.json holds no JSON that can be read"),
        ("[]", "config.json holds a JSON list, not an object"),
        ('{"a": 1, "a": 2}', "a key stands twice"),
        (" " * 1_000_001, "has more than 1000000 bytes"),
        ('{"model_type": "gpt2"}', "unknown architecture model_type 'gpt2'"),
    ],
)
def test_files_that_are_no_config(text, message, tmp_path):
    write_config(tmp_path, {})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        config_of({"name": "hf", "path": str(tmp_path)})


def test_models_without_a_family_are_not_written():
    with pytest.raises(UserError, match="no Hugging Face architecture has model.qkv_bias as here; nearest is qwen3"):
        describe(Config(qkv_bias=True, qk_norm=True))
    with pytest.raises(UserError, match=r"the model 'a.b:c' is none of rlx's transformers"):
        config_of({"name": "a.b:c"})


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"layer_pattern": ("sliding",)}, "has sliding layers: set model.sliding_window"),
        ({"layer_pattern": ("slide",), "sliding_window": 4}, "has the kind 'slide'.* Did you mean 'sliding'"),
        ({"layer_pattern": ("full",) * 5}, "longer than the model is deep: 5 kinds, model.num_layers=4"),
        ({"softcap": -1.0}, r"model.softcap=-1.0 must not be negative \(0: off\)"),
        ({"activation": "relu"}, "model.activation='relu' must be one of silu, gelu_tanh"),
        ({"rope_scaling": {"type": "yarn"}}, "model.rope_scaling.type='yarn' must be one of linear, llama3"),
        ({"rope_scaling": {"factor": 0}}, "model.rope_scaling.factor must be a number above 0, not 0"),
        ({"rope_scaling": {"low_freq_factor": 4.0}}, "high_freq_factor=4.0 must be above low_freq_factor=4.0"),
        ({"rope_scaling": 8}, "model.rope_scaling must be a block"),
    ],
)
def test_options_of_the_transformer_are_checked(own, message):
    with pytest.raises(UserError, match=message):
        Config(**own)
