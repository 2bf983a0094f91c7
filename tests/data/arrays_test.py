"""``data.arrays``: further arrays of the vocabulary travel from the rows of a file to the batch."""

import json

import numpy as np
import pytest

from rlx.data import pipeline, tokenizers
from rlx.errors import UserError

ROWS = [
    {"prompt": "a", "responses": ["x", "yy", "z"], "scores": [0.0, 2.0, 1.0], "right": [0, 1, 0], "sure": 0.7},
    {"prompt": "b", "responses": ["u", "v"], "scores": [3.0, 1.0], "right": [1, 0], "sure": 0.1},
]
ARRAYS = {"correct": "right", "preference_probs": "sure"}
LENGTHS = {"max_prompt_length": 4, "max_response_length": 4}


def load(rows=None, kind="lists", **config):
    source = {"source": "memory", "records": rows} if rows is not None else {}
    train, *_ = pipeline.load({**LENGTHS, **source, **config}, tokenizers.build({"name": "byte"}), kind=kind)
    return train


def batch(dataset):
    return next(dataset.batches(len(dataset) + 1))


def check(found):
    """Sorted with the responses, best first; 0 for absent candidates and the row that fills the batch up."""
    np.testing.assert_array_equal(found["correct"], [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(found["preference_probs"], np.float32([0.7, 0.1, 0.0]))
    np.testing.assert_array_equal(found["candidate_where"], [[1, 1, 1], [1, 1, 0], [0, 0, 0]])


def test_from_memory():
    check(batch(load(ROWS, arrays=ARRAYS)))


def test_from_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    first = load(path=str(path), cache_dir=str(tmp_path / "cache"), arrays=ARRAYS)
    check(batch(first))
    plain = load(path=str(path), cache_dir=str(tmp_path / "cache"))
    assert plain.fingerprint != first.fingerprint and "correct" not in batch(plain)


def test_flipped_pairs_take_their_arrays_along():
    rows = [{"prompt": "a", "chosen": "x", "rejected": "y", "right": [1, 0]}] * 40
    dataset = load(rows, kind="pairs", arrays={"correct": "right"}, flip_rate=0.5)
    found = batch(dataset)["correct"][:-1]
    np.testing.assert_array_equal(found[:, 1], dataset.flipped)
    assert 0 < dataset.flipped.sum() < 40


@pytest.mark.parametrize(
    ("rows", "arrays", "message"),
    [
        (ROWS, {"corect": "right"}, r"data.arrays: 'corect' is no array that a row can hold. Did you mean 'correct'"),
        (ROWS, {"logprobs": "right"}, "'logprobs' is no array that a row can hold"),
        (ROWS, {"correct": "rihgt"}, r"data.records\[0\]: no field 'rihgt'.* Did you mean 'right'"),
        (ROWS, {"correct": "sure"}, "field 'sure' must hold 3 numbers, one per response, found float 0.7"),
        (ROWS, {"preference_probs": "right"}, "field 'right' must hold a finite number, found list"),
        ([ROWS[0] | {"sure": "x"}], {"preference_probs": "sure"}, "must hold a finite number, found str 'x'"),
        ([ROWS[0] | {"right": [0, 1, float("nan")]}], {"correct": "right"}, "must hold 3 numbers"),
    ],
)
def test_what_does_not_fit_is_named(rows, arrays, message):
    with pytest.raises(UserError, match=message):
        batch(load(rows, arrays=arrays))
