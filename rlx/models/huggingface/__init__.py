"""Weights of Hugging Face folders: Llama 3, Qwen 2 and 3, Gemma 2 and 3, Mistral; safetensors and JSON alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from rlx.errors import UserError, close_matches
from rlx.models import lora, transformer
from rlx.models.base import Model, Params
from rlx.models.huggingface.families import OWN, describe, options
from rlx.models.huggingface.folder import read_config
from rlx.models.huggingface.reading import read
from rlx.models.huggingface.writing import save
from rlx.models.moving import join

__all__ = ["build", "config_of", "describe", "read", "save"]


def config_of(model: Mapping[str, Any]) -> tuple[transformer.Config, Mapping[str, Any] | None]:
    """The transformer of a block ``config.model``, and the ``config.json`` it came from (None: it has no folder).

    Raises:
        UserError: the block makes no transformer, or its folder is wrong.
    """
    own = {key: value for key, value in model.items() if key != "name"}
    name = model.get("name", "transformer")
    if name == "transformer":
        return transformer.Config(**own), None
    if name != "hf":
        raise UserError(f"the model {name!r} is none of rlx's transformers, which alone have a Hugging Face form")
    _, raw = read_config(own.pop("path", ""))
    for key in own:
        if key not in OWN:
            known = ("path", *OWN)
            hint = close_matches(key, known)
            raise UserError(f"model 'hf' has no option {key!r}.{hint} Options: {', '.join(known)}")
    return transformer.Config(**{**options(raw), **own}), raw


def build(path: str = "", **own: Any) -> Model:
    """The model of a folder, which starts from its weights.

    Args:
        path: the folder, with ``config.json`` and safetensors files; the weights are read when a run starts.
        own: options of :class:`rlx.models.transformer.Config` that the folder leaves open, ``OWN``.

    Raises:
        UserError: an unknown architecture or option.
    """
    config, _ = config_of({"name": "hf", "path": path, **own})
    model = transformer.build(config)
    start = functools.partial(_start, Path(path).expanduser(), config, model)
    return model._replace(pretrained=lora.starting(model.lora, start) if model.lora else start)


def _start(
    folder: Path, config: transformer.Config, model: Model, seed: int, shardings: Params | None = None
) -> Params:
    """The weights of the folder, and adapters as they are drawn from ``seed``."""
    assert model.shapes is not None  # as transformers have it
    base, adapters = _parts(model.shapes())
    places = (None, None) if shardings is None else _parts(shardings)
    params = read(folder, config, base, places[0])
    if model.lora is None:
        return params
    return join(params, transformer.draw_parameters(config, adapters, seed, places[1]))


def _parts(tree: Params) -> tuple[Params, Params]:
    """What files hold, and adapters; None stands in the place of the others."""

    def part(wanted: bool) -> Params:
        def keep(path: Any, leaf: Any) -> Any:
            return leaf if ("lora" in [entry.key for entry in path]) is wanted else None

        return jax.tree_util.tree_map_with_path(keep, tree)

    return part(False), part(True)
