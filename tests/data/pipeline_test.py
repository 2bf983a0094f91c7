"""Configs become datasets: kinds, splits, flips, caches, fingerprints, and every mistake is named."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from rlx.data.pipeline import load, split
from rlx.data.rows import ASSISTANT
from rlx.data.tokenizers import ByteTokenizer
from rlx.errors import UserError
from tests.data.examples import LISTS, PAIRS, TOKENIZER, assert_same, memory, take, text


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
