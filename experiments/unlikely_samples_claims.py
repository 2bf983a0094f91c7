"""What the paper says of rare samples and of pass@N, tested on rows alone."""

from collections.abc import Sequence

from experiments import claims, parts
from experiments.parts import Row
from rlx.report.intervals import paired_interval

START, ONCE, GRPO, UNLIKELY = "start", "grpo, 1 epoch", "grpo", "unlikeliness"
"""The policy before rewards; GRPO with one update on a batch; with two; with the unlikeliness reward, and two."""
PAPER = "arXiv:2506.02355"
BIAS = f"{PAPER}: rare right samples are lifted less often under GRPO"
FLATTER = f"{PAPER}: the unlikeliness reward mitigates the rank bias"
EPOCHS = f"{PAPER}: so do more updates per batch"
PASS = f"{PAPER}: and pass@N improves over a large range"
SHARPENS = f"{PAPER}: GRPO solves with fewer samples, but fewer of all problems than its start"
OURS = "our bar"


def tested(rows: Sequence[Row]) -> list[parts.Tested]:
    """Rank bias in an update and over all of training, then pass@N and different answers."""
    return [*_of_learning(rows), *_of_bias(rows), *_of_passes(rows)]


def cell(method: str) -> Row:
    """The rows of a method."""
    return {"method": method}


def _of_learning(rows: Sequence[Row]) -> list[parts.Tested]:
    return [
        (claims.greater("pass@1: grpo > start", rows, "pass@1", cell(GRPO), cell(START)), f"{OURS}: GRPO learns"),
        (claims.greater("pass@64: start > grpo", rows, "pass@64", cell(START), cell(GRPO)), SHARPENS),
    ]


def _of_bias(rows: Sequence[Row]) -> list[parts.Tested]:
    """Both readings of a bias that is mitigated: a larger slope, which may overshoot, and a smaller size of it."""
    found: list[parts.Tested] = []
    trained = [row for row in rows if row["method"] != START]
    for metric, when in (("slope", "in an update"), ("slope_all", "over all of training")):
        text, sizes = f"slope of lifting over rank, {when}", [{**row, metric: abs(row[metric])} for row in trained]
        found += [
            *((claims.mean_within(f"{text}: {m}", trained, metric, cell(m), high=0.0), BIAS) for m in (ONCE, GRPO)),
            (claims.greater(f"{text}: unlikeliness > grpo", trained, metric, cell(UNLIKELY), cell(GRPO)), FLATTER),
            (claims.greater(f"{text}, size: grpo > unlikeliness", sizes, metric, cell(GRPO), cell(UNLIKELY)), FLATTER),
            (claims.greater(f"{text}: grpo, 2 epochs > 1", trained, metric, cell(GRPO), cell(ONCE)), EPOCHS),
        ]
    return found


def _of_passes(rows: Sequence[Row]) -> list[parts.Tested]:
    """More problems solved, by different answers, at no cost for one sample: the last is not the paper's."""
    unlikely, grpo = cell(UNLIKELY), cell(GRPO)
    measured = paired_interval(*claims.paired(rows, "pass@1", unlikely, grpo))
    text, rule = "pass@1: unlikeliness less grpo", "paired difference in [-0.02, 0.02]"
    once = claims.Claim(text, measured, rule, claims.within(measured, -0.02, 0.02))
    text = "different right answers: unlikeliness > grpo"
    return [
        (once, f"{OURS}: one sample is as good"),
        *(
            (claims.not_less(f"{k}: unlikeliness >= grpo", rows, k, unlikely, grpo), PASS)
            for k in ("pass@16", "pass@64")
        ),
        (claims.greater("pass@64: unlikeliness > start", rows, "pass@64", unlikely, cell(START)), PASS),
        (claims.greater(text, rows, "distinct", unlikely, grpo), PASS),
        (claims.not_less("pass@64: grpo, 2 epochs >= 1", rows, "pass@64", grpo, cell(ONCE)), EPOCHS),
    ]
