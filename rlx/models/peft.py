"""Adapters in the files of PEFT: ``adapter_config.json`` and ``adapter_model.safetensors``; nothing is unpickled.

The names are those of the decoders of ``transformers`` (Llama, Qwen, Mistral, Gemma), whose linear maps are called
alike. PEFT stores ``A`` as ``[r, I]`` and ``B`` as ``[O, r]``, the transposes of ours.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlx.errors import UserError
from rlx.models.base import Model, Params
from rlx.models.lora import TARGETS, Lora, adapted
from rlx.models.peft_files import CONFIG, FACTORS, NAMES, PREFIX, WEIGHTS, read_config, read_shapes, read_tensors


def save_adapter(folder: str | os.PathLike[str], model: Model, params: Params, *, base: str | None = None) -> None:
    """Writes the adapters of ``params`` so that ``peft.PeftModel.from_pretrained(base_model, folder)`` reads them.

    Args:
        folder: is made; files of that name in it are replaced.
        model: with ``lora``.
        params: of the model, whole on this process. A scalar head is no part of the adapter.
        base: name or folder of the base model, for ``base_model_name_or_path``.

    Raises:
        UserError: the model has no adapters.
    """
    from safetensors.numpy import save

    lora = _lora_of(model)
    tensors = {}
    for path, linear in adapted(params):
        factors = {key: np.asarray(jax.device_get(leaf)).swapaxes(-1, -2) for key, leaf in linear["lora"].items()}
        for key, stacked in factors.items():
            # path: layers/N/attention/query, or layers/attention/query with all layers in one array
            numbers = [int(path[1])] if path[1].isdigit() else range(len(stacked))
            of_layers = [stacked] if path[1].isdigit() else stacked
            for number, tensor in zip(numbers, of_layers, strict=True):
                tensors[_name(number, path[-1], key)] = np.ascontiguousarray(tensor)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS, save(dict(sorted(tensors.items())), {"format": "pt"}))
    _replace(folder / CONFIG, (json.dumps(config_of(lora, base), indent=2) + "\n").encode())


def config_of(lora: Lora, base: str | None = None) -> dict[str, Any]:
    """``adapter_config.json`` of adapters.

    >>> config_of(Lora(rank=4, targets="query"))["target_modules"]
    ['q_proj']
    """
    short = {name: NAMES[name].rpartition(".")[2] for name in lora.targets}
    ranks = {short[name]: lora.rank_of(name) for name in lora.targets if lora.rank_of(name) != lora.rank}
    alphas = {short[name]: lora.alpha_of(name) for name in lora.targets if lora.alpha_of(name) != lora.alpha}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(short.values()),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "use_rslora": lora.use_rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _name(layer: int, target: str, factor: str) -> str:
    return f"{PREFIX}.{layer}.{NAMES[target]}.{FACTORS[factor]}.weight"


def _replace(path: Path, content: bytes) -> None:
    """Writes a file at once: whatever moment a kill comes at, it is the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The block ``model.lora`` that an adapter in PEFT's format asks for.

    Ranks and targets are those of its tensors. ``lora_dropout`` is left out: it matters in training alone.

    Raises:
        UserError: a file is missing or damaged, or the adapter is of a kind that there is none of here.
    """
    config, tensors = read_config(Path(folder)), read_shapes(Path(folder))
    ranks = {target: shape[0] for (_, target, factor), shape in sorted(tensors.items()) if factor == "a"}
    for (layer, target, factor), shape in tensors.items():
        if factor == "a" and shape[0] != ranks[target]:
            raise UserError(
                f"{Path(folder) / WEIGHTS}: rank {shape[0]} of {NAMES[target]} in layer {layer} is not that of other "
                f"layers, {ranks[target]}: here a linear map has the same rank in all layers."
            )
    alphas = {target: _alpha(config, target, tensors, Path(folder)) for target in ranks}
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    modules = {}
    for target in ranks:
        own = {"rank": ranks[target]} if ranks[target] != rank else {}
        modules[target] = own | ({"alpha": alphas[target]} if alphas[target] != alpha else {})
    return {
        "rank": rank,
        "alpha": alpha,
        "targets": tuple(target for target in TARGETS if target in ranks),
        "modules": {target: own for target, own in modules.items() if own},
        "use_rslora": bool(config.get("use_rslora", False)),
    }


def _alpha(config: Mapping[str, Any], target: str, tensors: Mapping, folder: Path) -> float:
    """alpha of a target by ``alpha_pattern``, whose keys are ends of module names; the same in all layers."""
    layers = {layer for layer, name, _ in tensors if name == target}
    found = {_of_pattern(config, f"model.layers.{layer}.{NAMES[target]}", folder) for layer in layers}
    if len(found) != 1:
        raise UserError(
            f"{folder / CONFIG}: alpha_pattern gives {NAMES[target]} {sorted(found)}, another alpha in other layers: "
            "here a linear map has the same in all layers."
        )
    return found.pop()


def _of_pattern(config: Mapping[str, Any], module: str, folder: Path) -> float:
    for key, value in (config.get("alpha_pattern") or {}).items():
        end = key.removeprefix("^").removesuffix("$")
        if re.search(r"[^\w.]", end):
            raise UserError(f"{folder / CONFIG}: alpha_pattern {key!r} is an expression; name modules, 'q_proj'.")
        if module == end or module.endswith(f".{end}"):
            return value
    return config.get("lora_alpha", 8)


def load_adapter(folder: str | os.PathLike[str], model: Model, params: Params) -> Params:
    """``params`` with the adapters of a folder in PEFT's format, as host arrays in the types that ``params`` have.

    Raises:
        UserError: a file is missing or damaged, tensors are missing, too many or of another shape than the model's,
            the scale is another one, or the adapter is of a kind that there is none of here.
    """
    return fill(Path(folder), _lora_of(model), params)


def fill(folder: Path, lora: Lora, params: Params) -> Params:
    """:func:`load_adapter` for adapters that these settings describe."""
    _check_scales(folder, lora)
    found, places = read_tensors(folder), {}
    for path, linear in adapted(params):
        stacked, target = not path[1].isdigit(), path[-1]
        count = len(linear["lora"]["a"])
        for factor, leaf in linear["lora"].items():
            keys = [(i if stacked else int(path[1]), target, factor) for i in range(count if stacked else 1)]
            shape = tuple(leaf.shape[1:] if stacked else leaf.shape)[::-1]
            parts = [_taken(found, key, shape, folder).swapaxes(-1, -2) for key in keys]
            places[*path, "lora", factor] = (np.stack(parts) if stacked else parts[0]).astype(leaf.dtype)
    if found:
        extra = _name(*min(found))
        raise UserError(f"{folder / WEIGHTS}: the model has no place for {extra} ({len(found)} such tensors).")
    return _placed(params, places)


def _taken(found: dict[tuple, Any], key: tuple, shape: tuple[int, ...], folder: Path) -> np.ndarray:
    tensor = found.pop(key, None)
    if tensor is None:
        raise UserError(f"{folder / WEIGHTS} has no {_name(*key)}: here every layer has the same adapters.")
    if tensor.shape != shape:
        raise UserError(
            f"{folder / WEIGHTS}: {_name(*key)} is of shape {list(tensor.shape)}, and {list(shape)} in this model."
        )
    return tensor


def _placed(node: Any, places: Mapping[tuple, np.ndarray], path: tuple = ()) -> Any:
    if not isinstance(node, Mapping):
        return places.get(path, node)
    return {name: _placed(child, places, (*path, name)) for name, child in node.items()}


def _check_scales(folder: Path, lora: Lora) -> None:
    saved = Lora(**read_settings(folder))
    for target in lora.targets:
        if target in saved.targets and saved.rank_of(target) != lora.rank_of(target):
            ranks = saved.rank_of(target), lora.rank_of(target)
            raise UserError(f"{folder} has rank {ranks[0]} for {target}, and config.model.lora {ranks[1]}.")
        if target in saved.targets and not np.isclose(saved.scale_of(target), lora.scale_of(target)):
            scales = saved.scale_of(target), lora.scale_of(target)
            raise UserError(
                f"{folder} scales {target} by {scales[0]:g} (alpha / r), and config.model.lora by {scales[1]:g}: "
                "set alpha, modules and use_rslora as the adapter has them, or leave them out."
            )


def _lora_of(model: Model) -> Lora:
    if model.lora is None:
        raise UserError("this model has no adapters: its config has no model.lora.")
    return model.lora
