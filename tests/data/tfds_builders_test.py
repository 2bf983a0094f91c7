"""Prepared files give the records of the file, never stale ones, and TensorFlow stays out."""

import json
import subprocess
import sys
import textwrap
import threading

import pytest
import tensorflow_datasets as tfds

from rlx.data import tfds_builders
from rlx.data.formats import Parser
from rlx.data.sources import Rows, jsonl_rows
from rlx.data.tfds_builders import open_tfds, prepare_jsonl
from rlx.errors import UserError

ROWS = {
    "pairs": [{"prompt": f"p{i}", "chosen": f"é{i}", "rejected": "r"} for i in range(12)],
    "soft": [{"prompt": "", "chosen": "c", "rejected": "r", "preference_prob": 0.1 * i} for i in range(3)],
    "lists": [{"prompt": "p", "responses": ["a", "b", "c"][: i + 1]} for i in range(3)],
    "scored": [{"prompt": "p", "responses": ["a", "b"], "scores": [0.1, i]} for i in range(3)],
    "unpaired": [{"prompt": "p", "completion": "c", "label": i % 2} for i in range(3)],
    "sft": [{"prompt": "p", "response": f"r{i}"} for i in range(3)],
    "text": [{"text": f"r{i}"} for i in range(3)],
    "prompts": [{"prompt": f"p{i}"} for i in range(3)],
    "pairs_ids": [{"prompt_ids": [], "chosen_ids": [i, 2], "rejected_ids": [3]} for i in range(3)],
    "lists_ids": [{"prompt_ids": [1], "responses_ids": [[i], [2, 3]], "scores": [0.1, 2]} for i in range(3)],
    "unpaired_ids": [{"prompt_ids": [1], "completion_ids": [i], "label": True} for i in range(3)],
    "sft_ids": [{"prompt_ids": [1], "response_ids": [i]} for i in range(3)],
    "prompts_ids": [{"prompt_ids": [i, 2]} for i in range(3)],
}
KINDS = {"soft": "pairs", "scored": "lists", "text": "sft"}


def kind_of(name):
    return KINDS.get(name, name.removesuffix("_ids"))


@pytest.fixture
def write(tmp_path):
    def make(rows, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path

    return make


@pytest.mark.parametrize("name", ROWS)
def test_the_prepared_file_gives_the_records_of_the_file(write, tmp_path, name):
    path, kind = write(ROWS[name]), kind_of(name)
    expected = list(Rows(jsonl_rows(path), Parser("auto"), kind, skip=False, limit=None, origin=""))
    for _ in range(2):  # prepared, then found
        source = prepare_jsonl(path, tmp_path / "cache", kind=kind)
        assert [source[i] for i in range(len(source))] == expected
        assert source.max_candidates == max(len(record.responses) for record in expected)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_prepared_file_is_a_plain_tfds_dataset(write, tmp_path):
    prepare_jsonl(write(ROWS["pairs"]), tmp_path / "cache")
    folder = next((tmp_path / "cache").glob("*/preference_pairs/1.0.0"))
    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
    assert builder.as_data_source(split="train")[3] == {"prompt": b"p3", "chosen": "é3".encode(), "rejected": b"r"}
    again = open_tfds(str(folder), Parser("auto"))
    by_name = open_tfds("preference_pairs", Parser("auto"), data_dir=folder.parent.parent, limit=2)
    assert again[3] == by_name[1]._replace(prompt="p3", responses=("é3", "r"))
    assert (len(again), len(by_name)) == (12, 2)
    assert again.content != by_name.content


def test_tensorflow_is_never_imported(write, tmp_path):
    program = f"""
        import sys
        from rlx.data import pipeline, tokenizers
        config = dict(path={str(write(ROWS["pairs"]))!r}, cache_dir={str(tmp_path / "cache")!r},
                      max_prompt_length=4, max_response_length=4)
        for _ in range(2):
            train, _, _ = pipeline.load(config, tokenizers.build())
            next(train.batches(2, seed=0))
        assert "tensorflow" not in sys.modules
        print(len(train))
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "12\n", "")


def test_a_changed_file_or_setting_is_prepared_anew(write, tmp_path):
    cache, rows = tmp_path / "cache", [*ROWS["pairs"]]
    one = prepare_jsonl(write(rows), cache)
    assert prepare_jsonl(write(rows, "copy.jsonl"), cache).content == one.content, "the name of the file is no matter"
    rows[5] = rows[5] | {"chosen": "other"}
    other = prepare_jsonl(write(rows), cache)
    assert other[5].responses[0] == "other"
    limited = prepare_jsonl(write(rows), cache, limit=6)
    skipping = prepare_jsonl(write(rows), cache, skip=True)
    renamed = prepare_jsonl(write(rows), cache, Parser("pairs", {"chosen": "rejected", "rejected": "chosen"}))
    assert renamed[5].responses == ("r", "other")
    assert len({source.content for source in (one, other, limited, skipping, renamed)}) == 5


def test_a_bad_row_is_named_and_leaves_nothing_behind(write, tmp_path):
    path = write([*ROWS["pairs"], {"prompt": "p", "chosn": "c", "rejected": "r"}])
    with pytest.raises(UserError, match="^.*data.jsonl:13: no field 'chosen' .* Did you mean 'chosn'"):
        prepare_jsonl(path, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    source = prepare_jsonl(path, tmp_path / "cache", skip=True)
    assert (len(source), source.skipped) == (12, 1)
    assert "data.jsonl:13: no field 'chosen'" in prepare_jsonl(path, tmp_path / "cache", skip=True).reasons[0]


def test_processes_that_prepare_at_once_agree(write, tmp_path, monkeypatch):
    path, cache = write(ROWS["pairs"]), tmp_path / "cache"
    rename, meeting = tfds_builders.os.rename, threading.Event()

    def late(source, target):  # another one prepares the same file and is faster
        if not meeting.is_set():
            meeting.set()
            prepare_jsonl(path, cache)
        rename(source, target)

    monkeypatch.setattr(tfds_builders.os, "rename", late)
    assert len(prepare_jsonl(path, cache)) == 12
    assert len(list(cache.iterdir())) == 1


def test_a_folder_that_cannot_be_used_is_named(write, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="data.cache_dir: cannot write to .*taken"):
        prepare_jsonl(write(ROWS["pairs"]), tmp_path / "taken")
    source = prepare_jsonl(write(ROWS["pairs"]), tmp_path / "cache")
    folder = tmp_path / "cache" / source.content[:32]
    for info in folder.glob("*/*/dataset_info.json"):
        info.unlink()
    with pytest.raises(UserError, match="is not a prepared dataset; delete it"):
        prepare_jsonl(write(ROWS["pairs"]), tmp_path / "cache")


def test_tfds_errors_are_clear(write, tmp_path):
    with pytest.raises(UserError, match="data.path: no TFDS dataset '.*nowhere'"):
        open_tfds(str(tmp_path / "nowhere"), Parser("auto"))
    prepare_jsonl(write(ROWS["sft"]), tmp_path / "cache", kind="sft")
    folder = str(next((tmp_path / "cache").glob("*/sft_text/1.0.0")))
    with pytest.raises(UserError, match="has no split 'tran'; splits are .* Did you mean 'train'"):
        open_tfds(folder, Parser("auto"), split="tran", kind="sft")
    with pytest.raises(UserError, match=r"sft_text/1.0.0\[train\]:0: no format for 'pairs' fits"):
        open_tfds(folder, Parser("auto"))
