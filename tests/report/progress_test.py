"""Progress: rate without what was done before, time left, one line on a terminal and few elsewhere."""

import io

import pytest

from rlx.report.progress import Progress, duration


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_rate_and_time_left_count_this_process_alone():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100, done=50, label="sft", stream=stream, clock=clock)
    clock.now += 5.0
    progress.update(60, "loss 0.5")
    assert stream.getvalue() == "sft  60/100  2 steps/s  ETA 20s  loss 0.5\n"


def test_elsewhere_a_line_every_interval_and_at_the_end():
    clock, stream = Clock(), io.StringIO()
    with Progress(100, stream=stream, clock=clock, interval=10.0) as progress:
        for step in range(1, 101):
            clock.now += 0.5
            progress.update(step)
    shown = [line.split()[0] for line in stream.getvalue().splitlines()]
    assert shown == ["1/100", "21/100", "41/100", "61/100", "81/100", "100/100"]
    assert stream.getvalue().endswith("took 50s\n")


def test_on_a_terminal_one_line_is_rewritten(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    clock, stream = Clock(), Terminal()
    with Progress(3, stream=stream, clock=clock, label="a" * 40) as progress:
        for step in range(1, 4):
            clock.now += 1.0
            progress.update(step)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n") and text.count("\r") >= 3
    assert all(len(part.split("\x1b")[0]) <= 29 for part in text.split("\r"))


def test_slow_units_show_seconds_per_unit():
    clock = Clock()
    progress = Progress(4, unit="run", stream=io.StringIO(), clock=clock)
    clock.now += 90.0
    progress.update(1)
    assert progress.line() == "1/4  90 s/run  ETA 4m30s"


def test_nothing_to_do_shows_nothing():
    stream = io.StringIO()
    Progress(0, stream=stream).close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0s"), (59.6, "1m00s"), (3599.7, "1h00m"), (100_000, "27h46m")])
def test_durations_round_up_through_units(seconds, text):
    assert duration(seconds) == text
