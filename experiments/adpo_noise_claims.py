"""The claims of experiments/adpo_noise.py: statements of the paper's versions, tested on the rows of one view.

A view is a number of candidates, a target temperature, and the pairs that pairwise losses see of a list.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import claims
from experiments.adpo_noise_bandit import CORRUPTIONS, SEVERITIES
from experiments.adpo_noise_policy import LISTWISE, METHODS, PREFERENCE
from rlx.report.intervals import mean_interval

Row = dict[str, Any]
Scenario = tuple[str, str]
METRIC = "win_mass"
SCENARIOS = [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]
LATE = "late draft"
V2_SIZE = "v2: 0.718 vs 0.416 at hidden 256"


class Statement(NamedTuple):
    """What a version of the paper says, and our test of it."""

    paper: str
    claim: claims.Claim


def views(settings: Sequence[tuple[int, float]]) -> list[tuple[int, float, str]]:
    """All views of settings, which are pairs of K and the temperature."""
    return [(*setting, pairs) for setting in settings for pairs in ("all", "one")]


def seen(rows: Sequence[Row], view: tuple[int, float, str]) -> list[Row]:
    """The rows of a view; learners that see no pairs belong to both kinds."""
    candidates, temperature, pairs = view
    return [
        row
        for row in rows
        if (row["candidates"], row["temperature"]) == (candidates, temperature) and row["pairs"] in (pairs, "")
    ]


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[Statement]:
    """All claims, in the same order for every view, on the rows of one."""
    main = [row for row in rows if row["hidden"] == config.hidden]
    found = [*_anchoring(main), *_listwise(main), *_labels(main)]
    return found + [*_capacity(rows, min(config.capacity.hidden), max(config.capacity.hidden)), *_late(main)]


def best(rows: Sequence[Row], scenario: Scenario, methods: Sequence[str]) -> str:
    """The method with the highest mean WinMass in a scenario."""
    means = {m: np.mean([row[METRIC] for row in rows if _matches(row, scenario, m)]) for m in methods}
    return max(methods, key=lambda method: means[method])


def wins(
    rows: Sequence[Row], ours: str, theirs: str, scenarios: Sequence[Scenario], metric: str = METRIC
) -> list[bool]:
    """For each scenario whether the paired interval of ours - theirs lies above 0."""
    return [_greater("", rows, s, ours, theirs, metric).verdict == "reproduced" for s in scenarios]


def _anchoring(rows: Sequence[Row]) -> Iterator[Statement]:
    text = "(a) anchored dpo > dpo_noanchor"
    yield Statement("v1: anchoring +38..63 %", claims.counted(text, wins(rows, "dpo", "dpo_noanchor", SCENARIOS), 11))
    for ours in LISTWISE:
        for theirs in ("dpo_noanchor", "dpo"):
            held = wins(rows, ours, theirs, SCENARIOS)
            yield Statement("v2: +12..79 %, v6: +12..93 % over DPO", claims.counted(f"{ours} > {theirs}", held, 12))
    for paper, ours in (("v1: KDE 0.68 vs DPO 0.32", "list_kde"), ("v3-v5: ADPO 0.809 vs DPO 0.472", "list_raw")):
        text = f"cauchy, heavy: {ours} > dpo_noanchor"
        yield Statement(f"{paper}, heavy tails", _greater(text, rows, ("cauchy", "heavy"), ours, "dpo_noanchor"))


def _listwise(rows: Sequence[Row]) -> Iterator[Statement]:
    for paper, least, methods, among in (
        ("v2: listwise best in 9/12", 9, PREFERENCE, "the preference losses"),
        ("v6: listwise best in 11/12", 11, PREFERENCE, "the preference losses"),
        ("(ours)", 9, METHODS, "all losses"),
    ):
        first = [best(rows, scenario, methods) in LISTWISE for scenario in SCENARIOS]
        yield Statement(paper, claims.counted(f"(b) a listwise loss has the highest mean of {among}", first, least))


def _labels(rows: Sequence[Row]) -> Iterator[Statement]:
    heavy = [(corruption, "heavy") for corruption in CORRUPTIONS]
    held = wins(rows, "dpo", "soft", heavy)
    yield Statement("v2: hard labels better in severe noise", claims.counted("heavy: hard dpo > soft", held, 4))
    held = wins(rows, "dpo", "soft", _severities("shift"), "calibration_error")
    text = "shift: calibration error of hard dpo > soft"
    yield Statement("v2: soft labels better calibrated in shift", claims.counted(text, held, 3))


def _capacity(rows: Sequence[Row], small: int, large: int) -> Iterator[Statement]:
    """Does the gain of a list over pairs survive a larger network, at medium severity?"""
    noise, mean = ("heavy noise", "medium"), [(corruption, "medium") for corruption in CORRUPTIONS]
    for ours in LISTWISE:
        for name, scenarios in (("heavy noise", [noise]), ("mean of corruptions", mean)):
            gains = [_gain(rows, scenarios, hidden, ours, "dpo") for hidden in (large, small)]
            measured = mean_interval(gains[0] - gains[1])
            text = f"(c) {name}: {ours} - dpo at hidden {large} less that at {small}"
            kept = "not reproduced" if measured.high < 0 else "reproduced"
            yield Statement(V2_SIZE, claims.Claim(text, measured, "interval not below 0", kept))
    widest = [row for row in rows if row["hidden"] == large]
    for ours in LISTWISE:
        text = f"heavy noise, hidden {large}: {ours} > dpo_noanchor"
        yield Statement(V2_SIZE, _greater(text, widest, noise, ours, "dpo_noanchor"))
    for paper, method, higher, lower in (
        (f"{LATE}: listwise 0.558 -> 0.791", "list_raw", large, small),
        (f"{LATE}: PPO 0.772 -> 0.748", "ppo", small, large),
    ):
        cells = [{**_cell(noise, method), "hidden": hidden} for hidden in (higher, lower)]
        text = f"heavy noise: {method} at hidden {higher} > at {lower}"
        yield Statement(paper, claims.greater(text, rows, METRIC, *cells))


def _late(rows: Sequence[Row]) -> Iterator[Statement]:
    first = [best(rows, scenario, METHODS) == "trpo" for scenario in SCENARIOS]
    yield Statement(f"{LATE}: TRPO best in 8/12", claims.counted("(d) trpo has the highest mean of all", first, 8))
    for paper, ours, theirs, scenarios, prefix in (
        ("TRPO +2.5..10.6 % over DPO", "trpo", "dpo", SCENARIOS, "(d)"),
        ("PPO -8.8 % in shift", "dpo", "ppo", _severities("shift"), "(d) shift:"),
        ("list-raw +13.6 % in shift", "list_raw", "dpo", _severities("shift"), "shift:"),
        ("list-raw +9.3 % in flips", "list_raw", "dpo", _severities("adversarial"), "adversarial:"),
    ):
        held = wins(rows, ours, theirs, scenarios)
        yield Statement(f"{LATE}: {paper}", claims.counted(f"{prefix} {ours} > {theirs}", held, len(scenarios)))


def _greater(
    text: str, rows: Sequence[Row], scenario: Scenario, ours: str, theirs: str, metric: str = METRIC
) -> claims.Claim:
    return claims.greater(text, rows, metric, _cell(scenario, ours), _cell(scenario, theirs))


def _gain(rows: Sequence[Row], scenarios: Sequence[Scenario], hidden: int, ours: str, theirs: str) -> np.ndarray:
    """Ours - theirs by seed, the mean over scenarios."""
    found = []
    for scenario in scenarios:
        cells = ({**_cell(scenario, method), "hidden": hidden} for method in (ours, theirs))
        found.append(np.subtract(*claims.paired(rows, METRIC, *cells)))
    return np.mean(found, 0)


def _severities(corruption: str) -> list[Scenario]:
    return [(corruption, severity) for severity in SEVERITIES]


def _cell(scenario: Scenario, method: str) -> Row:
    return {"corruption": scenario[0], "severity": scenario[1], "method": method}


def _matches(row: Row, scenario: Scenario, method: str) -> bool:
    return (row["corruption"], row["severity"], row["method"]) == (*scenario, method)
