"""Names of tensors in Hugging Face files and the parameters of the transformer that they are."""

from __future__ import annotations

from typing import NamedTuple

from rlx.models.transformer import Config

Path = tuple[str, ...]

_TOP = {
    ("embedding",): "model.embed_tokens.weight",
    ("final_norm", "scale"): "model.norm.weight",
    ("unembedding",): "lm_head.weight",
    ("head", "linear", "kernel"): "score.weight",
    ("head", "linear", "bias"): "score.bias",
}
_LAYER = {
    ("attention_norm", "scale"): "input_layernorm.weight",
    ("mlp_norm", "scale"): "post_attention_layernorm.weight",
    **{
        ("attention", ours, part): f"self_attn.{theirs}.{name}"
        for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "o_proj"))
        for part, name in (("kernel", "weight"), ("bias", "bias"))
    },
    ("attention", "query_norm", "scale"): "self_attn.q_norm.weight",
    ("attention", "key_norm", "scale"): "self_attn.k_norm.weight",
    **{("mlp", name, "kernel"): f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
}
_SANDWICH = {
    ("attention_post_norm", "scale"): "post_attention_layernorm.weight",
    ("mlp_norm", "scale"): "pre_feedforward_layernorm.weight",
    ("mlp_post_norm", "scale"): "post_feedforward_layernorm.weight",
}
NEW = ("score.weight", "score.bias")
"""Of the scalar head: files may lack them."""


class Place(NamedTuple):
    """Where a parameter stands in files.

    Attributes:
        name: of the tensor.
        transposed: files hold the outputs of a linear map first.
    """

    name: str
    transposed: bool


def place_of(config: Config, path: Path) -> Place:
    """The tensor of the parameter at ``path``, that of one layer: ``("layers", "3", "mlp", "up", "kernel")``.

    >>> place_of(Config(), ("layers", "3", "mlp", "up", "kernel"))
    Place(name='model.layers.3.mlp.up_proj.weight', transposed=True)
    """
    if path[0] != "layers":
        return Place(_TOP[path], path[-1] in ("kernel", "unembedding"))
    table = _LAYER | (_SANDWICH if config.post_norms else {})
    return Place(f"model.layers.{path[1]}.{table[path[2:]]}", path[-1] == "kernel")


def places(config: Config, path: Path) -> tuple[Place, ...]:
    """The tensors of a parameter as the model has it: one, or one of each layer where layers are stacked."""
    if path[0] != "layers" or not config.scan_layers:
        return (place_of(config, path),)
    return tuple(place_of(config, ("layers", str(i), *path[1:])) for i in range(config.num_layers))


def plain(name: str) -> str | None:
    """The name of a tensor as a text model has it; None for what is of no use here.

    Of Gemma 3 with images, the towers of the images are left out; buffers of old files can be computed.

    >>> plain("language_model.model.norm.weight"), plain("vision_tower.patch.weight")
    ('model.norm.weight', None)
    """
    if name.endswith("rotary_emb.inv_freq"):
        return None
    for prefix in ("vision_tower.", "multi_modal_projector."):
        if name.startswith((prefix, f"model.{prefix}")):
            return None
    if name.startswith("model.language_model."):
        return f"model.{name.removeprefix('model.language_model.')}"
    return name.removeprefix("language_model.")
