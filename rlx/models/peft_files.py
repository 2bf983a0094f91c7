"""The files of an adapter of PEFT, read with care: bounded, nothing unpickled, and what is not supported is named."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlx.errors import UserError
from rlx.models.huggingface.files import Entry, read_header

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LARGEST_CONFIG = 1 << 20
NAMES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
"""Our name of a linear map -> its name within a layer of ``transformers``."""
PREFIX = "base_model.model.model.layers"
FACTORS = {"a": "lora_A", "b": "lora_B"}
_TENSOR = re.compile(r"base_model\.model\.(?:[A-Za-z_]+\.)*layers\.(\d{1,5})\.(\w+\.\w+)\.lora_([AB])\.weight")
REFUSED = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "fan_in_fan_out",
    "layers_to_transform",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
"""Options of PEFT that change what an adapter computes, none of which this package has."""
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the weights of the base as they are."""


def read_config(folder: Path) -> dict[str, Any]:
    """``adapter_config.json``.

    Raises:
        UserError: it is missing or damaged, or of a kind of adapter that there is none of here.
    """
    file = folder / CONFIG
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            raise UserError(f"{file} is larger than {LARGEST_CONFIG} bytes: this is no config of an adapter.")
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({str(error).splitlines()[0]}): name a folder of PEFT.") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise UserError(f"{file}: peft_type is {kind!r}; only LORA is supported.")
    refused = [key for key in REFUSED if config.get(key)]
    refused += ["bias"] if config.get("bias", "none") != "none" else []
    refused += ["init_lora_weights"] if config.get("init_lora_weights") not in STARTS else []
    if refused:
        raise UserError(f"{file}: {refused[0]}={config[refused[0]]!r} is not supported.")
    _check_numbers(file, config)
    return config


def _check_numbers(file: Path, config: Mapping[str, Any]) -> None:
    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9

    pattern = config.get("alpha_pattern") or {}
    values = [config.get("r", 8), config.get("lora_alpha", 8), *(pattern.values() if isinstance(pattern, dict) else ())]
    if not isinstance(pattern, dict) or not all(map(number, values)) or not isinstance(config.get("r", 8), int):
        raise UserError(f"{file}: r, lora_alpha and the values of alpha_pattern must be numbers above 0.")


def read_shapes(folder: Path) -> dict[tuple[int, str, str], tuple[int, ...]]:
    """``{(layer, target, 'a' or 'b'): shape}`` of the tensors.

    Raises:
        UserError: the file is missing or damaged, has no tensor, or one that is no matrix.
    """
    found = {key: entry.shape for key, entry in _entries(folder).items()}
    if not found or any(len(shape) != 2 for shape in found.values()):
        wrong = "a tensor that is no matrix" if found else "no tensor"
        raise UserError(f"{folder / WEIGHTS} has {wrong}: this is no adapter.")
    return found


def read_tensors(folder: Path) -> dict[tuple[int, str, str], np.ndarray]:
    """``{(layer, target, 'a' or 'b'): array}``, the arrays as PEFT has them."""
    return {key: entry[(slice(None),) * len(entry.shape)] for key, entry in _entries(folder).items()}


def _entries(folder: Path) -> dict[tuple[int, str, str], Entry]:
    """``{(layer, target, 'a' or 'b'): where it is}`` of the tensors of an adapter."""
    path = folder / WEIGHTS
    if not path.is_file():
        only = (
            " (adapter_model.bin is a pickle, which is never read)" if (folder / "adapter_model.bin").exists() else ""
        )
        raise UserError(f"{folder} has no {WEIGHTS}{only}.")
    return {_key(path, name): entry for name, entry in read_header(path).items()}


_OURS = {name: target for target, name in NAMES.items()}


def _key(path: Path, name: str) -> tuple[int, str, str]:
    match = _TENSOR.fullmatch(name)
    if match is None or match[2] not in _OURS:
        raise UserError(
            f"{path}: {name[:120]!r} is no adapter of {', '.join(NAMES.values())}, which are those there are."
        )
    return int(match[1]), _OURS[match[2]], match[3].lower()
