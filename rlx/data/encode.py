"""Texts become rows of tokens: the rules for BOS, EOS and truncation, and which tokens are scored.

* The prompt starts with BOS. What is too long loses its beginning (after BOS): the end of a prompt is what is answered.
* The response ends with EOS. What is too long loses its end, and then has no EOS: a model must not learn to stop there.
* What a chat template has written (``formats.Rendered``) has the BOS that the template wrote, or none. It is tokenised
  as a whole, unless prompt and response then share a token. Its response ends with the EOS in it; if there is none, or
  more than whitespace follows it, EOS is added.
* Anything else: prompt and response are tokenised apart.
* Exactly the tokens of the response are scored, its EOS included; there is always at least one. Prompts stand on the
  right of their columns, responses on the left of theirs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.data.formats import Record, Rendered, Text, axes_of
from rlx.data.tokenizers import Tokenizer, end_ids
from rlx.errors import UserError


class Lengths(NamedTuple):
    """The static shape of a row: ``prompt`` + ``response`` columns for each of ``candidates``."""

    prompt: int
    response: int
    candidates: int


class Encoded(NamedTuple):
    """Token ids of one record, cut to the lengths."""

    prompt: np.ndarray
    responses: tuple[np.ndarray, ...]
    record: Record
    rationale: "Encoded | None" = None


def encode_prompt(text: Text, tokenizer: Tokenizer, length: int) -> np.ndarray:
    """Returns BOS and the last ``length - 1`` tokens of the prompt.

    >>> from rlx.data.tokenizers import ByteTokenizer
    >>> encode_prompt("abc", ByteTokenizer(), 3).tolist() == [257, *b"bc"]
    True
    """
    ids = tokenizer.encode(text) if isinstance(text, str) else list(text)
    begins = bool(ids) and ids[0] == tokenizer.bos_id
    if isinstance(text, Rendered) and ids and not begins:
        return np.array(ids[-length:], np.int32)
    ids = ids[1:] if begins else ids
    kept = ids[max(0, len(ids) - (length - 1)) :]
    return np.array([tokenizer.bos_id, *kept], np.int32)


def encode_response(text: Text, tokenizer: Tokenizer, length: int) -> np.ndarray:
    """Returns the response with EOS if that fits, else its first ``length`` tokens.

    >>> from rlx.data.tokenizers import ByteTokenizer
    >>> encode_response("abc", ByteTokenizer(), 4).tolist() == [*b"abc", 258]
    True
    >>> encode_response("abc", ByteTokenizer(), 3).tolist() == [*b"abc"]
    True
    """
    ids = tokenizer.encode(text) if isinstance(text, str) else list(text)
    if isinstance(text, str) or not ids or ids[-1] != tokenizer.eos_id:
        ids = [*ids, tokenizer.eos_id]
    return np.array(ids[:length], np.int32)


def _rendered_response(prompt: Text, response: Rendered, tokenizer: Tokenizer, length: int) -> np.ndarray:
    """What the whole has more than the prompt; the response alone where the tokens of the whole begin otherwise."""
    before, whole = tokenizer.encode(str(prompt)), tokenizer.encode(f"{prompt}{response}")
    ids = whole[len(before) :] if whole[: len(before)] == before else tokenizer.encode(response)
    ends = end_ids(tokenizer)
    last = max((i for i, token in enumerate(ids) if token in ends), default=-1)
    closed = last >= 0 and not tokenizer.decode(ids[last + 1 :]).strip()
    ids = ids[: last + 1] if closed else [*ids, tokenizer.eos_id]
    return np.array(ids[:length], np.int32)


def encode(record: Record, tokenizer: Tokenizer, lengths: Lengths) -> Encoded:
    """Returns the token ids of a record."""
    prompt = encode_prompt(record.prompt, tokenizer, lengths.prompt)
    responses = tuple(
        _rendered_response(record.prompt, text, tokenizer, lengths.response)
        if isinstance(text, Rendered)
        else encode_response(text, tokenizer, lengths.response)
        for text in record.responses
    )
    reason = None
    if record.rationale is not None:  # read after the prompt and both responses
        shown = "\n".join(map(str, (record.prompt, *record.responses, "")))
        reason = encode(Record(shown, (record.rationale,)), tokenizer, lengths)
    return Encoded(prompt, responses if lengths.response else (), record, reason)


def collate(rows: Sequence[Encoded | None], index: np.ndarray, tokenizer: Tokenizer, lengths: Lengths) -> dict:
    """Returns the batch of encoded rows, and what each knows of its candidates.

    A row that is ``None`` fills up the last batch of an evaluation: it holds BOS alone, and no candidate of it is real.
    Candidates that a ragged list lacks hold the prompt, so that every row has a token to attend to.
    """
    shape = (len(rows), lengths.candidates, lengths.prompt + lengths.response)
    tokens = np.full(shape, tokenizer.pad_id, np.int32)
    valid, where = np.zeros(shape, bool), np.zeros(shape, bool)
    candidate_where = np.zeros(shape[:2], bool)
    blank = np.array([tokenizer.bos_id], np.int32)
    for i, row in enumerate(rows):
        prompt = blank if row is None else row.prompt
        tokens[i, :, lengths.prompt - len(prompt) : lengths.prompt] = prompt
        valid[i, :, lengths.prompt - len(prompt) : lengths.prompt] = True
        for k, response in enumerate(() if row is None else row.responses):
            tokens[i, k, lengths.prompt : lengths.prompt + len(response)] = response
            where[i, k, lengths.prompt : lengths.prompt + len(response)] = True
        if row is not None:
            candidate_where[i, : max(1, len(row.responses))] = True
    batch = {"tokens": tokens, "valid": valid | where, "where": where, "candidate_where": candidate_where}
    if any(row is not None and row.rationale is not None for row in rows):
        batch |= _rationales(rows, index, tokenizer, lengths)
    return batch | {"index": index.astype(np.int32)} | _known([row.record if row else None for row in rows], lengths)


def _rationales(rows: Sequence[Encoded | None], index: np.ndarray, tokenizer: Tokenizer, lengths: Lengths) -> dict:
    """``rationale_tokens, rationale_valid, rationale_where [B, 1, T]``: the reason, after the prompt and the pair."""
    reasons = [None if row is None else row.rationale for row in rows]
    found = collate(reasons, index, tokenizer, lengths._replace(candidates=1))
    return {f"rationale_{name}": found[name] for name in ("tokens", "valid", "where")}


def _known(records: list[Record | None], lengths: Lengths) -> dict:
    """Labels, scores and preference probabilities, where the data has them (the rows of a file agree on that)."""
    first = next((record for record in records if record is not None), Record())
    known = {}
    if first.label is not None:
        known["labels"] = np.array([[r.label if r else 0.0] for r in records], np.float32)
    if first.scores is not None:
        known["scores"] = np.zeros((len(records), lengths.candidates), np.float32)
        for row, record in zip(known["scores"], records, strict=True):
            scores = (record and record.scores) or ()
            row[: len(scores)] = scores
    if first.preference_prob is not None:
        known["preference_probs"] = np.array([r.preference_prob if r else 0.5 for r in records], np.float32)
    for name in first.arrays:
        stacked = _stack(name, [r.arrays[name] if r else None for r in records], lengths)
        known[name] = stacked.astype(np.int32) if name.endswith("_ids") else stacked
    return known


def _stack(name: str, values: list[Any], lengths: Lengths) -> np.ndarray:
    """Rows of an array of the vocabulary: candidates that a list lacks, and rows that only fill up, hold 0."""
    first = np.shape(next(value for value in values if value is not None))
    shape = [lengths.candidates if axis == "K" else size for axis, size in zip(axes_of(name), first, strict=True)]
    stacked = np.zeros((len(values), *shape), np.float32)
    for i, value in enumerate(values):
        if value is not None:
            found = np.asarray(value, np.float32)
            if any(a != b for a, b, axis in zip(found.shape, shape, axes_of(name), strict=True) if axis != "K"):
                raise UserError(f"data.arrays: {name!r} has the shape {found.shape} in one row, {first} in another.")
            stacked[(i, *(slice(size) for size in found.shape))] = found
    return stacked


def mismatch(batch: dict, following: dict, own: np.ndarray, prompt_length: int) -> dict:
    """Returns ``kl_tokens, kl_valid, kl_where``: each prompt of ``batch`` with the responses of ``following``.

    Args:
        batch: ``[B, K, T]`` arrays as ``collate`` gives them.
        following: the same for the example that comes next after each.
        own: ``[B]`` true where that is the example itself or no example: nothing is scored there.
        prompt_length: columns of the prompt.
    """
    return {
        "kl_tokens": np.concatenate(
            [batch["tokens"][..., :prompt_length], following["tokens"][..., prompt_length:]], axis=-1
        ),
        "kl_valid": np.concatenate(
            [batch["valid"][..., :prompt_length], following["valid"][..., prompt_length:]], axis=-1
        ),
        "kl_where": following["where"] & ~own[:, None, None],
    }
