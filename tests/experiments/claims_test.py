"""Verdicts on claims: both sides, the middle, and values that cannot be paired."""

import math

import pytest

from experiments import claims
from rlx.errors import UserError


def rows(**cells: list[float]) -> list[dict]:
    return [{"method": m, "seed": seed, "x": x} for m, values in cells.items() for seed, x in enumerate(values)]


A, B = {"method": "a"}, {"method": "b"}


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([2.0, 2.1, 2.2, 2.1, 2.0], "reproduced"),
        ([0.0, 0.1, 0.2, 0.1, 0.0], "not reproduced"),
        ([0.0, 2.1, 0.2, 2.1, 1.0], "inconclusive"),
    ],
)
def test_greater(ours: list[float], verdict: str) -> None:
    found = claims.greater("a > b", rows(a=ours, b=[1.0, 1.0, 1.1, 1.0, 0.9]), "x", A, B)
    assert found.verdict == verdict and found.measured.n == 5


def test_greater_is_paired() -> None:
    """The seeds differ far more than the methods: only the difference of each seed shows the order."""
    theirs = [1.0, 50.0, 100.0, 150.0]
    assert claims.greater("a > b", rows(a=[x + 1 for x in theirs], b=theirs), "x", A, B).verdict == "reproduced"


def test_greater_than_a_share() -> None:
    data = rows(a=[0.97, 0.975, 0.97], b=[1.0, 1.0, 1.0])
    assert claims.greater("flat", data, "x", A, B, factor=0.95).verdict == "reproduced"
    assert claims.greater("flat", data, "x", A, B).verdict == "not reproduced"


def test_ratio_is_a_geometric_mean() -> None:
    found = claims.ratio_within("about 2", rows(a=[1.0, 4.0], b=[1.0, 1.0]), "x", A, B, 1, 3)
    assert math.isclose(found.measured.mean, 2.0) and found.verdict == "inconclusive"
    inside = claims.ratio_within("2", rows(a=[2.0, 2.1], b=[1.0, 1.05]), "x", A, B, 1.5, 2.5)
    outside = claims.ratio_within("2", rows(a=[4.0, 4.1], b=[1.0, 1.0]), "x", A, B, 1.5, 2.5)
    assert (inside.verdict, outside.verdict) == ("reproduced", "not reproduced")


def test_equal_is_judged_on_every_seed() -> None:
    data = rows(a=[1.0, 2.0], b=[1.0, 2.0 + 1e-3])
    assert claims.equal("a = b", data, ["x"], [A, B], 1e-2).verdict == "reproduced"
    found = claims.equal("a = b", data, ["x"], [A, B], 1e-6)
    assert found.verdict == "not reproduced" and math.isclose(found.measured.mean, 1e-3, rel_tol=1e-6)


@pytest.mark.parametrize("theirs", [[], [1.0]])
def test_unpaired_seeds_are_an_error(theirs: list[float]) -> None:
    with pytest.raises(UserError, match=r"x of .* cannot be paired: seed \[0, 1\] and \["):
        claims.greater("a > b", rows(a=[1.0, 2.0], b=theirs), "x", A, B)


def test_every_seed_and_the_mean() -> None:
    data = rows(a=[0.9, 1.0, 1.1, 1.0])
    assert claims.every("all", data, "x", A, low=0.8, high=1.2).verdict == "reproduced"
    found = claims.every("all", data, "x", A, high=1.05)
    assert found.verdict == "not reproduced" and found.measured.mean == 1.1
    assert claims.every("all", rows(a=[1.0, math.nan]), "x", A).verdict == "not reproduced"
    assert claims.mean_within("mean", data, "x", A, high=1.2).verdict == "reproduced"
    assert claims.mean_within("mean", data, "x", A, low=1.05, high=9).verdict == "inconclusive"
    assert claims.mean_within("mean", data, "x", A, low=2).verdict == "not reproduced"


def test_not_less_allows_equality_and_a_margin() -> None:
    same, lower = rows(a=[1.0, 1.1, 1.2], b=[1.0, 1.1, 1.2]), rows(a=[1.0, 1.1, 1.2], b=[1.02, 1.12, 1.22])
    assert claims.not_less("a >= b", same, "x", A, B).verdict == "reproduced"
    assert claims.not_less("a >= b", lower, "x", A, B).verdict == "not reproduced"
    found = claims.not_less("a >= b - 0.05", lower, "x", A, B, by=0.05)
    assert found.verdict == "reproduced" and found.rule == "paired difference >= -0.05"
