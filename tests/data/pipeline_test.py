"""Batches are a pure function of data, seed and step; parts, copies and resumed iterators agree to the bit."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from rlx.data import dataset
from rlx.data.dataset import Plan
from rlx.data.pipeline import load, split
from rlx.data.rows import ASSISTANT
from rlx.data.tokenizers import ByteTokenizer
from rlx.errors import UserError

TOKENIZER = ByteTokenizer()
PAIRS = [{"prompt": f"prompt {i}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(11)]
LISTS = [{"prompt": "p", "responses": ["a", "b", "c"][: 1 + i % 3], "scores": [1, 2, 3][: 1 + i % 3]} for i in range(5)]


def memory(records=PAIRS, *, kind="pairs", seed=0, **changes):
    config = {"source": "memory", "records": records, "max_prompt_length": 8, "max_response_length": 6, **changes}
    return load(config, TOKENIZER, kind=kind, seed=seed)


def text(batch, i, k, key="where"):
    return TOKENIZER.decode(batch["tokens"][i, k][batch[key][i, k]])


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype
        np.testing.assert_array_equal(one[key], other[key])


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


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


def test_one_file_serves_several_kinds():
    for records, best in ((PAIRS, "yes 2"), (LISTS, "c")):
        batch = next(memory(records, kind="sft")[0].batches(3))
        assert batch["tokens"].shape == (3, 1, 14)
        assert text(batch, 2, 0) == best
    lists = next(memory(PAIRS, kind="lists")[0].batches(3))
    assert_same(lists, next(memory(PAIRS, kind="pairs")[0].batches(3)))
    prompts = next(memory(PAIRS, kind="prompts", max_prompt_length=20)[0].batches(3))
    assert prompts["tokens"].shape == (3, 1, 20)
    assert text(prompts, 2, 0, "valid") == "prompt 2"


def test_unpaired_rows_of_pairs():
    for train, held_out, report in (
        memory(kind="unpaired", eval_fraction=0.2),
        memory(kind="pairs", unpaired=True, eval_fraction=0.2),
    ):
        assert (report.kind, len(train), len(held_out), report.rows) == ("unpaired", 18, 4, 11)
        batch = next(train.batches(18))
        assert batch["labels"].ravel().tolist() == [1, 0] * 9
        for i in range(18):
            row = train.rows[i // 2]
            assert text(batch, i, 0) == (f"yes {row}" if i % 2 == 0 else f"no {row}")
        shown = {train.record(i).prompt for i in range(18)}
        assert not shown & {held_out.record(i).prompt for i in range(4)}, "the views of a pair stay together"


def test_unpaired_rows_of_an_unpaired_file():
    rows = [{"prompt": "p", "completion": str(i), "label": i % 2} for i in range(4)]
    batch = next(memory(rows, kind="unpaired")[0].batches(4))
    assert batch["labels"].tolist() == [[0], [1], [0], [1]]


def test_flips_exchange_the_responses_of_training_pairs_alone():
    rows = [{"prompt": "p", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(400)]
    train, held_out, report = memory(rows, flip_rate=0.3, eval_fraction=0.25)
    batch = next(train.batches(300))
    found = np.array([text(batch, i, 0).startswith("r") for i in range(300)])
    np.testing.assert_array_equal(found, train.flipped)
    assert report.flipped == found.sum()
    assert abs(found.mean() - 0.3) < 0.1
    clean = next(held_out.batches(100))
    assert all(text(clean, i, 0).startswith("c") for i in range(100))
    assert [int(row) for row in train.rows[found]] == [
        int(row) for row in memory(rows, flip_rate=0.3, eval_fraction=0.25)[0].rows[found]
    ]
    np.testing.assert_array_equal(
        memory(rows[:50], flip_rate=0.3)[0].flipped, memory(rows, flip_rate=0.3)[0].flipped[:50]
    )
    assert (memory(rows, flip_rate=0.3, seed=1)[0].flipped != memory(rows, flip_rate=0.3)[0].flipped).any()
    assert not memory(rows, kind="sft", flip_rate=0.3)[0].flipped.any()
    labels = next(memory(rows, kind="unpaired", flip_rate=0.3)[0].batches(800))["labels"]
    assert labels.ravel().tolist() == [1, 0] * 400
    with pytest.raises(UserError, match="data.flip_rate exchanges the responses of pairs; format 'lists' has none"):
        memory(LISTS, kind="lists", flip_rate=0.1)


def test_preference_probabilities_reach_the_batch():
    rows = [row | {"preference_prob": 0.5} for row in PAIRS]
    assert next(memory(rows)[0].batches(2))["preference_probs"].tolist() == [0.5, 0.5]


@given(st.integers(2, 60), st.floats(0, 0.9), st.integers(-3, 3))
def test_the_split_is_a_partition(size, fraction, seed):
    train, held_out = split(size, fraction, seed)
    assert sorted([*train, *held_out]) == list(range(size))
    assert len(train) >= 1
    assert (len(held_out) > 0) == (fraction > 0)
    np.testing.assert_array_equal(train, split(size, fraction, seed)[0])


def test_stages_on_one_file_hold_out_the_same_prompts():
    held = [{memory(PAIRS, kind=kind, eval_fraction=0.3)[1].record(0).prompt} for kind in ("pairs", "sft", "prompts")]
    assert held[0] == held[1] == held[2]


def test_the_fingerprint_follows_everything_that_decides_a_token():
    rows = [*PAIRS[:10], PAIRS[10] | {"rejected": "other"}]
    changes = [
        {}, {"max_prompt_length": 7}, {"max_response_length": 7}, {"limit": 10}, {"flip_rate": 0.5},
        {"eval_fraction": 0.2}, {"records": rows}, {"kind": "sft"}, {"kind": "unpaired"},
    ]  # fmt: skip
    prints = [memory(**change)[0].fingerprint for change in changes]
    assert len(set(prints)) == len(changes)
    assert memory()[0].fingerprint == prints[0] == memory()[2].fingerprint

    class Other(ByteTokenizer):
        fingerprint = "other"

    config = {"source": "memory", "records": PAIRS, "max_prompt_length": 8, "max_response_length": 6}
    assert load(config, Other())[0].fingerprint != prints[0]


def test_files_tfds_and_memory_give_the_same_batches(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in LISTS))
    sizes = {"max_prompt_length": 8, "max_response_length": 6}
    file, _, _ = load(ConfigDict({"path": str(path), **sizes}), TOKENIZER, kind="lists", workdir=tmp_path)
    folder = next((tmp_path / "data").glob("*/preference_lists/1.0.0"))
    stored, _, _ = load({"source": "tfds", "path": str(folder), **sizes}, TOKENIZER, kind="lists")
    kept, _, _ = memory(LISTS, kind="lists")
    for arguments in ({}, {"seed": 1}):
        for other in (stored, kept):
            for one, two in zip(
                take(file.batches(2, **arguments), 3), take(other.batches(2, **arguments), 3), strict=True
            ):
                assert_same(one, two)


def test_prepared_files_lie_where_they_were_asked_to(tmp_path, monkeypatch):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in PAIRS))
    sizes = {"path": str(path), "max_prompt_length": 8, "max_response_length": 6}
    monkeypatch.delenv("RLX_DATA_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    load(sizes, TOKENIZER)
    load(sizes, TOKENIZER, workdir=tmp_path / "work")
    monkeypatch.setenv("RLX_DATA_CACHE", str(tmp_path / "shared"))
    load(sizes, TOKENIZER, workdir=tmp_path / "work")
    load(sizes | {"cache_dir": str(tmp_path / "mine")}, TOKENIZER)
    for place in ("home/.cache/rlx/data", "work/data", "shared", "mine"):
        assert len(list((tmp_path / place).iterdir())) == 1, place


def test_a_held_out_file(tmp_path):
    for name, rows in (("train", PAIRS[:8]), ("test", PAIRS[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = {"path": str(tmp_path / "train.jsonl"), "eval_path": str(tmp_path / "test.jsonl")}
    config |= {"max_prompt_length": 8, "max_response_length": 6, "cache_dir": str(tmp_path / "cache")}
    train, held_out, report = load(config, TOKENIZER)
    assert (report.train, report.eval) == (8, 3) == (len(train), len(held_out))
    assert held_out.record(0).prompt == "prompt 8"
    with pytest.raises(UserError, match="data.eval_path goes with files alone, and with data.eval_fraction=0"):
        load(config | {"eval_fraction": 0.1}, TOKENIZER)


def test_token_ids_outside_of_the_vocabulary_are_named():
    rows = [{"prompt_ids": [1], "chosen_ids": [259], "rejected_ids": [3]}]
    with pytest.raises(UserError, match=r"data.records\[0\]: field 'chosen_ids' holds the token id 259.* of 259"):
        memory(rows)


MISTAKES = [
    ({"pth": "x"}, "unknown key data.pth; keys are .* Did you mean 'path'"),
    ({"format": "pair"}, "unknown data.format 'pair'.* Did you mean 'pairs'"),
    ({"source": "jsnl"}, "data.source must be one of .* Did you mean 'jsonl'"),
    ({"source": "jsonl"}, "data.path is missing"),
    ({"records": []}, "data.records is missing"),
    ({"on_bad_row": "skp"}, "data.on_bad_row must be one of .* Did you mean 'skip'"),
    ({"max_prompt_length": 0}, "data.max_prompt_length must be an integer of at least 1, found 0"),
    ({"max_response_length": None}, "data.max_response_length must be an integer"),
    ({"limit": 1.5}, "data.limit must be an integer"),
    ({"eval_fraction": 1}, "data.eval_fraction must be at least 0 and less than 1"),
    ({"flip_rate": -0.1}, "data.flip_rate must be"),
    ({"fields": {"chosn": "x"}}, "unknown field 'chosn' in data.fields.* Did you mean 'chosen'"),
    ({"kind": "sfd"}, "unknown kind of data 'sfd'.* Did you mean 'sft'"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[next(iter(changes)) for changes, _ in MISTAKES])
def test_a_mistake_in_the_config_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        memory(**{"records": PAIRS, **changes})


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


def dialogues(folder):
    """The HH-RLHF file, or a small one of the same kind."""
    turns = [f"\n\nHuman: question {i}{ASSISTANT} so?\n\nHuman: yes {i}{ASSISTANT}" for i in range(9)]
    rows = [{"chosen": f"{turn} é, answer {i}", "rejected": f"{turn} no"} for i, turn in enumerate(turns)]
    (folder / "dialogues.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder / "dialogues.jsonl", len(rows)


def problems(folder):
    """The GSM8K test file, or a small one of the same kind."""
    rows = [{"question": f"{i} + 1 = ?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(9)]
    (folder / "problems.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder / "problems.jsonl", len(rows)


def test_dialogues_share_their_prompt(data_dir, tmp_path):
    path, rows = dialogues(tmp_path)
    if data_dir is not None:
        path, rows = data_dir / "hh_rlhf" / "harmless_base_test_filtered.jsonl.gz", 541
    config = {"path": str(path), "max_prompt_length": 4000, "max_response_length": 4000, "cache_dir": str(tmp_path)}
    train, _, report = load(config, TOKENIZER)
    assert (report.format, report.rows, report.skipped) == ("hh", rows, 0)
    for i in range(len(train)):
        record = train.record(i)
        assert record.prompt.startswith("\n\nHuman:")
        assert record.prompt.endswith(ASSISTANT)
        assert not any("\n\nHuman:" in response or ASSISTANT in response for response in record.responses)
    batch = next(train.batches(4, seed=0))
    for i, row in enumerate(batch["index"]):
        record = train.record(int(row))
        assert tuple(text(batch, i, k) for k in range(2)) == record.responses
        prompt = batch["valid"][i, 0] & ~batch["where"][i, 0]
        assert TOKENIZER.decode(batch["tokens"][i, 0][prompt]) == record.prompt
    sft, _, _ = load(config, TOKENIZER, kind="sft")
    assert text(next(sft.batches(2)), 1, 0) == train.record(1).responses[0]


def test_problems_are_read_with_their_own_field_names(data_dir, tmp_path):
    path, rows = problems(tmp_path)
    if data_dir is not None:
        path, rows = data_dir / "gsm8k" / "test.jsonl.gz", 1319
    config = {"path": str(path), "max_prompt_length": 32, "max_response_length": 2000, "cache_dir": str(tmp_path)}
    config["fields"] = {"prompt": "question", "response": "answer"}
    train, _, report = load(config, TOKENIZER, kind="sft")
    assert (report.format, len(train)) == ("sft", rows)
    batch = next(train.batches(8))
    assert all("#### " in text(batch, i, 0) for i in range(8))
    with pytest.raises(UserError, match="jsonl.*:1: no format for 'sft' fits"):
        load(config | {"fields": {}}, TOKENIZER, kind="sft")
