"""Tables: alignment, rounding by the interval, CSV at full precision, means of cells."""

import csv
import io
import math

import pytest

from rlx.report import tables
from rlx.report.intervals import Interval, mean_interval


def test_markdown_is_aligned_and_complete():
    rows = [{"method": "dpo", "beta": 0.1}, {"method": "a|b", "steps": 1200}]
    text = tables.markdown(rows)
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["|", "method", "|", "beta", "|", "steps", "|"]
    assert "a\\|b" in text
    assert tables.markdown(rows, ["steps"]).splitlines()[0] == "| steps |"


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.61234, 0.60234, 0.62234, 8), "0.612 ± 0.010"),
        (Interval(0.5, 0.4996, 0.5004, 8), "0.50000 ± 0.00040"),
        (Interval(123.456, 111.1, 135.812, 8), "123 ± 12"),
        (Interval(1.0, 1.0, 1.0, 8), "1 ± 0"),
        (Interval(0.95, 0.8, 0.99, 20), "0.950 [0.800, 0.990]"),
        (Interval(1e-9, 0.9e-9, 1.1e-9, 8), "1e-09 ± 1e-10"),
        (Interval(math.nan, math.nan, math.nan, 3), "nan"),
    ],
)
def test_an_interval_decides_how_many_digits_are_shown(interval, expected):
    assert tables.interval_text(interval) == expected


def test_csv_keeps_every_digit_and_the_ends():
    value = mean_interval([0.1, 0.2, 0.4])
    rows = [{"method": "dpo", "accuracy": value, "stages": ("sft", "x")}, {"method": "ipo", "accuracy": None}]
    parsed = list(csv.DictReader(io.StringIO(tables.csv_text(rows))))
    assert list(parsed[0]) == ["method", "accuracy", "accuracy_low", "accuracy_high", "accuracy_n", "stages"]
    assert (float(parsed[0]["accuracy_low"]), float(parsed[0]["accuracy"])) == (value.low, value.mean)
    assert parsed[0]["stages"] == "sft, x" and parsed[1]["accuracy"] == parsed[1]["accuracy_n"] == ""


def test_summarise_takes_cells_in_order_and_leaves_out_what_is_missing():
    rows = [{"beta": beta, "seed": seed, "acc": seed + beta} for seed in range(4) for beta in (0.5, 0.1)]
    rows.append({"beta": 0.1, "seed": 4, "acc": None})
    first, second = tables.summarise(rows, ["beta"], ["acc", "kl"])
    assert (first["beta"], first["n"], first["kl"]) == (0.5, 4, None)
    assert first["acc"] == mean_interval([0.5, 1.5, 2.5, 3.5])
    assert (second["beta"], second["n"], second["acc"].n) == (0.1, 5, 4)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_show_draws_on_a_terminal_and_writes_markdown_elsewhere():
    rows = [{"run[1]": "a", "accuracy": Interval(0.5, 0.4, 0.6, 8)}]
    plain, drawn = io.StringIO(), Terminal()
    tables.show(rows, "title", stream=plain)
    tables.show(rows, "title", stream=drawn)
    assert plain.getvalue() == "title\n\n" + tables.markdown(rows)
    assert "0.50 ± 0.10" in drawn.getvalue() and "run[1]" in drawn.getvalue() and "│" in drawn.getvalue()
