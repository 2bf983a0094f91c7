"""What a stage holds on the devices: its state, the policies that a step reads, and no further copy."""

import gc

import jax
import jax.numpy as jnp
import pytest

from rlx.report.rows import read_rows
from rlx.train.main import train
from tests.tiny_run import tiny_config

pytestmark = pytest.mark.usefixtures("one_model")

SIZES = {"name": "transformer", "hidden_size": 40, "num_layers": 1, "num_heads": 2}
EMBEDDING = (259, 40)  # a shape that no other test has


def held(folder, **changes):
    """Types of the embeddings that are in memory after the first step of the stage ``preference``."""
    found = {}

    def stop(stage, step):
        gc.collect()
        if stage == "preference" and step == 1:
            own = [x for x in jax.live_arrays() if x.shape == EMBEDDING]
            found.update({x.unsafe_buffer_pointer(): str(x.dtype) for x in own})  # several arrays may share memory
        return False

    train(tiny_config(model=SIZES, **changes), folder, stop=stop)
    return sorted(found.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reference": "cached"}, ["float32"] * 3),  # the policy and two moments
        ({"reference": "on_the_fly"}, ["float32"] * 4),
        ({"reference": "on_the_fly", "policies": {"reference": {"dtype": "bfloat16"}}}, ["bfloat16"] + ["float32"] * 3),
    ],
)
def test_a_stage_holds_no_policy_that_it_does_not_read(tmp_path, changes, expected):
    assert held(tmp_path / "run", **changes) == expected


def test_nor_the_policy_that_it_started_from(tmp_path):
    train(tiny_config(model=SIZES), tmp_path / "first")
    assert held(tmp_path / "next", start=str(tmp_path / "first"), reference="cached") == ["float32"] * 3


def test_a_reference_in_bfloat16_is_the_same_to_its_rounding(tmp_path):
    rows = []
    for name, rule in (("wide", {}), ("narrow", {"dtype": "bfloat16"})):
        config = tiny_config(policies={"reference": rule}, reference="cached")
        train(config, tmp_path / name)
        rows.append([row for row in read_rows(tmp_path / name / "metrics.jsonl") if row["stage"] == "preference"])
    assert rows[0] != rows[1]
    assert jnp.allclose(rows[0][-1]["loss"], rows[1][-1]["loss"], atol=0.02)
