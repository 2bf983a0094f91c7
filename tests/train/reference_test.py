"""The reference cache: what its key depends on, when it is used, and that it changes nothing."""

import json

import numpy as np
import pytest

from rlx.build import build
from rlx.data import pipeline, tokenizers
from rlx.data.letters import letter_pairs
from rlx.report.rows import read_rows
from rlx.train import reference
from rlx.train.main import train

pytestmark = pytest.mark.usefixtures("one_model")

PARAMS = {"a": np.ones((2, 2), np.float32), "b": np.zeros(3, np.float32)}


def dataset(**changes):
    data = {"source": "memory", "records": letter_pairs(5, seed=0), "max_prompt_length": 3, "max_response_length": 4}
    return pipeline.load(data | changes, tokenizers.build({"name": "byte"}), kind="pairs")[0]


def key(data=None, params=PARAMS, model=None):
    return reference.content_hash(data or dataset(), params, model or {"name": "transformer"})


def test_the_key_depends_on_content_alone():
    assert key() == key(dataset(), {name: leaf.copy() for name, leaf in PARAMS.items()})


@pytest.mark.parametrize(
    "other",
    [
        lambda: key(dataset(records=letter_pairs(5, seed=1))),
        lambda: key(dataset(limit=4)),
        lambda: key(dataset(max_response_length=5)),
        lambda: key(dataset(max_prompt_length=4)),
        lambda: key(dataset(flip_rate=0.9)),
        lambda: key(params=PARAMS | {"a": PARAMS["a"] + 1e-6}),
        lambda: key(params={"b": PARAMS["a"], "a": PARAMS["b"]}),
        lambda: key(model={"name": "transformer", "rope_theta": 1.0}),
    ],
    ids=["data", "limit", "response length", "prompt length", "flips", "parameters", "names", "model"],
)
def test_the_key_changes_with(other):
    assert other() != key()


def test_hit_miss_and_damage(tmp_path):
    calls = []

    def score(batch):
        calls.append(len(batch["index"]))
        return -batch["index"][:, None].astype(np.float32) - np.array([[0.0, 0.5]], np.float32)

    def get(name="k"):
        return reference.cached_logps(tmp_path / "cache", name, dataset(), 2, score)

    first = get()
    np.testing.assert_array_equal(first[:, 0], -np.arange(5, dtype=np.float32))
    assert first.shape == (5, 2) and calls == [2, 2, 2]
    np.testing.assert_array_equal(get(), first)
    assert len(calls) == 3
    get("other")
    assert len(calls) == 6
    (tmp_path / "cache" / "k.npz").write_bytes(b"PK\x03\x04 cut off")
    np.testing.assert_array_equal(get(), first)
    assert len(calls) == 9
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["k.npz", "other.npz"]


def test_auto_caches_from_the_second_use_of_an_example():
    dpo, kto, simpo = build("dpo"), build("kto"), build("simpo")
    assert reference.is_cached(dpo, "auto", 11, 10) and not reference.is_cached(dpo, "auto", 10, 10)
    assert reference.is_cached(dpo, "cached", 1, 10) and not reference.is_cached(dpo, "on_the_fly", 99, 10)
    assert not reference.is_cached(kto, "cached", 99, 10), "mismatched pairs depend on the batch"
    assert not reference.is_cached(simpo, "auto", 99, 10)


def test_cached_equals_on_the_fly(finished, tiny, tmp_path):
    workdir = tmp_path / "run"
    train(tiny(reference="cached"), workdir)
    assert len(list((workdir / "cache").iterdir())) == 2  # the training and the held-out examples
    ours, theirs = (read_rows(folder / "metrics.jsonl") for folder in (workdir, finished))
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        numbers = [name for name in row if name not in ("stage", "split")]
        np.testing.assert_allclose([row[n] for n in numbers], [other[n] for n in numbers], rtol=1e-4, atol=1e-5)


def test_kto_says_that_it_cannot_be_cached(tiny, tmp_path, capsys):
    config = tiny(stages=("preference",), method={"name": "kto"}, reference="cached")
    del config["sft"]
    metrics = train(config, tmp_path / "run")
    assert "reference_kl_logps" in capsys.readouterr().err
    assert not (tmp_path / "run" / "cache").exists()
    assert np.isfinite(metrics["loss"]) and json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 3
