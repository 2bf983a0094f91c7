"""GSM8K and MATH from files: rows of JSONL (gzip or not) in ``RLX_DATA_DIR`` or any path, or a TFDS dataset."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlx.data.rows import BadRow, Row
from rlx.data.sources import Located, find_file, jsonl_rows
from rlx.errors import UserError, close_matches
from rlx.rollout import answers
from rlx.rollout.numbers import number
from rlx.rollout.tasks.example import Example, check_split

TEMPLATES = {
    "plain": "Question: {question}\nAnswer:",
    "hashes": "{question}\nThink step by step. Write the final answer as '#### <number>' on the last line.\n",
    "boxed": "{question}\nThink step by step, and put the final answer within \\boxed{}.\n",
    "none": "{question}",
}
_MARKS = re.compile(r"<<[^<>\n]*>>")


def gsm8k(
    seed: int | None = None,
    size: int | None = None,
    *,
    split: str = "train",
    path: str | Path | None = None,
    template: str = "plain",
    marks: bool = False,
    source: str = "jsonl",
    data_dir: str | Path | None = None,
    on_bad_row: str = "error",
) -> list[Example]:
    """Grade-school problems; ``info`` has the ``solution`` (text that ends with ``#### x``) and the ``place``.

    Args:
        seed: of the order; None keeps that of the file.
        size: take this many at most.
        split: ``train`` or ``test``.
        path: a file, or a folder that holds ``train.jsonl.gz`` and ``test.jsonl.gz`` (or without ``.gz``); None is
            ``$RLX_DATA_DIR/gsm8k``. With ``source='tfds'`` the name of a dataset, or the folder of a prepared one.
        template: ``plain``, ``hashes``, ``boxed``, ``none``, or a text that contains ``{question}``.
        marks: keep the calculator's marks, ``<<2+3=5>>``, in the solution.
        source: ``jsonl`` or ``tfds``.
        data_dir: of TFDS, for datasets that are given by name.
        on_bad_row: ``error``, or ``skip``.

    Raises:
        UserError: no such file, split or template, or a bad row, with its file and line.

    References:
        Cobbe et al., *Training Verifiers to Solve Math Word Problems*, arXiv:2110.14168.
    """

    def read(row: Row) -> Example:
        solution, question = row.text("answer"), row.text("question")
        answer = answers.extract(solution)
        if "####" not in solution or answer is None or number(answer) is None:
            raise BadRow("field 'answer' must end with '#### <number>'.")
        solution = solution if marks else _MARKS.sub("", solution)
        return Example(ask(question), answer.replace(",", ""), {"solution": solution})

    ask = _asking(template)
    rows = _open("gsm8k", split, path, source, data_dir)
    return _examples(rows, read, seed, size, on_bad_row)


def math(
    seed: int | None = None,
    size: int | None = None,
    *,
    split: str = "train",
    path: str | Path | None = None,
    template: str = "boxed",
    difficulties: Iterable[int] | None = None,
    source: str = "jsonl",
    data_dir: str | Path | None = None,
    on_bad_row: str = "error",
) -> list[Example]:
    r"""Competition problems with answers in LaTeX; ``info`` has the ``place`` and what the row says of itself.

    A row holds ``problem`` and ``answer``, or ``problem`` and a ``solution`` with the answer in ``\boxed{}``.

    Args:
        seed: of the order; None keeps that of the file.
        size: take this many at most.
        split: ``train`` or ``test``.
        path: a file, or a folder that holds ``train.jsonl.gz`` and ``test.jsonl.gz`` (or without ``.gz``); None is
            ``$RLX_DATA_DIR/math``. With ``source='tfds'`` the name of a dataset, or the folder of a prepared one.
        template: ``plain``, ``hashes``, ``boxed``, ``none``, or a text that contains ``{question}``.
        difficulties: take only problems of these.
        source: ``jsonl`` or ``tfds``.
        data_dir: of TFDS, for datasets that are given by name.
        on_bad_row: ``error``, or ``skip``: some copies of the data lack an answer here and there.

    Raises:
        UserError: no such file, split or template, or a bad row, with its file and line.

    References:
        Hendrycks et al., *Measuring Mathematical Problem Solving With the MATH Dataset*, arXiv:2103.03874.
    """
    wanted = None if difficulties is None else set(difficulties)

    def read(row: Row) -> Example | None:
        known = {
            name: row.get(name) for name in ("difficulty", "level", "type", "unique_id", "solution") if name in row
        }
        if wanted is not None and int(row.number("difficulty")) not in wanted:
            return None
        answer = row.text("answer") if "answer" in row else answers.extract(row.text("solution"))
        if answer is None or answers.parse(answer) is None:
            raise BadRow("no answer of at most 1000 characters: give 'answer', or a 'solution' with '\\boxed{...}'.")
        return Example(ask(row.text("problem")), answer, known)

    ask = _asking(template)
    rows = _open("math", split, path, source, data_dir)
    return _examples(rows, read, seed, size, on_bad_row)


def _asking(template: str) -> Callable[[str], str]:
    text = TEMPLATES.get(template, template)
    if "{question}" not in text:
        raise UserError(
            f"unknown template {template!r}; templates are {list(TEMPLATES)}, or a text that contains '{{question}}'."
            f"{close_matches(template, TEMPLATES)}"
        )
    return lambda question: text.replace("{question}", question)


def _open(name: str, split: str, path: str | Path | None, source: str, data_dir: Any) -> Iterator[Located]:
    if source == "tfds":
        return _tfds_rows(str(path or name), data_dir, split)
    if source != "jsonl":
        raise UserError(f"unknown source {source!r} of {name}; sources are ['jsonl', 'tfds'].")
    check_split(split)
    return jsonl_rows(find_file(_file(name, split, path)))


def _tfds_rows(name: str, data_dir: str | Path | None, split: str) -> Iterator[Located]:
    """The rows of a prepared dataset; TFDS is imported only here."""
    from rlx.data.tfds_builders import find_builder, read_row

    builder = find_builder(name, data_dir)
    if split not in builder.info.splits:
        splits = list(builder.info.splits)
        raise UserError(f"{name} has no split {split!r}; splits are {splits}.{close_matches(split, splits)}")
    data = builder.as_data_source(split=split)
    return (Located(f"{name}[{split}]:{number}", read_row(data, number)) for number in range(len(data)))


def _file(name: str, split: str, path: str | Path | None) -> Path:
    if not path:
        folder = os.environ.get("RLX_DATA_DIR")
        if not folder:
            raise UserError(
                f"{name} is not found: set path='...' to its file or folder, or RLX_DATA_DIR to the folder above."
            )
        path = Path(folder) / name
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    packed = path / f"{split}.jsonl.gz"
    return packed if packed.is_file() else path / f"{split}.jsonl"


def _examples(
    rows: Iterable[Located], read: Callable[[Row], Example | None], seed: int | None, size: int | None, on_bad_row: str
) -> list[Example]:
    if on_bad_row not in ("error", "skip"):
        raise UserError(f"unknown on_bad_row {on_bad_row!r}; give 'error' or 'skip'.")
    found = []
    for place, values in rows:
        try:
            if isinstance(values, BadRow):
                raise values
            example = read(Row(values, {}, None))
        except BadRow as error:
            if on_bad_row == "error":
                raise UserError(f"{place}: {error} (on_bad_row='skip' passes over such rows.)") from None
            continue
        if example is not None:
            found.append(example._replace(info={**example.info, "place": place}))
        if seed is None and size is not None and len(found) >= size:
            break
    if not found:
        raise UserError("there is no usable row in the file.")
    order = range(len(found)) if seed is None else np.random.default_rng(seed % 2**63).permutation(len(found))
    return [found[row] for row in order][:size]
