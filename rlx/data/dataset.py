"""Examples by number, and batches of them: the order is a pure function of (seed, epoch), an iterator can resume.

A batch is a dict of NumPy arrays: tokens, valid, where ``[B, K, T]``, candidate_where ``[B, K]``, index ``[B]``, and
labels, scores, preference_probs where the data has them (see ``encode`` for the rules of tokens and masks).
"""

import functools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np

from rlx.data.encode import Encoded, Lengths, collate, encode, mismatch
from rlx.data.formats import Record
from rlx.data.sources import Source, hash_json
from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError

RULES = "1"  # changes with every change of the rules in `encode`: fingerprints follow
CACHED_TOKENS = 2**26  # token ids kept in memory for later epochs, 256 MiB
SPLIT, FLIP, ORDER = 0, 1, 2  # streams of random numbers


def stream(seed: int) -> int:
    """A seed as NumPy wants it: any integer, not negative."""
    return seed % 2**63


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
        decided_by += ["rendered"] if source.parser.rendered or source.parser.by_template else []
        self.fingerprint = hash_json([*decided_by, rows.tolist(), np.flatnonzero(self.flipped).tolist()])[:32]

    def __len__(self) -> int:
        return len(self.rows) * self._views

    def record(self, index: int) -> Record:
        """Returns the record of an example, as text: the candidates that a batch shows for ``index``."""
        row, view = divmod(index, self._views)
        record = self.source[int(self.rows[row])]
        if self.flipped[row]:
            record = record.reordered((1, 0))
        if self._views == 2:
            return self._single(record, view)._replace(label=1.0 - view)
        if self.kind == "sft":
            return self._single(record, 0)
        return Record(record.prompt) if self.kind == "prompts" else record

    def _single(self, record: Record, number: int) -> Record:
        """One response of a record, without what compares it to the others."""
        one = record.reordered((number,))
        return Record(one.prompt, one.responses, arrays=one.arrays)

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
        return np.random.default_rng([stream(self.seed or 0), ORDER, epoch]).permutation(self.size)


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
