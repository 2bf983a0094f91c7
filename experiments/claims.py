"""Claims of a paper's table, tested on rows: paired by seed, 95 % intervals, one verdict each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rlx.errors import UserError
from rlx.report.intervals import Interval, Verdict, mean_interval, verdict

Row = Mapping[str, Any]
Cell = Mapping[str, Any]


class Claim(NamedTuple):
    """A statement, what was measured for it, when it counts as reproduced, and whether it does."""

    claim: str
    measured: Interval
    rule: str
    verdict: Verdict

    def row(self) -> dict[str, Any]:
        """A row of the table of claims."""
        return {"claim": self.claim, "measured": self.measured, "reproduced if": self.rule, "verdict": self.verdict}


def greater(
    claim: str, rows: Iterable[Row], metric: str, ours: Cell, theirs: Cell, *, factor: float = 1.0, per: str = "seed"
) -> Claim:
    """The claim that ``metric`` is greater in cell ``ours`` than ``factor`` times that in cell ``theirs``.

    >>> rows = [{"seed": s, "m": m, "x": x + s / 10} for s in range(3) for m, x in (("a", 2.0), ("b", 1.0 - s / 100))]
    >>> greater("a > b", rows, "x", {"m": "a"}, {"m": "b"}).verdict
    'reproduced'
    """
    rows = list(rows)
    left, right = paired(rows, metric, ours, theirs, per)
    measured = mean_interval([a - factor * b for a, b in zip(left, right, strict=True)])
    return Claim(claim, measured, "paired difference > 0", verdict("greater", measured))


def not_less(
    claim: str, rows: Iterable[Row], metric: str, ours: Cell, theirs: Cell, *, by: float = 0.0, per: str = "seed"
) -> Claim:
    """The claim that ``metric`` in cell ``ours`` is not less than in cell ``theirs`` by more than ``by`` on average.

    >>> rows = [{"seed": s, "m": m, "x": 1.0} for s in range(3) for m in "ab"]
    >>> not_less("a >= b", rows, "x", {"m": "a"}, {"m": "b"}).verdict
    'reproduced'
    """
    rows = list(rows)
    left, right = paired(rows, metric, ours, theirs, per)
    measured = mean_interval([a - b for a, b in zip(left, right, strict=True)])
    return Claim(claim, measured, f"paired difference >= {-by or 0.0:g}", within(measured, -by, math.inf))


def ratio_within(
    claim: str,
    rows: Iterable[Row],
    metric: str,
    ours: Cell,
    theirs: Cell,
    low: float,
    high: float,
    *,
    per: str = "seed",
) -> Claim:
    """The claim that the ratio of a positive ``metric`` between two cells lies in ``[low, high]``.

    The measure is the geometric mean of the ratios of the seeds, with the t-interval of their logarithms.
    """
    rows = list(rows)
    left, right = paired(rows, metric, ours, theirs, per)
    logs = mean_interval([math.log(a / b) for a, b in zip(left, right, strict=True)])
    measured = Interval(*map(math.exp, logs[:3]), logs.n)
    return Claim(claim, measured, f"ratio in [{low:.3g}, {high:.3g}]", within(measured, low, high))


def equal(
    claim: str,
    rows: Iterable[Row],
    metrics: Sequence[str],
    cells: Sequence[Cell],
    tolerance: float,
    *,
    per: str = "seed",
) -> Claim:
    """The counting claim that no metric differs between the cells, on any seed, by more than ``tolerance``."""
    rows = list(rows)
    spread = 0.0
    for metric in metrics:
        columns = [paired(rows, metric, cells[0], cell, per)[1] for cell in cells]
        spread = max(spread, *(max(values) - min(values) for values in zip(*columns, strict=True)))
    measured = Interval(spread, spread, spread, len(columns[0]))
    return Claim(
        claim, measured, f"largest <= {tolerance:g}", "reproduced" if spread <= tolerance else "not reproduced"
    )


def counted(claim: str, holds: Sequence[bool], least: int, of: str = "cells") -> Claim:
    """The counting claim that something holds in at least ``least`` of the cells; the measure is their number.

    >>> counted("a > b", [True, True, False], 2).row()["reproduced if"]
    'in >= 2 of 3 cells'
    """
    measured = Interval(sum(holds), math.nan, math.nan, len(holds))
    reached: Verdict = "reproduced" if sum(holds) >= least else "not reproduced"
    return Claim(claim, measured, f"in >= {least} of {len(holds)} {of}", reached)


def every(
    claim: str,
    rows: Iterable[Row],
    metric: str,
    cell: Cell,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    per: str = "seed",
) -> Claim:
    """The counting claim that ``metric`` lies in ``[low, high]`` on every seed; the measure is the worst of them.

    >>> rows = [{"seed": s, "x": 0.9 + s / 100} for s in range(5)]
    >>> every("x", rows, "x", {}, low=0.92).row()["reproduced if"], every("x", rows, "x", {}, low=0.92).measured.mean
    ('>= 0.92 on all 5', 0.9)
    """
    values, _ = paired(rows, metric, cell, cell, per)
    worst = max(values, key=lambda value: math.inf if math.isnan(value) else max(low - value, value - high))
    measured = Interval(worst, math.nan, math.nan, len(values))
    rule = f"{_range(low, high)} on all {len(values)}"
    return Claim(claim, measured, rule, "reproduced" if low <= worst <= high else "not reproduced")


def mean_within(
    claim: str,
    rows: Iterable[Row],
    metric: str,
    cell: Cell,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    per: str = "seed",
) -> Claim:
    """The claim that the mean of ``metric`` over the seeds lies in ``[low, high]``."""
    measured = mean_interval(paired(rows, metric, cell, cell, per)[0])
    return Claim(claim, measured, f"mean {_range(low, high)}", within(measured, low, high))


def within(measured: Interval, low: float, high: float) -> Verdict:
    """Whether an interval says that a quantity lies in ``[low, high]``: inside, outside, or across an end.

    >>> within(Interval(1.0, 0.9, 1.1, 8), 0.5, 2), within(Interval(3.0, 2.5, 3.5, 8), 0.5, 2)
    ('reproduced', 'not reproduced')
    >>> within(Interval(1.9, 1.5, 2.3, 8), 0.5, 2)
    'inconclusive'
    """
    if low <= measured.low and measured.high <= high:
        return "reproduced"
    return "not reproduced" if measured.high < low or measured.low > high else "inconclusive"


def paired(
    rows: Iterable[Row], metric: str, ours: Cell, theirs: Cell, per: str = "seed"
) -> tuple[list[float], list[float]]:
    """The values of two cells in the same order of ``per``.

    Raises:
      UserError: a cell has no rows, or the two have different seeds: such values are not paired.
    """
    rows = list(rows)
    left, right = ({row[per]: row[metric] for row in rows if _matches(row, cell)} for cell in (ours, theirs))
    if not left or left.keys() != right.keys():
        raise UserError(
            f"{metric} of {dict(ours)} and {dict(theirs)} cannot be paired: {per} {[*left]} and {[*right]}."
        )
    return [left[key] for key in sorted(left)], [right[key] for key in sorted(left)]


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return f">= {low:g}"
    return f"<= {high:g}" if math.isinf(low) else f"in [{low:g}, {high:g}]"


def _matches(row: Row, cell: Cell) -> bool:
    return all(row.get(key) == value for key, value in cell.items())
