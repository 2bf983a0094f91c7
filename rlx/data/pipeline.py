"""From the ``data`` block of a config to the training and the held-out ``Dataset``."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlx.data import chat
from rlx.data.dataset import FLIP, SPLIT, Batches, Dataset, stream
from rlx.data.encode import Lengths
from rlx.data.formats import FORMATS, Parser, axes_of, check_format
from rlx.data.sources import MemorySource, Rows, Source, memory_rows
from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError, close_matches
from rlx.types import VOCABULARY

__all__ = ["DEFAULTS", "Batches", "Dataset", "Report", "check", "load", "open_source", "split"]


def split(size: int, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row numbers of the training and of the held-out part, each in order.

    >>> train, held_out = split(10, 0.2, seed=0)
    >>> len(train), len(held_out), sorted([*train, *held_out]) == list(range(10))
    (8, 2, True)
    """
    count = min(size - 1, max(1, round(size * eval_fraction))) if eval_fraction > 0 else 0
    order = np.random.default_rng([stream(seed), SPLIT]).permutation(size)
    return np.sort(order[count:]), np.sort(order[:count])


class Report(NamedTuple):
    """What ``load`` has done, for the log."""

    format: str
    kind: str
    rows: int
    skipped: int
    reasons: Sequence[str]
    train: int
    eval: int
    flipped: int
    fingerprint: str


DEFAULTS: dict[str, Any] = {
    "source": "jsonl",  # jsonl: a file | tfds: a prepared dataset | memory: `records`
    "path": None,  # the file, or the name or folder of the TFDS dataset
    "eval_path": None,  # a held-out file of the same format, instead of eval_fraction
    "records": None,
    "data_dir": None,
    "split": "train",
    "format": "auto",
    "chat_template": "auto",  # auto: the tokenizer's, if it has one | none | a file or a folder
    "fields": {},  # {name in the format: name in the file}
    "arrays": {},  # {array of rlx.types.VOCABULARY that the method reads: name in the file}
    "max_prompt_length": None,
    "max_response_length": None,
    "max_candidates": None,  # None: as many as the longest list has
    "on_bad_row": "error",
    "eval_fraction": 0.0,
    "limit": None,
    "cache_dir": None,
    "flip_rate": 0.0,
    "unpaired": False,
}


def load(
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    kind: str = "pairs",
    seed: int = 0,
    workdir: str | Path | None = None,
) -> tuple[Dataset, Dataset, Report]:
    """Returns the training part, the held-out part (maybe empty) and a report.

    Args:
        config: the ``data`` block; ``DEFAULTS`` lists the keys.
        tokenizer: see ``tokenizers.build``.
        kind: pairs, lists, unpaired (pairs become two rows with labels 1 and 0), sft (the chosen response), prompts.
        seed: decides the split and the flips.
        workdir: prepared files go to ``workdir/data`` unless the config or ``RLX_DATA_CACHE`` names a folder.

    Raises:
        UserError: a mistake in the config or in the data.
    """
    settings = check(config, kind)
    kind = "unpaired" if settings["unpaired"] and kind == "pairs" else kind
    source = open_source(settings, settings["path"], kind, tokenizer, workdir)
    train, held_out, held_source = _parts(source, settings, kind, tokenizer, seed, workdir)
    lengths = _lengths(kind, settings, max(source.max_candidates, held_source.max_candidates))
    flipped = _flips(len(source), settings["flip_rate"], kind, source, seed)[train]
    datasets = (
        Dataset(source, train, kind, tokenizer, lengths, flipped),
        Dataset(held_source, held_out, kind, tokenizer, lengths),
    )
    report = Report(
        source.format, kind, len(source), source.skipped, source.reasons, len(datasets[0]), len(datasets[1]),
        int(flipped.sum()), datasets[0].fingerprint,
    )  # fmt: skip
    return *datasets, report


def check(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Returns the config with its defaults, or raises ``UserError`` for the first thing that is wrong in it."""
    given = dict(config.to_dict() if hasattr(config, "to_dict") else config)  # type: ignore[attr-defined]
    for key in given:
        if key not in DEFAULTS:
            raise UserError(f"unknown key data.{key}; keys are {list(DEFAULTS)}.{close_matches(key, DEFAULTS)}")
    settings = DEFAULTS | given
    check_format(settings["format"], kind)
    for key, allowed in (("source", ("jsonl", "tfds", "memory")), ("on_bad_row", ("error", "skip"))):
        if settings[key] not in allowed:
            near = close_matches(settings[key], allowed)
            raise UserError(f"data.{key} must be one of {list(allowed)}, found {settings[key]!r}.{near}")
    if not isinstance(settings["chat_template"], str) or not settings["chat_template"]:
        raise UserError(f"data.chat_template is 'auto', 'none' or a path, not {settings['chat_template']!r}.")
    needed = "records" if settings["source"] == "memory" else "path"
    if not settings[needed]:
        raise UserError(f"data.{needed} is missing (data.source={settings['source']!r}).")
    for key, low, optional in _INTEGERS:
        value = settings[key]
        if not (optional and value is None) and (type(value) is not int or value < low):
            raise UserError(f"data.{key} must be an integer of at least {low}, found {value!r}.")
    for key in ("eval_fraction", "flip_rate"):
        if not isinstance(settings[key], int | float) or not 0 <= settings[key] < 1:
            raise UserError(f"data.{key} must be at least 0 and less than 1, found {settings[key]!r}.")
    _check_fields(settings["fields"])
    _check_arrays(settings["arrays"])
    return settings


_INTEGERS = (
    ("max_prompt_length", 1, False),
    ("max_response_length", 1, False),
    ("max_candidates", 1, True),
    ("limit", 1, True),
)


def _check_fields(fields: Mapping[str, str]) -> None:
    known = sorted({name for form in FORMATS.values() for name in (*form.fields, *form.optional)})
    for name in fields:
        if name not in known:
            raise UserError(f"unknown field {name!r} in data.fields; fields are {known}.{close_matches(name, known)}")


def _check_arrays(arrays: Mapping[str, str]) -> None:
    able = [name for name in VOCABULARY if not set(axes_of(name)) - set("EJK")]
    for name in arrays:
        if name not in able:
            raise UserError(
                f"data.arrays: {name!r} is no array that a row can hold.{close_matches(name, able)} "
                f"Those that can: {able}."
            )


def open_source(
    settings: Mapping[str, Any], path: Any, kind: str, tokenizer: Tokenizer, workdir: str | Path | None
) -> Source:
    """Returns the records that the (checked) settings name."""
    limit, skip = settings["limit"], settings["on_bad_row"] == "skip"
    parser = Parser(
        settings["format"], settings["fields"], (), tokenizer.vocab_size, settings["max_candidates"], settings["arrays"]
    )._replace(chat=chat.find(settings["chat_template"], tokenizer))
    if settings["source"] == "memory":
        rows = memory_rows(settings["records"])
        return MemorySource(Rows(rows, parser, kind, skip=skip, limit=limit, origin="data.records"))
    from rlx.data import tfds_builders  # half a second: only where it is used

    if settings["source"] == "tfds":
        found = {"data_dir": settings["data_dir"], "split": settings["split"]}
        return tfds_builders.open_tfds(path, parser, kind=kind, skip=skip, limit=limit, **found)
    cache = settings["cache_dir"] or os.environ.get("RLX_DATA_CACHE") or (Path(workdir) / "data" if workdir else None)
    folder = cache or Path.home() / ".cache" / "rlx" / "data"
    return tfds_builders.prepare_jsonl(path, folder, parser, kind=kind, skip=skip, limit=limit)


def _parts(
    source: Source, settings: dict, kind: str, tokenizer: Tokenizer, seed: int, workdir: str | Path | None
) -> tuple[np.ndarray, np.ndarray, Source]:
    """Training rows, held-out rows, and the source of the latter."""
    if settings["eval_path"] is None:
        return *split(len(source), settings["eval_fraction"], seed), source
    if settings["eval_fraction"] or settings["source"] == "memory":
        raise UserError("data.eval_path goes with files alone, and with data.eval_fraction=0.")
    held = open_source(settings, settings["eval_path"], kind, tokenizer, workdir)
    return np.arange(len(source)), np.arange(len(held)), held


def _lengths(kind: str, settings: Mapping[str, Any], longest: int) -> Lengths:
    candidates: dict[str, Callable[[], int]] = {
        "pairs": lambda: 2,
        "lists": lambda: settings["max_candidates"] or longest,
    }
    response = 0 if kind == "prompts" else settings["max_response_length"]
    return Lengths(settings["max_prompt_length"], response, candidates.get(kind, lambda: 1)())


def _flips(size: int, rate: float, kind: str, source: Source, seed: int) -> np.ndarray:
    """Which rows have chosen and rejected exchanged: decided for the row number, so that a limit changes no other."""
    if kind in ("sft", "prompts"):  # the labels that are flipped are those of preferences
        return np.zeros(size, bool)
    if rate and source.parser.kind != "pairs":
        raise UserError(f"data.flip_rate exchanges the responses of pairs; format {source.format!r} has none.")
    return np.random.default_rng([stream(seed), FLIP]).random(size) < rate
