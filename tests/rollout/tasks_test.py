"""Tasks: deterministic, split for good, true to their rules; files that are named when a row is wrong."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from rlx.errors import UserError
from rlx.rollout import tasks
from rlx.rollout.arithmetic import evaluate
from rlx.rollout.tasks import graphs, sentiment

GENERATORS = ("modadd", "countdown", "graphpath", "toysentiment", "calculator")


@pytest.mark.parametrize("name", GENERATORS)
def test_examples_follow_from_the_seed_and_splits_never_meet(name: str):
    first = tasks.make({"name": name}, seed=3, size=60)
    assert first == tasks.make({"name": name}, seed=3, size=60)
    assert first != tasks.make({"name": name}, seed=4, size=60)
    assert len({example.prompt for example in first}) == 60
    test = tasks.make({"name": name, "split": "test", "held_out": 0.3}, seed=3, size=60)
    train = tasks.make({"name": name, "held_out": 0.3}, seed=8, size=60)
    assert not {example.prompt for example in test} & {example.prompt for example in train}


def test_modadd_holds_every_prompt_once():
    train, test = (tasks.make({"name": "modadd", "split": split}) for split in ("train", "test"))
    assert len(train) + len(test) == 10_000
    assert 900 < len(test) < 1100
    assert {e.prompt: e.answer for e in train + test}["57+68="] == "25"
    assert len(tasks.modadd(0, held_out=0.0)) == 10_000


def test_countdown_and_calculator_have_right_answers():
    for example in tasks.countdown(0, 50):
        assert evaluate(example.answer) == example.info["target"]
        assert 1 <= example.info["target"] <= 50
        assert len(example.info["numbers"]) in (3, 4)
    for example in tasks.calculator(0, 50):
        assert evaluate(example.info["problem"]) == int(example.answer)


def test_graphs_have_no_cycles_and_paths_are_shortest():
    for example in tasks.graphpath(0, 40, shortest=3, longest=4):
        edges, info = example.info["edges"], example.info
        assert graphs.is_path(example.answer, edges, info["source"], info["target"])
        assert info["distance"] == len(example.answer) - 1
        assert 3 <= info["distance"] <= 4
        reached = {node: set(graphs.shortest_paths(edges, node)) for node in edges}
        assert all(node not in reached[after] for node in edges for after in edges[node])
        assert not graphs.is_path(info["source"] + info["target"], edges, info["source"], info["target"])


def test_toysentiment_speaks_its_language():
    chances = sentiment.transitions(2)
    tokens = np.array(sentiment.sentence(np.random.default_rng(0), 4000, 0, language=2))
    follows = np.bincount(tokens[1:][tokens[:-1] == tokens[0]], minlength=32)
    assert np.corrcoef(follows, chances[tokens[0]])[0, 1] > 0.8
    for example in tasks.toysentiment(0, 20):
        ids = [int(word) for word in example.answer.split()]
        assert len(ids) == 12
        assert sentiment.sentiment(ids) == example.info["sentiment"]


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        ({"name": "countdwn"}, 1, "Did you mean 'countdown'"),
        ({"name": "modadd", "modulos": 10}, 1, "Did you mean 'modulus'"),
        ({"name": "countdown"}, None, "set size to a number"),
        ({"name": "modadd", "modulus": 1000}, 1, "from 1 to 100"),
        ({"name": "modadd", "split": "tset"}, 1, "Did you mean 'test'"),
        ({"name": "modadd"}, 10_000, "the train split of modadd has 89.. prompts"),
        ({"name": "graphpath", "nodes": 1}, 1, "2 <= nodes=1 <= 26"),
        ({"name": "graphpath", "held_out": 0.0, "split": "test"}, 1, "leaves no test split"),
        ({"name": "graphpath", "held_out": 1.0}, 1, "must be in"),
        ({"name": "graphpath", "degree": 1e-9}, 1, "1000 graphs"),
        ({"name": "toysentiment", "prompt_length": 1}, 100, "found only"),
        ({"name": "toysentiment", "length": 0}, 1, "at least 1"),
        ({"name": "gsm8k", "template": "plan", "path": "x"}, 1, "Did you mean 'plain'"),
        ({"name": "gsm8k", "source": "web"}, 1, "sources are"),
    ],
)
def test_mistakes_in_a_config_are_named(config: dict, size: int | None, message: str):
    with pytest.raises(UserError, match=message):
        tasks.make(config, size=size)


def write(path: Path, rows: list) -> Path:
    """Writes rows, or lines as they are."""
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


ROWS = [
    {"question": f"{n} and {n}?", "answer": f"{n}+{n}=<<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n:,}"} for n in (1, 600)
]


def test_gsm8k_reads_files_folders_and_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    file = write(folder / "train.jsonl", ROWS)
    by_file, by_folder = tasks.gsm8k(path=file), tasks.gsm8k(path=folder)
    monkeypatch.setenv("RLX_DATA_DIR", str(tmp_path))
    assert by_file == by_folder == tasks.gsm8k()
    assert by_file[1].answer == "1200"
    assert by_file[1].prompt == "Question: 600 and 600?\nAnswer:"
    assert by_file[1].info == {"solution": "600+600=1200\n#### 1,200", "place": f"{file}:2"}
    assert "<<600+600=1200>>" in tasks.gsm8k(marks=True)[1].info["solution"]
    assert tasks.records(by_file)[0]["response"] == "1+1=2\n#### 2"
    assert sorted(tasks.gsm8k(seed=1, template="{question}!")) == sorted(tasks.gsm8k(template="{question}!"))
    with gzip.open(folder / "test.jsonl.gz", "wt") as packed:
        packed.write(json.dumps(ROWS[0]) + "\n")
    assert len(tasks.gsm8k(split="test")) == 1
    monkeypatch.delenv("RLX_DATA_DIR")
    with pytest.raises(UserError, match="RLX_DATA_DIR"):
        tasks.gsm8k()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ({"question": "?"}, "no field 'answer'"),
        ({"question": "?", "answer": "No number."}, "must end with '#### <number>'"),
        ({"question": "?", "answer": "#### many"}, "must end with '#### <number>'"),
        ({"question": "", "answer": "#### 1"}, "'question' is empty"),
        ({"question": 3, "answer": "#### 1"}, "must be a string"),
        (["a"], "expected an object"),
    ],
)
def test_bad_rows_are_named_with_file_and_line_or_skipped(tmp_path: Path, row: object, message: str):
    file = write(tmp_path / "rows.jsonl", [ROWS[0], row])
    with pytest.raises(UserError, match=rf"rows.jsonl:2: .*{message}"):
        tasks.gsm8k(path=file)
    assert len(tasks.gsm8k(path=file, on_bad_row="skip")) == 1
    with pytest.raises(UserError, match="no usable row"):
        tasks.gsm8k(path=write(file, [row]), on_bad_row="skip")
    with pytest.raises(UserError, match="on_bad_row"):
        tasks.gsm8k(path=file, on_bad_row="ignore")


def test_math_reads_answers_and_boxed_solutions(tmp_path: Path):
    rows = [
        {"problem": "A?", "answer": "\\frac{1}{2}", "difficulty": 5.0, "type": "Algebra"},
        {"problem": "B?", "solution": "So $\\boxed{\\frac{1}{3}}$.", "level": "Level 1", "difficulty": 1},
    ]
    file = write(tmp_path / "math.jsonl", rows)
    examples = tasks.math(path=file, template="none")
    assert [example.answer for example in examples] == ["\\frac{1}{2}", "\\frac{1}{3}"]
    assert examples[0].info == {"difficulty": 5.0, "type": "Algebra", "place": f"{file}:1"}
    assert [example.prompt for example in tasks.math(path=file, difficulties=[1], template="none")] == ["B?"]
    with pytest.raises(UserError, match=r"math.jsonl:1: field 'answer' must be a string, found NoneType"):
        tasks.math(path=write(file, [{"problem": "C?", "answer": None}]))


def test_tfds_datasets_are_read_as_files_are(tmp_path: Path):
    """A dataset on disk, prepared as a networked machine prepares its own."""
    import tensorflow_datasets as tfds

    class Sums(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Two rows."""

        VERSION = tfds.core.Version("1.0.0")
        code_path = None

        def _info(self):
            texts = {"question": tfds.features.Text(), "answer": tfds.features.Text()}
            features = tfds.features.FeaturesDict(texts)
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(ROWS)

    Sums(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    folder = str(tmp_path / "sums" / "1.0.0")
    examples = tasks.gsm8k(source="tfds", path=folder)
    assert [example.answer for example in examples] == ["2", "1200"]
    assert examples[1].info["place"] == f"{folder}[train]:1"
    with pytest.raises(UserError, match="no split 'test'"):
        tasks.gsm8k(source="tfds", path=folder, split="test")
    with pytest.raises(UserError, match="no TFDS dataset"):
        tasks.gsm8k(source="tfds", path=str(tmp_path / "none"))
