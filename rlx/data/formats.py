"""Rows of the common preference formats become one vocabulary: a prompt, its responses, and what is known of them.

A *row* is a dict as it stands in a file; a *record* is what the rest of the code sees. ``FORMATS`` is the list of
formats with the fields that each needs. Conversations are written out by the tokenizer's chat template where there is
one (``data.chat_template``), else as the HH dialogues are: turns start with ``\\n\\nHuman:`` and ``\\n\\nAssistant:``,
the prompt ends with the last ``\\n\\nAssistant:``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.data.chat import ChatTemplate, Turn
from rlx.data.rows import ASSISTANT, TURNS, BadRow, Row, kind_of, missing
from rlx.errors import UserError, close_matches
from rlx.types import VOCABULARY

Text = str | tuple[int, ...]
"""Words, or their token ids."""


class Rendered(str):
    """Words that a chat template has written, special tokens included: nothing is put before or behind them."""

    def __str__(self) -> str:  # stays what it is where code asks for a string
        return self


class Record(NamedTuple):
    """One example. ``responses``: a pair is (chosen, rejected); a list with scores is sorted, best first.

    ``arrays``: further arrays of the vocabulary by name, as (nested lists of) numbers. ``rationale``: why the chosen
    response is better.
    """

    prompt: Text = ""
    responses: tuple[Text, ...] = ()
    scores: tuple[float, ...] | None = None
    label: float | None = None
    preference_prob: float | None = None
    arrays: Mapping[str, Any] = {}
    rationale: Text | None = None

    def reordered(self, order: Sequence[int]) -> "Record":
        """The candidates in another order, with everything that is known of each."""
        scores = None if self.scores is None else tuple(self.scores[i] for i in order)
        arrays = {}
        for name, value in self.arrays.items():
            for axis in (i for i, letter in enumerate(axes_of(name)) if letter == "K"):
                value = np.take(value, order, axis).tolist()
            arrays[name] = value
        return self._replace(responses=tuple(self.responses[i] for i in order), scores=scores, arrays=arrays)


def axes_of(name: str) -> str:
    """Axes of an array of the vocabulary beside the batch's."""
    return VOCABULARY[name][0].lstrip(".")


def _pairs(row: Row) -> Record:
    record = Record(row.text("prompt", empty=True), (row.text("chosen"), row.text("rejected")), **_probability(row))
    return record._replace(rationale=row.text("rationale")) if "rationale" in row else record


def _pairs_ids(row: Row) -> Record:
    return Record(
        row.ids("prompt_ids", empty=True), (row.ids("chosen_ids"), row.ids("rejected_ids")), **_probability(row)
    )


def _probability(row: Row) -> dict:
    return {"preference_prob": row.number("preference_prob", 0, 1)} if "preference_prob" in row else {}


def _hh(row: Row) -> Record:
    chosen, rejected = (_split_dialogue(row, field) for field in ("chosen", "rejected"))
    return _same_prompt(row, chosen, rejected)


def _split_dialogue(row: Row, field: str) -> tuple[str, str]:
    before, turn, response = row.text(field).rpartition(ASSISTANT)
    name = row.name(field)
    if not turn:
        raise BadRow(f"field {name!r} has no {ASSISTANT!r} turn.")
    if TURNS["user"] in response:
        raise BadRow(f"field {name!r} must end with a turn of the assistant, found one of the human.")
    if not response:
        raise BadRow(f"field {name!r} ends with an empty response; remove the row or set data.on_bad_row='skip'.")
    return before + turn, response


def _conversation(row: Row) -> Record:
    chosen, rejected = (_answered(row, field) for field in ("chosen", "rejected"))
    if "prompt" not in row:
        return _same_prompt(row, _written(row, chosen), _written(row, rejected))
    shared = [("user", row.text("prompt"))] if isinstance(row.get("prompt"), str) else row.messages("prompt")
    if all(len(turns) == 1 for turns in (chosen, rejected)):  # they hold the last turn alone
        chosen, rejected = [*shared, *chosen], [*shared, *rejected]
    return _same_prompt(row, _written(row, chosen), _written(row, rejected))


def _same_prompt(row: Row, chosen: tuple[str, str], rejected: tuple[str, str]) -> Record:
    if chosen[0] != rejected[0]:
        raise BadRow(
            f"fields {row.name('chosen')!r} and {row.name('rejected')!r} differ before the last turn of the assistant."
        )
    return Record(chosen[0], (chosen[1], rejected[1]), **_probability(row))


def _written(row: Row, turns: list[Turn]) -> tuple[str, str]:
    """Prompt and response of turns that end with the assistant's, as the chat template or HH writes them."""
    if row.chat is not None:
        prompt, response = row.chat.split(turns)
        return Rendered(prompt), Rendered(response)
    return _opened(row, turns[:-1]), f" {turns[-1][1]}"


def _opened(row: Row, turns: list[Turn]) -> str:
    """Turns, and the beginning of an answer."""
    if row.chat is not None:
        return Rendered(row.chat.render(turns, add_generation_prompt=True))
    return "".join(f"{TURNS[role]} {content}" for role, content in turns) + ASSISTANT


def _answered(row: Row, field: str) -> list[Turn]:
    """Messages that end with one of the assistant, which is not empty."""
    turns = row.messages(field)
    role, content = turns[-1]
    if role != "assistant":
        raise BadRow(f"field {row.name(field)!r} must end with a message of the assistant, found role {role!r}.")
    if not content:
        raise BadRow(
            f"field {row.name(field)!r} ends with an empty message; set data.on_bad_row='skip' to drop the row."
        )
    return turns


def _completed(row: Row) -> tuple[str, str]:
    """``prompt`` and ``completion``, both lists of messages."""
    if len(completion := _answered(row, "completion")) > 1:
        raise BadRow(f"field {row.name('completion')!r} must hold one message, found {len(completion)}.")
    return _written(row, [*row.messages("prompt"), *completion])


def _lists(row: Row) -> Record:
    return _ranked(row.text("prompt", empty=True), row.texts("responses"), row)


def _lists_ids(row: Row) -> Record:
    return _ranked(row.ids("prompt_ids", empty=True), row.id_lists("responses_ids"), row)


def _ranked(prompt: Text, responses: tuple, row: Row) -> Record:
    if not responses:
        raise BadRow("the row holds no response; set data.on_bad_row='skip' to drop it.")
    if "scores" not in row:
        return Record(prompt, responses)
    return Record(prompt, responses, row.numbers("scores", len(responses)))


def _label(row: Row) -> float:
    value = row.get("label")
    if value not in (0, 1) or not isinstance(value, bool | int | float):
        raise BadRow(f"field {row.name('label')!r} must be true, false, 1 or 0, found {kind_of(value)}.")
    return float(value)


def _unpaired(row: Row) -> Record:
    return Record(row.text("prompt", empty=True), (row.text("completion"),), label=_label(row))


def _unpaired_ids(row: Row) -> Record:
    return Record(row.ids("prompt_ids", empty=True), (row.ids("completion_ids"),), label=_label(row))


def _messages(row: Row) -> Record:
    prompt, response = _written(row, _answered(row, "messages"))
    return Record(prompt, (response,))


def _completion_messages(row: Row) -> Record:
    prompt, response = _completed(row)
    return Record(prompt, (response,))


def _unpaired_messages(row: Row) -> Record:
    prompt, response = _completed(row)
    return Record(prompt, (response,), label=_label(row))


class Format(NamedTuple):
    """How rows of a format are read. ``accepts`` settles between formats with the same fields."""

    kind: str
    fields: tuple[str, ...]
    parse: Callable[[Row], Record]
    accepts: Callable[[Row], bool] = lambda row: True
    optional: tuple[str, ...] = ()


def _has_lists(row: Row) -> bool:
    return isinstance(row.get("chosen"), list)


def _asks_in_messages(row: Row) -> bool:
    return isinstance(row.get("prompt"), list)


FORMATS: dict[str, Format] = {  # `auto` takes the first one that fits: the richer formats stand first
    "pairs_ids": Format(
        "pairs", ("prompt_ids", "chosen_ids", "rejected_ids"), _pairs_ids, optional=("preference_prob",)
    ),
    "lists_ids": Format("lists", ("prompt_ids", "responses_ids"), _lists_ids, optional=("scores",)),
    "unpaired_ids": Format("unpaired", ("prompt_ids", "completion_ids", "label"), _unpaired_ids),
    "sft_ids": Format(
        "sft",
        ("prompt_ids", "response_ids"),
        lambda row: Record(row.ids("prompt_ids", empty=True), (row.ids("response_ids"),)),
    ),
    "conversation": Format("pairs", ("chosen", "rejected"), _conversation, _has_lists, ("prompt", "preference_prob")),
    "pairs": Format("pairs", ("prompt", "chosen", "rejected"), _pairs, optional=("preference_prob", "rationale")),
    "hh": Format("pairs", ("chosen", "rejected"), _hh, lambda row: "prompt" not in row, ("preference_prob",)),
    "lists": Format("lists", ("prompt", "responses"), _lists, optional=("scores",)),
    "unpaired_messages": Format("unpaired", ("prompt", "completion", "label"), _unpaired_messages, _asks_in_messages),
    "unpaired": Format("unpaired", ("prompt", "completion", "label"), _unpaired),
    "sft": Format(
        "sft", ("prompt", "response"), lambda row: Record(row.text("prompt", empty=True), (row.text("response"),))
    ),
    "messages": Format("sft", ("messages",), _messages),
    "completion_messages": Format("sft", ("prompt", "completion"), _completion_messages, _asks_in_messages),
    "text": Format("sft", ("text",), lambda row: Record("", (row.text("text"),))),
    "prompt_messages": Format(
        "prompts", ("prompt",), lambda row: Record(_opened(row, row.messages("prompt"))), _asks_in_messages
    ),
    "prompts": Format("prompts", ("prompt",), lambda row: Record(row.text("prompt"))),
    "prompts_ids": Format("prompts", ("prompt_ids",), lambda row: Record(row.ids("prompt_ids"))),
}

CONVERSATIONS = ("conversation", "unpaired_messages", "messages", "completion_messages", "prompt_messages")
"""Formats of messages: a chat template writes them out."""

SERVED_BY = {  # which kinds of data can be read as which
    "pairs": ("pairs",),
    "lists": ("pairs", "lists"),
    "unpaired": ("pairs", "unpaired"),
    "sft": ("pairs", "lists", "sft"),
    "prompts": ("pairs", "lists", "unpaired", "sft", "prompts"),
}


class Parser(NamedTuple):
    """A format bound to one file: names of the fields, optional fields that every row has, bounds.

    ``arrays``: array of the vocabulary -> field that holds it. ``chat``: writes conversations out; ``rendered``: it has
    done so in what is read here.
    """

    format: str
    fields: Mapping[str, str] = {}
    optional: tuple[str, ...] = ()
    vocab_size: int | None = None
    max_candidates: int | None = None
    arrays: Mapping[str, str] = {}
    chat: ChatTemplate | None = None
    rendered: bool = False

    @property
    def by_template(self) -> bool:
        """Whether a chat template writes the rows out."""
        return self.chat is not None and self.format in CONVERSATIONS

    @property
    def kind(self) -> str:
        """The kind of data that the format holds."""
        return FORMATS[self.format].kind

    def __call__(self, values: Any) -> Record:
        """Returns the record of a row, or raises ``BadRow``."""
        row = Row(values, self.fields, self.vocab_size, self.chat)
        for field in FORMATS[self.format].optional:
            if field in row and field not in self.optional:
                raise BadRow(f"field {row.name(field)!r} is here but not in the first row: give it to all or to none.")
        for field in self.optional:
            row.get(field)
        record = FORMATS[self.format].parse(row)
        if self.rendered:
            record = record._replace(
                prompt=Rendered(record.prompt), responses=tuple(Rendered(text) for text in record.responses)
            )
        count = len(record.responses)
        found = {name: row.array(field, axes_of(name), count).tolist() for name, field in self.arrays.items()}
        record = record._replace(arrays=found)
        if record.scores is not None:  # best first (ties keep their order): the first candidate is the chosen one
            scores = record.scores
            record = record.reordered(sorted(range(count), key=lambda i: -scores[i]))
        if self.max_candidates is not None and len(record.responses) > self.max_candidates:
            raise BadRow(
                f"{len(record.responses)} responses, but data.max_candidates={self.max_candidates}: raise it, or set "
                "data.on_bad_row='skip'."
            )
        return record


def bind(parser: Parser, values: Any, kind: str) -> Parser:
    """Fits ``parser`` to the first row of a file: settles ``format='auto'`` and which optional fields there are.

    Raises:
        BadRow: the row has no format that can serve ``kind``, with the nearest format and its missing field.
    """
    row = Row(values, parser.fields, parser.vocab_size)
    name = parser.format
    if name == "auto":
        fitting = {name: form for name, form in FORMATS.items() if form.kind in SERVED_BY[kind]}
        found = (n for n, f in fitting.items() if all(field in row for field in f.fields) and f.accepts(row))
        name = next(found, None) or _no_format(row, fitting, kind)
    return parser._replace(format=name, optional=tuple(f for f in FORMATS[name].optional if f in row))


def _no_format(row: Row, formats: dict[str, Format], kind: str) -> str:
    def fit(name: str) -> float:
        fields = formats[name].fields
        close = [1.0 if field in row else 0.5 * bool(close_matches(row.name(field), row.values)) for field in fields]
        return sum(close) / len(close) + 0.01 * sum(close)  # of two that fit alike, the richer one

    nearest = max(formats, key=fit)
    absent = [field for field in formats[nearest].fields if field not in row]
    why = missing(row, absent[0]) if absent else f"it does not fit format {nearest!r}."
    raise BadRow(f"no format for {kind!r} fits; nearest is {nearest!r} with fields {formats[nearest].fields}: {why}")


def check_format(name: str, kind: str) -> None:
    """Raises ``UserError`` for an unknown format, or one that cannot be read as ``kind``."""
    if name not in (*FORMATS, "auto"):
        raise UserError(
            f"unknown data.format {name!r}; formats are {['auto', *FORMATS]}.{close_matches(name, FORMATS)}"
        )
    if kind not in SERVED_BY:
        raise UserError(f"unknown kind of data {kind!r}; kinds are {list(SERVED_BY)}.{close_matches(kind, SERVED_BY)}")
    if name != "auto" and FORMATS[name].kind not in SERVED_BY[kind]:
        able = [n for n, f in FORMATS.items() if f.kind in SERVED_BY[kind]]
        raise UserError(f"data.format {name!r} cannot be read as {kind!r}; formats that can: {able}.")
