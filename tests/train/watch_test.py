"""What is not finite ends a run or is left out, and its batch is kept for people and programs to read."""

import json

import numpy as np
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.metrics import Mean
from rlx.report.rows import read_rows
from rlx.train import programs
from rlx.train import updates as updates_module
from rlx.train.main import train
from rlx.train.settings import check
from rlx.train.watch import MOST, Watch
from tests.train.main_test import assert_same_run, leaves, result

BATCH = {"tokens": np.arange(6).reshape(2, 1, 3), "index": np.array([4, 7], np.int32)}


def metrics(loss=1.0, **more):
    return {"loss": Mean(np.float32(loss), np.float32(1)), "grad_norm": Mean(np.float32(2), np.float32(1))} | more


def skipped():
    return metrics(skipped=Mean(1.0, 1.0))


def test_a_stop_names_the_batch_it_keeps(tmp_path):
    watch = Watch("stop", folder=tmp_path)
    watch("sft", 3, metrics(), BATCH)
    assert not list(tmp_path.iterdir())
    path = tmp_path / "bad_batches" / "sft_00000004.npz"
    with pytest.raises(UserError, match=rf"loss is nan at step 4 of the stage 'sft'; its batch is {path}. The last"):
        watch("sft", 4, metrics(np.nan), BATCH)
    with np.load(path, allow_pickle=False) as found:
        np.testing.assert_array_equal(found["tokens"], BATCH["tokens"])
        assert (found["stage"].item(), found["step"].item(), found["reason"].item()) == ("sft", 4, "loss is nan")
        assert np.isnan(found["metrics/loss"]) and found["metrics/grad_norm"] == 2
    summary = json.loads(path.with_suffix(".json").read_text())
    assert summary["rows"] == [4, 7] and summary["metrics"] == {"loss": "NaN", "grad_norm": 2.0}
    assert summary["arrays"] == {"tokens": "int64[2, 1, 3]", "index": "int32[2]"}
    assert sorted(file.name for file in path.parent.iterdir()) == ["sft_00000004.json", "sft_00000004.npz"]


def test_an_exploded_gradient_stops_too():
    exploded = metrics(exploded=Mean(1.0, 1.0))
    with pytest.raises(
        UserError, match=r"grad_norm is 2 \(config.explode=1.5\) at step 1 of the stage 'rl'; its batch is n"
    ):
        Watch("stop", 1.5)("rl", 1, exploded, BATCH)
    Watch("continue")("rl", 1, metrics(np.nan), BATCH)


def test_too_many_skips_in_a_row_stop_the_run(tmp_path, capsys):
    watch = Watch("skip", max_skips=3, folder=tmp_path)
    for step, found in enumerate([skipped(), skipped(), metrics(), skipped(), skipped()], start=1):
        watch("sft", step, found, BATCH)
    with pytest.raises(UserError, match=r"updates of 3 steps in a row were skipped, up to step 6 .*config.max_skips"):
        watch("sft", 6, skipped(), BATCH)
    assert len(list((tmp_path / "bad_batches").glob("*.npz"))) == 5
    assert capsys.readouterr().err.count("warning: skipped an update of step") == 5


def test_no_more_than_some_batches_are_kept(tmp_path):
    (tmp_path / "bad_batches").mkdir()
    for number in range(MOST):
        (tmp_path / "bad_batches" / f"{number}.npz").write_text("")
    with pytest.raises(UserError, match=f"its batch is not kept, .* holds {MOST} of them"):
        Watch("stop", folder=tmp_path)("sft", 1, metrics(np.inf), BATCH)


def poison(patch, bad):
    """Training steps of the stage preference whose number is in ``bad`` read a reference log-probability of NaN."""
    attach, calls = programs.reference.attach, []

    def attached(batch, logps):
        found = attach(batch, logps)
        if len(logps) == 12:  # the training set
            calls.append(1)
            if len(calls) in bad:
                first = np.arange(len(found["index"]))[:, None] == 0
                found["reference_logps"] = np.where(first, [[np.nan, 0.0]], found["reference_logps"])
        return found

    patch.setattr(programs.reference, "attach", attached)


def test_a_poisoned_batch_stops_a_run_which_goes_on_without_it(tiny, tmp_path):
    config, workdir = tiny(reference="cached"), tmp_path / "run"
    train(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, {3})
        with pytest.raises(
            UserError, match=r"loss is nan at step 3 of the stage 'preference'; its batch is .*\.npz\. The"
        ):
            train(config, workdir)
    with np.load(workdir / "bad_batches" / "preference_00000003.npz", allow_pickle=False) as found:
        assert np.isnan(found["reference_logps"]).sum() == 1 and np.isnan(found["reference_logps"][0, 0])
        assert found["tokens"].shape[0] == 4 and (found["index"] < 12).all()
    assert all(np.isfinite(leaf).all() for leaf in leaves(workdir)), "the checkpoint is that of step 2"
    train(config, workdir)
    assert_same_run(workdir, tmp_path / "whole")


def test_a_skipped_batch_is_counted_and_the_run_goes_on(tiny, tmp_path, monkeypatch):
    config = tiny(reference="cached", on_nan="skip")
    config["preference"] = config["preference"] | {"log_every": 1}
    poison(monkeypatch, {2})
    train(config, tmp_path)
    rows = [
        row for row in read_rows(tmp_path / "metrics.jsonl") if row["stage"] == "preference" and row["split"] == "train"
    ]
    assert [row["skipped"] for row in rows] == [0.0, 1.0, 0.0]
    assert [np.isfinite(row["loss"]) for row in rows] == [True, False, True]
    assert np.isfinite(result(tmp_path)["metrics"]["loss"]) and all(
        np.isfinite(leaf).all() for leaf in leaves(tmp_path)
    )
    assert [path.name for path in (tmp_path / "bad_batches").glob("*.npz")] == ["preference_00000002.npz"]


def test_an_update_of_a_rollout_is_skipped_alone(tmp_path, one_model, monkeypatch):
    config = rl.get_config("grpo,smoke").to_dict()
    config |= {"on_nan": "skip", "stages": ("rl",)}
    del config["sft"]
    config["rl"] |= {"steps": 2, "log_every": 1, "eval_every": 0}
    config["rl"]["rollout"] |= {"minibatches": 2}
    put, updates = updates_module.put_whole, []

    def poisoned(batch, mesh):
        updates.append(1)
        bad = len(updates) == 2
        return put(batch | ({"old_logprobs": np.full_like(batch["old_logprobs"], np.nan)} if bad else {}), mesh)

    monkeypatch.setattr(updates_module, "put_whole", poisoned)
    train(config, tmp_path)
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if row["split"] == "train"]
    assert [row["skipped"] for row in rows] == [0.5, 0.0] and np.isfinite(rows[0]["loss"])
    with np.load(tmp_path / "bad_batches" / "rl_00000001.npz", allow_pickle=False) as found:
        assert {"tokens", "rewards", "old_logprobs", "index"} <= set(found)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"on_nan": "skp"}, "config.on_nan: unknown 'skp'. Did you mean 'skip'"),
        ({"explode": 0}, "config.explode must be a positive number or None, not 0"),
        ({"explode": 1.0, "on_nan": "continue"}, "config.explode is not used"),
        ({"max_skips": 0}, "config.max_skips must be a whole number of at least 1"),
    ],
)
def test_mistakes_are_named(tiny, keys, message):
    with pytest.raises(UserError, match=message):
        check(tiny(**keys))
