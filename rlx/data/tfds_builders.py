"""TFDS builders for JSONL files: array_record on disk, read by number, and TensorFlow is never imported.

The folder of a prepared file is named after the hash of its content and of everything else that decides the records:
a changed file never meets an old copy. Preparation happens beside it and is renamed into place, so that a killed or a
concurrent process leaves no half of a dataset.
"""

import contextlib
import io
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rlx.data.formats import FORMATS, Parser, Record
from rlx.data.sources import Located, Rows, find_file, hash_files, hash_json, jsonl_rows, plain
from rlx.errors import UserError, close_matches

VERSION = "1.0.0"
ARRAYS = "arrays"  # further arrays of the vocabulary, as JSON: their shapes are those of the rows
LENGTHS = "responses_lengths"  # lists of ids lie end to end: TFDS writes ragged ones with TensorFlow alone


class _Unregistered:
    """Keeps a builder out of the global names of TFDS: `tfds.builder` then reads what is on disk by itself."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(skip_registration=True, **kwargs)  # type: ignore[call-arg]


class _JsonlBuilder(_Unregistered, tfds.core.GeneratorBasedBuilder):
    """Writes the records of a JSONL file, in the order of the file, with the columns of its kind.

    Args:
        rows: the parsed rows; their parser must be bound (see ``formats.bind``).
    """

    VERSION = tfds.core.Version(VERSION)
    code_path = None  # no checksums: TFDS 4.9 seeks their file with importlib_resources, which it does not declare

    def __init__(self, *, rows: Rows, **kwargs: Any):
        self.rows = rows
        self.failure: UserError | None = None
        self.report = tfds.core.MetadataDict()
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        parser = self.rows.parser
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(_features(parser)),
            disable_shuffling=True,
            metadata=self.report,
        )

    def _split_generators(self, dl_manager: Any) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        try:
            for number, record in enumerate(self.rows):
                yield number, _columns(self.rows.parser, record)
        except UserError as error:
            self.failure = error  # TFDS would bury it under its own words
            raise
        self.report.update(
            skipped=self.rows.skipped, reasons=self.rows.reasons, max_candidates=self.rows.max_candidates
        )


class PreferencePairs(_JsonlBuilder):
    """prompt, chosen, rejected, and preference_prob where the file has it."""


class PreferenceLists(_JsonlBuilder):
    """prompt, responses (best first where they are scored), and scores where the file has them."""


class Unpaired(_JsonlBuilder):
    """prompt, completion, label."""


class SftText(_JsonlBuilder):
    """prompt, response."""


class Prompts(_JsonlBuilder):
    """prompt."""


BUILDERS = {
    "pairs": PreferencePairs,
    "lists": PreferenceLists,
    "unpaired": Unpaired,
    "sft": SftText,
    "prompts": Prompts,
}


def _is_ids(parser: Parser) -> bool:
    return parser.format.endswith("_ids")


def stored_parser(parser: Parser) -> Parser:
    """Returns the parser that reads back what the builder has written for ``parser``."""
    name = parser.kind + ("_ids" if _is_ids(parser) else "")
    kept = tuple(field for field in parser.optional if field in FORMATS[name].optional)
    arrays = {array: f"{ARRAYS}/{array}" for array in parser.arrays}
    return Parser(name, optional=kept, arrays=arrays, rendered=parser.by_template)


def _features(parser: Parser) -> dict:
    stored = stored_parser(parser)
    text = tfds.features.Sequence(np.int32) if _is_ids(parser) else tfds.features.Text()
    features = {}
    for field in (*FORMATS[stored.format].fields, *stored.optional):
        if field in ("label", "preference_prob"):
            features[field] = tfds.features.Scalar(np.float32)
        elif field == "scores":
            features[field] = tfds.features.Sequence(np.float32)
        else:
            features[field] = tfds.features.Sequence(text) if field == "responses" else text
    if parser.arrays:
        features[ARRAYS] = tfds.features.Text()
    return features | ({LENGTHS: tfds.features.Sequence(np.int32)} if stored.format == "lists_ids" else {})


def _columns(parser: Parser, record: Record) -> dict:
    stored = stored_parser(parser)
    first, *others = FORMATS[stored.format].fields
    values: dict[str, Any] = {first: record.prompt}
    if parser.kind == "lists":
        values[others[0]] = record.responses
    else:
        values |= dict(zip(others, record.responses, strict=False))
    if stored.format == "lists_ids":
        values[others[0]] = [token for response in record.responses for token in response]
        values[LENGTHS] = [len(response) for response in record.responses]
    if parser.arrays:
        values[ARRAYS] = json.dumps(dict(record.arrays))
    known = {"label": record.label, "scores": record.scores, "preference_prob": record.preference_prob}
    known["rationale"] = record.rationale
    return values | {name: value for name, value in known.items() if name in (*others, *stored.optional)}


def read_row(data: Any, number: int) -> dict:
    """Returns a stored row as it would stand in a JSONL file."""
    row = plain(data[number])
    for name, value in json.loads(row.pop(ARRAYS, "{}")).items():
        row[f"{ARRAYS}/{name}"] = value
    if LENGTHS in row:
        ends = np.cumsum([0, *row.pop(LENGTHS)]).tolist()
        row["responses_ids"] = [row["responses_ids"][a:b] for a, b in itertools.pairwise(ends)]
    return row


class TfdsSource:
    """A prepared TFDS dataset (array_record), read by number. Rows are parsed when they are read.

    Reading one that has vanished or been damaged since raises a ``UserError`` with the ``remedy``.
    """

    def __init__(
        self,
        split: Any,
        parser: Parser,
        format: str,
        content: str,
        metadata: dict,
        rows: np.ndarray | None = None,
        remedy: str = "put the dataset back as it was",
    ):
        self.split, self.parser, self.format, self.content, self.rows = split, parser, format, content, rows
        self.max_candidates, self.skipped = metadata["max_candidates"], metadata["skipped"]
        self.reasons: Sequence[str] = metadata["reasons"]
        self.remedy = remedy

    def __len__(self) -> int:
        with _undamaged("the prepared data", self.remedy):
            return len(self.split) if self.rows is None else len(self.rows)

    def __getitem__(self, index: int) -> Record:
        number = index if self.rows is None else int(self.rows[index])
        with _undamaged(f"row {number} of the prepared data", self.remedy):
            return self.parser(read_row(self.split, number))


@contextlib.contextmanager
def _undamaged(what: str, remedy: str) -> Iterator[None]:
    """All rows could be read once: one that cannot has changed since, and libraries say so in many ways."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{what} cannot be read any more ({first}): {remedy}.") from None


def prepare_jsonl(
    path: str | Path,
    cache_dir: str | Path,
    parser: Parser | None = None,
    *,
    kind: str = "pairs",
    skip: bool = False,
    limit: int | None = None,
) -> TfdsSource:
    """Returns the records of a JSONL file, prepared under ``cache_dir`` unless they are there already.

    Args:
        path: a JSONL file, gzip or not.
        cache_dir: folder for prepared files.
        parser: format and names of the fields; by default the format is found out from the first usable row.
        kind: what the records will be used as: settles the format where several fit.
        skip: drop and count bad rows rather than raising.
        limit: number of usable rows to take at most.

    Raises:
        UserError: no such file, a bad row, no usable row, a folder that cannot be written.
    """
    file = find_file(path)
    rows = _rows(file, parser or Parser("auto"), kind, skip, limit)
    parser = _bind_first(rows)
    bounds = [parser.vocab_size if _is_ids(parser) else None, parser.max_candidates]
    settings = [parser.format, dict(parser.fields), parser.optional, bounds, skip, limit, VERSION]
    settings += [dict(parser.arrays)] if parser.arrays else []
    settings += [parser.chat.fingerprint] if parser.chat is not None and parser.by_template else []
    content = hash_json([hash_files([file]), settings])
    folder = Path(cache_dir).expanduser() / content[:32]
    if not folder.is_dir():
        rows = _rows(file, parser, kind, skip, limit)
        _prepare(folder, BUILDERS[parser.kind], rows)
    return _open_prepared(folder, parser, content)


def _rows(file: Path, parser: Parser, kind: str, skip: bool, limit: int | None) -> Rows:
    return Rows(jsonl_rows(file), parser, kind, skip=skip, limit=limit, origin=str(file))


def _bind_first(rows: Rows) -> Parser:
    next(iter(rows))
    return rows.parser


def _prepare(folder: Path, builder_class: type[_JsonlBuilder], rows: Rows) -> None:
    try:
        beside = folder.parent / f".preparing-{uuid.uuid4().hex}"
        beside.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"data.cache_dir: cannot write to {folder.parent} ({error.strerror}).") from None
    try:
        builder = builder_class(rows=rows, data_dir=str(beside))
        try:
            with _quiet():
                builder.download_and_prepare()
        except Exception:
            if builder.failure is not None:
                raise builder.failure from None
            raise
        with contextlib.suppress(OSError):  # another process was faster, with the same content
            os.rename(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS prints two lines and draws bars; errors come as exceptions."""
    from tensorflow_datasets.core.utils import tqdm_utils

    active = tqdm_utils._active  # no public way to ask
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if active:
            tfds.enable_progress_bar()


def _open_prepared(folder: Path, parser: Parser, content: str) -> TfdsSource:
    found = sorted(folder.glob("*/*/dataset_info.json"))
    if not found:
        raise UserError(f"data.cache_dir: {folder} is not a prepared dataset; delete it and run again.")
    builder: Any = tfds.builder_from_directory(str(found[0].parent))
    remedy = f"delete {folder}, and the same command prepares them again"
    with _undamaged("the prepared data", remedy):
        metadata = json.loads((found[0].parent / "metadata.json").read_text())
        split = builder.as_data_source(split="train")
    return TfdsSource(split, stored_parser(parser), parser.format, content, metadata, remedy=remedy)


def open_tfds(
    name: str,
    parser: Parser,
    *,
    data_dir: str | Path | None = None,
    split: str = "train",
    kind: str = "pairs",
    skip: bool = False,
    limit: int | None = None,
) -> TfdsSource:
    """Returns the records of an existing TFDS dataset: a name with ``data_dir``, or the folder of one version.

    Raises:
        UserError: no such dataset or split, not stored as array_record, a bad row.
    """
    builder = find_builder(name, data_dir)
    if split not in builder.info.splits:
        splits = list(builder.info.splits)
        raise UserError(
            f"data.split: {name} has no split {split!r}; splits are {splits}.{close_matches(split, splits)}"
        )
    data = builder.as_data_source(split=split)
    located = (Located(f"{name}[{split}]:{number}", read_row(data, number)) for number in range(len(data)))
    rows = Rows(located, parser, kind, skip=skip, limit=limit, origin=f"{name}[{split}]")
    kept = np.array([rows.number for _ in rows])
    files = [Path(file) for file in builder.info.splits[split].filepaths]
    settings = [rows.parser.format, dict(rows.parser.fields), rows.parser.optional, rows.parser.max_candidates]
    settings += [dict(rows.parser.arrays)] if rows.parser.arrays else []
    chat = rows.parser.chat if rows.parser.by_template else None
    settings += [chat.fingerprint] if chat is not None else []
    content = hash_json([hash_files(files), settings, skip, limit])
    metadata = {"max_candidates": rows.max_candidates, "skipped": rows.skipped, "reasons": rows.reasons}
    return TfdsSource(data, rows.parser, rows.parser.format, content, metadata, kept)


def find_builder(name: str, data_dir: str | Path | None) -> Any:
    """Returns the builder of a prepared dataset that is stored as array_record, or raises ``UserError``."""
    try:
        if data_dir is None:
            builder = tfds.builder_from_directory(str(name))
        else:
            builder = tfds.builder(name, data_dir=str(data_dir), try_gcs=False)
    except Exception as error:  # a registry of errors of its own
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"data.path: no TFDS dataset {name!r} (data_dir={data_dir}): {first} "
            "Give the folder that holds dataset_info.json, or a name with data.data_dir."
        ) from None
    file_format = builder.info.file_format
    if file_format is None or file_format.value != "array_record":
        found = file_format and file_format.value
        raise UserError(f"data.path: {name!r} is stored as {found}; prepare it with array_record.")
    return builder
