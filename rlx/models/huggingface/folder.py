"""A Hugging Face folder: ``config.json`` and the safetensors files beside it, one or several with an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlx.errors import UserError, close_matches, one_line
from rlx.models.huggingface.files import DTYPES, HEADER_LIMIT, Entry, parse_json, read_header

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
CONFIG_LIMIT = 1_000_000
LONGEST_NAME = 200
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def read_json(file: Path, limit: int = CONFIG_LIMIT) -> dict[str, Any]:
    """The JSON object of a file of at most ``limit`` bytes.

    Raises:
        UserError: no such file, more bytes, or no JSON object.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(limit + 1)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
    if len(text) > limit:
        raise UserError(f"{file} has more than {limit} bytes, which is no {file.name}")
    return parse_json(text, file)


def read_config(path: str) -> tuple[Path, dict[str, Any]]:
    """The folder that ``path`` names and its ``config.json``.

    Raises:
        UserError: there is no such folder, or no such file in it.
    """
    if not path:
        raise UserError("model 'hf' needs model.path, a folder with config.json and safetensors files")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        near = [other.name for other in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"model.path: there is no folder {folder}.{close_matches(folder.name, near)}")
    if not (folder / CONFIG).is_file():
        raise UserError(f"model.path: {folder} has no {CONFIG}: name the folder of a Hugging Face model")
    return folder, read_json(folder / CONFIG)


def read_tensors(folder: Path) -> dict[str, Entry]:
    """The tensors of a folder by name; their numbers stay in the files.

    Raises:
        UserError: no safetensors file, a file of the index that is missing, outside the folder or without a tensor
            that it should hold, two files with one tensor, or a type that is no float.
    """
    if (folder / INDEX).exists():
        found = _indexed(folder)
    elif (folder / WEIGHTS).exists():
        found = read_header(folder / WEIGHTS)
    else:
        raise UserError(_no_weights(folder))
    for name, entry in found.items():
        if entry.dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise UserError(
                f"{entry.file}: {name[:120]!r} is of type {one_line(entry.dtype, 20)}; "
                f"weights must be {known}, not quantised"
            )
    return found


def _no_weights(folder: Path) -> str:
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED)
    if pickled:
        return (
            f"{folder} has {pickled[0]}, but pickles are never read, for they can run any code: convert it to "
            f"{WEIGHTS} (transformers: save_pretrained)"
        )
    others = [file.name for file in folder.iterdir()]
    return f"{folder} has neither {WEIGHTS} nor {INDEX}.{close_matches(WEIGHTS, others)}"


def _indexed(folder: Path) -> dict[str, Entry]:
    index = folder / INDEX
    weight_map = read_json(index, HEADER_LIMIT).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{index} has no weight_map from tensors to files")
    found: dict[str, Entry] = {}
    for name in dict.fromkeys(weight_map.values()):
        plain = Path(name).name == name and "\\" not in name and "\0" not in name and len(name) <= LONGEST_NAME
        if not plain or not name.endswith(".safetensors"):
            raise UserError(
                f"{index} names {name[:80]!r}: only plain names of safetensors files in its folder are read"
            )
        if not (folder / name).is_file():
            raise UserError(f"{index} names {name[:120]!r}, which is not in the folder: the download is not complete")
        entries = read_header(folder / name)
        twice = sorted(entries.keys() & found.keys())
        if twice:
            raise UserError(
                f"{index}: the tensor {twice[0][:120]!r} is in two files, {found[twice[0]].file.name} and {name}"
            )
        found |= entries
    for tensor, name in weight_map.items():
        if tensor not in found or found[tensor].file.name != name:
            raise UserError(
                f"{index} says that {name!r} holds {tensor[:120]!r}, which it does not: get both files again"
            )
    return found
