"""Runs with packed batches: the numbers of plain runs, and the same bits after an interruption."""

import json

import jax
import numpy as np
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.train.assemble import assemble
from rlx.train.interrupts import Stopped
from rlx.train.main import train
from rlx.train.restore import restore

pytestmark = pytest.mark.usefixtures("one_model")


def config(packing: dict, **rollout):
    """Stages ``sft`` and ``rl``; in the latter two updates of two micro-batches each."""
    found = rl.get_config("grpo,smoke").to_dict()
    found["sft"] |= {"steps": 2, "packing": packing}
    found["rl"] |= {"steps": 3, "micro_batches": 2, "packing": packing}
    verifier = "tests.train.rollouts_test:even"  # it varies from the start
    found["rl"]["rollout"] |= {"minibatches": 2, "epochs": 2, "verifier": verifier, **rollout}
    found["method"] |= {"kl": "k3(0.04)"}
    return found


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "packed"
    train(config({"multiple": 1}), folder)
    return folder


def test_packing_changes_no_number_of_a_run(tmp_path, packed):
    train(config({}), tmp_path)
    ours, theirs = rows(packed), rows(tmp_path)
    assert {row["stage"] for row in ours} == {"sft", "rl"}
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        np.testing.assert_allclose(*([v for v in r.values() if isinstance(v, float)] for r in (row, other)), atol=1e-5)


@pytest.mark.parametrize("moment", [("sft", 1), ("rl", 2)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, packed, moment):
    settings = config({"multiple": 1})
    with pytest.raises(Stopped):
        train(settings, tmp_path, stop=lambda stage, step: (stage, step) == moment)
    train(settings, tmp_path)
    assert rows(tmp_path) == rows(packed)
    jax.tree.map(np.testing.assert_array_equal, *(restore(folder).state for folder in (tmp_path, packed)))


def test_what_does_not_go_with_packing_is_refused():
    with pytest.raises(UserError, match=r"config\.rl\.packing does not go with rollout\.shared_prefix.*leave out one"):
        assemble(config({"multiple": 1}, shared_prefix=True))
    evolution = rl.get_config("eggroll_update,smoke").to_dict()
    evolution["rl"]["packing"] = {"multiple": 1}
    with pytest.raises(UserError, match=r"config\.rl\.packing is not used: evolution"):
        assemble(evolution)
