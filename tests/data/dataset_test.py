"""Batches are a pure function of data, seed and step; parts, copies and resumed iterators agree to the bit."""

import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlx.data import dataset
from rlx.data.dataset import Plan
from rlx.data.pipeline import load
from rlx.data.tokenizers import IdTokenizer
from rlx.errors import UserError
from tests.data.examples import LISTS, PAIRS, TOKENIZER, assert_same, memory, take, text


def test_a_batch_has_the_shapes_of_the_contract():
    train, _, report = memory(kind="pairs")
    batch = next(train.batches(4, seed=0, mismatched=True))
    shapes = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    rows = dict.fromkeys(("valid", "where", "kl_valid", "kl_where"), ((4, 2, 14), "bool"))
    assert shapes == rows | {
        "tokens": ((4, 2, 14), "int32"),
        "kl_tokens": ((4, 2, 14), "int32"),
        "candidate_where": ((4, 2), "bool"),
        "index": ((4,), "int32"),
    }
    assert report._asdict() | {"fingerprint": ""} == {
        "format": "pairs", "kind": "pairs", "rows": 11, "skipped": 0, "reasons": [], "train": 11, "eval": 0,
        "flipped": 0, "fingerprint": "",
    }  # fmt: skip
    for i, row in enumerate(batch["index"]):
        assert [text(batch, i, k) for k in range(2)] == [f"yes {row}", f"no {row}"]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**70), st.integers(0, 5))
def test_every_epoch_is_another_permutation(size, batch_size, seed, epoch):
    batch_size = min(size, batch_size)
    plan, steps = Plan(size, batch_size, seed), size // batch_size
    rows = np.concatenate([plan[epoch * steps + i] for i in range(steps)])
    assert len(set(rows.tolist())) == steps * batch_size <= size
    assert set(rows.tolist()) <= set(range(size))
    if size > 20 and steps * batch_size > 20:
        assert rows.tolist() != np.concatenate([plan[(epoch + 1) * steps + i] for i in range(steps)]).tolist()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_resume_at_every_batch_of_two_epochs(prefetch):
    train, _, _ = memory()
    steps = len(train) // 3
    arguments = {"seed": 5, "mismatched": True, "prefetch": prefetch}
    whole = take(train.batches(3, **arguments), 2 * steps + 2)
    for place in range(2 * steps + 1):
        iterator = train.batches(3, **arguments)
        take(iterator, place)
        state = json.loads(json.dumps(iterator.get_state()))
        resumed = memory()[0].batches(3, state=state, **arguments)
        for expected, found in zip(whole[place:], resumed, strict=False):
            assert_same(expected, found)


def test_an_iterator_can_go_back():
    iterator = memory()[0].batches(4, seed=0)
    start = iterator.get_state()
    first = take(iterator, 3)
    iterator.set_state(start)
    for expected, found in zip(first, take(iterator, 3), strict=True):
        assert_same(expected, found)


@pytest.mark.parametrize("change", ["seed", "batch_size", "data"])
def test_a_state_of_another_order_is_refused(change):
    state = memory()[0].batches(4, seed=0).get_state()
    train, _, _ = memory(PAIRS[:10]) if change == "data" else memory()
    with pytest.raises(UserError, match=f"cannot resume: {'fingerprint' if change == 'data' else change} was"):
        train.batches(2 if change == "batch_size" else 4, seed=int(change == "seed"), state=state)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_global_batch(seed, count):
    train, _, _ = memory()
    steps = 3 if seed is None else 5
    whole = take(train.batches(4, seed=seed, mismatched=True), steps)
    parts = [
        take(train.batches(4, seed=seed, mismatched=True, process_index=i, process_count=count), steps)
        for i in range(count)
    ]
    for step, expected in enumerate(whole):
        joined = {key: np.concatenate([part[step][key] for part in parts]) for key in expected}
        assert_same(expected, joined)


def test_evaluation_goes_once_through_all_examples_in_order():
    train, _, _ = memory()
    batches = list(train.batches(4))
    index = np.concatenate([batch["index"] for batch in batches])
    assert index.tolist() == [*range(11), 11]
    last = batches[-1]
    assert last["candidate_where"].tolist() == [[True, True]] * 3 + [[False, False]]
    assert not last["where"][-1].any()
    assert last["valid"][-1].any(-1).all()


def test_mismatched_rows_go_round_the_real_examples():
    train, _, _ = memory(PAIRS[:7])
    for batch in train.batches(4, mismatched=True):
        real = int(batch["candidate_where"].all(-1).sum())
        for i in range(4):
            for k in range(2):
                following = text(batch, (i + 1) % real, k) if i < real else ""
                assert TOKENIZER.decode(batch["kl_tokens"][i, k][batch["kl_where"][i, k]]) == following
                assert batch["kl_valid"][i, k].any()
                np.testing.assert_array_equal(batch["kl_tokens"][i, k, :8], batch["tokens"][i, k, :8])
        assert not (batch["kl_where"] & ~batch["kl_valid"]).any()
    alone = list(memory(PAIRS[:5])[0].batches(4, mismatched=True))[-1]
    assert not alone["kl_where"].any(), "one example has no other"


def test_sizes_that_do_not_fit_are_named():
    train, _, _ = memory()
    with pytest.raises(UserError, match="batch_size=12 is larger than the 11 training examples"):
        train.batches(12, seed=0)
    with pytest.raises(UserError, match="batch_size=5 must be a positive multiple of the 2 processes"):
        train.batches(5, process_count=2)
    with pytest.raises(UserError, match="batch_size=1 leaves no other example"):
        train.batches(1, mismatched=True)
    assert list(memory()[1].batches(4)) == [], "no held-out part, no batches"


def test_what_is_kept_in_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(dataset, "CACHED_TOKENS", 40)
    bounded, free = memory()[0], None
    first = list(bounded.batches(4))
    assert 0 < len(bounded._cache) < len(bounded)
    monkeypatch.undo()
    free = memory()[0]
    for one, two, three in zip(first, bounded.batches(4), free.batches(4), strict=True):
        assert_same(one, two)
        assert_same(one, three)


def test_threads_end_with_their_iterators():
    train, _, _ = memory()
    before = threading.active_count()
    for _ in range(3):
        list(train.batches(4))
    deadline = time.monotonic() + 20
    while threading.active_count() > before + 1 and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread that was told to stop needs a moment on a busy machine
    assert threading.active_count() <= before + 1


@settings(max_examples=20)
@given(st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=5), st.integers(1, 12), st.integers(1, 12))
def test_the_scored_tokens_are_the_response(texts, prompt_length, response_length):
    rows = [{"prompt": one, "chosen": one, "rejected": two} for one, two in zip(texts, texts[1:], strict=False)]
    train, _, _ = memory(rows, max_prompt_length=prompt_length, max_response_length=response_length)
    for batch in train.batches(2, prefetch=0):
        assert not (batch["where"] & ~batch["valid"]).any()
        assert (batch["where"].any(-1) == batch["candidate_where"]).all()
        for i, row in enumerate(batch["index"]):
            for k, field in enumerate(("chosen", "rejected") if row < len(rows) else ()):
                response = rows[row][field].encode()
                found = [t for t in batch["tokens"][i, k][batch["where"][i, k]] if t != TOKENIZER.eos_id]
                assert bytes(found) == response[:response_length]


def test_lists_are_ragged_and_best_first():
    train, _, _ = memory(LISTS, kind="lists")
    batch = next(train.batches(3))
    assert batch["tokens"].shape == (3, 3, 14)
    assert batch["candidate_where"].tolist() == [[True, False, False], [True, True, False], [True] * 3]
    assert batch["scores"].tolist() == [[1, 0, 0], [2, 1, 0], [3, 2, 1]]
    assert [text(batch, 2, k) for k in range(3)] == ["c", "b", "a"]
    assert memory(LISTS, kind="lists", max_candidates=5)[0].lengths.candidates == 5
    with pytest.raises(UserError, match=r"data.records\[2\]: 3 responses, but data.max_candidates=2"):
        memory(LISTS, kind="lists", max_candidates=2)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_mistake_in_a_text_comes_out_of_the_thread(prefetch):
    config = {"source": "memory", "records": PAIRS, "max_prompt_length": 8, "max_response_length": 6}
    train, _, _ = load(config, IdTokenizer(9))
    with pytest.raises(UserError, match="tokenizer 'ids' reads numbers with spaces between them, found 'prompt 0'"):
        next(train.batches(2, prefetch=prefetch))
