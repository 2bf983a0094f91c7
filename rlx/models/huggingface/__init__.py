"""Weights of Hugging Face folders: Llama 3, Qwen 2 and 3, Gemma 2 and 3, Mistral; safetensors and JSON alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError, close_matches
from rlx.models import transformer
from rlx.models.base import Model, Params
from rlx.models.huggingface.families import describe, options
from rlx.models.huggingface.folder import read_config
from rlx.models.huggingface.reading import read
from rlx.models.huggingface.writing import save

__all__ = ["build", "config_of", "describe", "read", "save"]

OWN = ("dtype", "param_dtype", "remat", "scan_layers", "head", "init_std")
"""Options that a folder leaves open."""


def config_of(model: Mapping[str, Any]) -> tuple[transformer.Config, Mapping[str, Any] | None]:
    """The transformer of a block ``config.model``, and the ``config.json`` it came from (None: it has no folder).

    Raises:
        UserError: the block makes no transformer, or its folder is wrong.
    """
    own = {key: value for key, value in model.items() if key not in ("name", "lora")}
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
        own: options of :class:`rlx.models.transformer.Config` that the folder leaves open, :data:`OWN`.

    Raises:
        UserError: an unknown architecture or option.
    """
    config, _ = config_of({"name": "hf", "path": path, **own})
    model = transformer.build(config)
    return model._replace(pretrained=functools.partial(_pretrained, path, config, model))


def _pretrained(path: str, config: transformer.Config, model: Model, shardings: Params | None = None) -> Params:
    assert model.shapes is not None  # as transformers have it
    return read(Path(path).expanduser(), config, model.shapes(), shardings)
