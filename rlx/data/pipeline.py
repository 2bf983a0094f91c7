"""Datasets: from a config to batches whose order is a pure function of (seed, epoch) and whose iterator can resume.

``load`` reads the config, splits off the held-out part and returns two ``Dataset`` objects. A batch is a dict of NumPy
arrays: tokens, valid, where ``[B, K, T]``, candidate_where ``[B, K]``, index ``[B]``, and labels, scores,
preference_probs where the data has them (see ``encode`` for the rules that decide tokens and masks).
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np

from rlx.data.encode import Encoded, Lengths, collate, encode, mismatch
from rlx.data.formats import FORMATS, Parser, Record, check_format
from rlx.data.sources import MemorySource, Rows, Source, hash_json, memory_rows
from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError, close_matches

RULES = "1"  # changes with every change of the rules in `encode`: fingerprints follow
_SPLIT, _FLIP, _ORDER = 0, 1, 2  # streams of random numbers
CACHED_TOKENS = 2**26  # token ids kept in memory for later epochs, 256 MiB


class Dataset:
    """Examples by number, and batches of them. ``fingerprint`` changes with anything that would change a token.

    Args:
        source: the records.
        rows: which of them this dataset holds.
        kind: pairs, lists, unpaired, sft or prompts.
        tokenizer: see ``tokenizers``.
        lengths: static shape of a row.
        flipped: ``[len(rows)]`` true where chosen and rejected change places.
    """

    def __init__(
        self,
        source: Source,
        rows: np.ndarray,
        kind: str,
        tokenizer: Tokenizer,
        lengths: Lengths,
        flipped: np.ndarray | None = None,
    ):
        self.source, self.rows, self.kind, self.tokenizer, self.lengths = source, rows, kind, tokenizer, lengths
        self.flipped = np.zeros(len(rows), bool) if flipped is None else flipped
        self._views = 2 if kind == "unpaired" and source.parser.kind == "pairs" else 1
        self._cache: dict[int, Encoded] = {}
        self._cached = 0
        decided_by = [RULES, source.content, kind, tokenizer.fingerprint, lengths]
        self.fingerprint = hash_json([*decided_by, rows.tolist(), np.flatnonzero(self.flipped).tolist()])[:32]

    def __len__(self) -> int:
        return len(self.rows) * self._views

    def record(self, index: int) -> Record:
        """Returns the record of an example, as text: the candidates that a batch shows for ``index``."""
        row, view = divmod(index, self._views)
        record = self.source[int(self.rows[row])]
        if self.flipped[row]:
            record = record._replace(responses=record.responses[::-1])
        if self._views == 2:
            return Record(record.prompt, (record.responses[view],), label=1.0 - view)
        if self.kind == "sft":
            return Record(record.prompt, record.responses[:1])
        return Record(record.prompt) if self.kind == "prompts" else record

    def encoded(self, index: int) -> Encoded:
        """Returns the token ids of an example; the first ones are kept in memory, up to a bound."""
        found = self._cache.get(index)
        if found is None:
            found = encode(self.record(index), self.tokenizer, self.lengths)
            if self._cached < CACHED_TOKENS:
                found = found._replace(record=found.record._replace(prompt="", responses=()))
                self._cached += len(found.prompt) + sum(map(len, found.responses))
                self._cache[index] = found
        return found

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        mismatched: bool = False,
        state: Mapping[str, Any] | None = None,
        process_index: int = 0,
        process_count: int = 1,
        prefetch: int = 2,
    ) -> "Batches":
        """Returns an iterator over batches.

        Args:
            batch_size: examples in the global batch.
            seed: shuffle every epoch anew and never end, leaving out the incomplete last batch of an epoch; ``None``
                goes once through the examples in order and fills up the last batch.
            mismatched: add ``kl_tokens``, ``kl_valid``, ``kl_where``: prompts with the next example's responses.
            state: go on from ``get_state()`` of such an iterator.
            process_index: which contiguous part of the global batch to give, of ``process_count``.
            process_count: number of processes; divides ``batch_size``.
            prefetch: batches that a thread makes ahead; 0 makes each when it is asked for.

        Raises:
            UserError: sizes that do not fit, or a state of another dataset, seed or batch size.
        """
        if batch_size < 1 or batch_size % process_count:
            raise UserError(f"batch_size={batch_size} must be a positive multiple of the {process_count} processes.")
        if seed is not None and batch_size > len(self):
            raise UserError(f"batch_size={batch_size} is larger than the {len(self)} training examples.")
        if mismatched and batch_size < 2:
            raise UserError("batch_size=1 leaves no other example to mismatch a prompt with: use 2 or more.")
        width = batch_size // process_count
        part = slice(process_index * width, (process_index + 1) * width)
        plan = grain.MapDataset.source(Plan(len(self), batch_size, seed))
        made = plan.map(lambda rows: self._assemble(rows, part, mismatched))
        identity = {"fingerprint": self.fingerprint, "batch_size": batch_size, "seed": seed}
        batches = Batches(made, identity, prefetch)
        if state is not None:
            batches.set_state(state)
        return batches

    def _assemble(self, rows: np.ndarray, part: slice, mismatched: bool) -> dict:
        batch = self._collate(rows[part])
        if not mismatched:
            return batch
        real = int((rows < len(self)).sum())
        following = np.where(rows < len(self), np.roll(rows, -1), rows)
        following[real - 1] = rows[0]  # the circle closes over the examples, without the filling
        own = (following == rows)[part]
        return batch | mismatch(batch, self._collate(following[part]), own, self.lengths.prompt)

    def _collate(self, rows: np.ndarray) -> dict:
        encoded = [self.encoded(int(row)) if row < len(self) else None for row in rows]
        return collate(encoded, rows, self.tokenizer, self.lengths)


class Plan:
    """The example numbers of each batch, by step: a pure function of (seed, epoch), so any step can be resumed.

    With a seed, every epoch is shuffled anew, its incomplete last batch is left out, and there is no end. Without, the
    examples come once, in order; numbers past the end are ``size``.

    >>> [rows.tolist() for rows in Plan(3, 2, None)]
    [[0, 1], [2, 3]]
    """

    def __init__(self, size: int, batch_size: int, seed: int | None):
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffle)

    def __len__(self) -> int:
        return -(-self.size // self.batch_size) if self.seed is None else sys.maxsize

    def __getitem__(self, index: int) -> np.ndarray:
        if index >= len(self):
            raise IndexError(index)
        if self.seed is None:
            return np.minimum(np.arange(index * self.batch_size, (index + 1) * self.batch_size), self.size)
        epoch, place = divmod(index, self.size // self.batch_size)
        return self._epoch(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([_stream(self.seed or 0), _ORDER, epoch]).permutation(self.size)


class Batches(Iterator[dict]):
    """An iterator over batches that can say where it is, and go back there. Grain reads ahead in a thread."""

    def __init__(self, batches: grain.MapDataset, identity: dict, prefetch: int):
        self._identity, self._end = identity, len(batches)
        options = grain.ReadOptions(num_threads=int(prefetch > 0), prefetch_buffer_size=prefetch)
        self._iterator = iter(batches.to_iter_dataset(options))

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict:
        return next(self._iterator)

    def get_state(self) -> dict:
        """Returns the place of the next batch, as a JSON-able dict."""
        return {"next": self._iterator.get_state()["next_index"], **self._identity}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to the place that ``get_state`` gave, of this or another iterator over the same batches.

        Raises:
            UserError: the state belongs to other data, another seed or another batch size.
        """
        for key, value in self._identity.items():
            if state.get(key) != value:
                raise UserError(
                    f"cannot resume: {key} was {state.get(key)!r} and is now {value!r}; the order of the data would "
                    "differ. Use the same config, or a new workdir."
                )
        self._iterator.set_state({"next_index": int(state["next"])})


def _stream(seed: int) -> int:
    return seed % 2**63  # NumPy wants no negative seed


def split(size: int, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row numbers of the training and of the held-out part, each in order.

    >>> train, held_out = split(10, 0.2, seed=0)
    >>> len(train), len(held_out), sorted([*train, *held_out]) == list(range(10))
    (8, 2, True)
    """
    count = min(size - 1, max(1, round(size * eval_fraction))) if eval_fraction > 0 else 0
    order = np.random.default_rng([_stream(seed), _SPLIT]).permutation(size)
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
    "fields": {},  # {name in the format: name in the file}
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


def open_source(
    settings: Mapping[str, Any], path: Any, kind: str, tokenizer: Tokenizer, workdir: str | Path | None
) -> Source:
    """Returns the records that the (checked) settings name."""
    limit, skip = settings["limit"], settings["on_bad_row"] == "skip"
    parser = Parser(settings["format"], settings["fields"], (), tokenizer.vocab_size, settings["max_candidates"])
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
    return np.random.default_rng([_stream(seed), _FLIP]).random(size) < rate
