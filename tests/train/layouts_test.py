"""Every layout of devices follows the trajectory of one device: DPO, KTO, POWER-DL, GRPO with Clip-Cov, and PPO."""

import numpy as np
import pytest

from rlx.errors import UserError
from tests.train import layouts, two_processes

TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
CASES = [(name, "float64") for name in layouts.METHODS] + [("dpo", "float32"), ("ppo", "float32")]
CASES += [("clip_cov", "float32")]


def assert_same(name: str, dtype: str, found: layouts.Trajectory, layout: str) -> None:
    """In float32 a rounding may flip a token that Clip-Cov selects: only its first step is compared."""
    expected, tolerance = layouts.one_device(name, dtype), TOLERANCE[dtype]
    first = name == "clip_cov" and dtype == "float32"
    for field, ours, theirs in zip(found._fields, found, expected, strict=True):
        if first and field != "losses":
            continue
        got, want = (ours[:1], theirs[:1]) if first else (ours, theirs)
        message = f"{name} {dtype} {layout} {field}"
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=message)


@pytest.mark.parametrize("name, dtype", CASES)
def test_every_layout_follows_the_same_trajectory(name, dtype):
    expected = layouts.one_device(name, dtype)
    assert np.ptp(expected.losses) > 1e-3  # something is learned, so that agreement says something
    for layout, where in layouts.LAYOUTS.items():
        assert_same(name, dtype, layouts.trajectory(name, dtype, where), layout)


def test_two_processes_of_four_devices_follow_it_too(tmp_path):
    keys = [f"{name}.{dtype}" for name, dtype in CASES]
    two_processes.run(["-m", "tests.train.layouts", str(tmp_path), *keys])
    for name, dtype in CASES:
        with np.load(tmp_path / f"{name}.{dtype}.npz") as arrays:
            found = layouts.Trajectory(**arrays)
        assert_same(name, dtype, found, "2 processes x 4 devices")


@pytest.mark.parametrize("name", ["clip_cov", "ppo"])
def test_micro_batches_may_part_the_responses_of_a_row(name):
    assert_same(name, "float64", layouts.trajectory(name, "float64", layouts.FINE), "8 micro-batches of parts of rows")


def test_what_sets_responses_of_a_row_against_each_other_stays_whole():
    with pytest.raises(UserError, match="batch_size 8 does not divide into 16 equal parts"):
        layouts.trajectory("dpo", "float64", layouts.FINE)
