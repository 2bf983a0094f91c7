"""What the papers say of self-play on random games, tested on the rows of experiments/nash_games.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import claims
from experiments.nash_games_play import COMPARED, EXACT, SAMPLED

Row = Mapping[str, Any]
Tested = tuple[claims.Claim, str]

EGPO = "arXiv:2503.08942: EGPO's last iterate converges linearly in the regularised game"
FASTER = "arXiv:2503.08942: earlier methods lack that guarantee; its curves fall faster (numbers not read)"
NOISE = "arXiv:2503.08942: robust to noise; empirical gradients of 100 samples (numbers not read)"
STEP = "arXiv:2503.08942: a gradient step on the loss is the step in closed form (numbers: ours)"
SPPO = "arXiv:2405.00675: the minimum of the SPPO loss is the update of multiplicative weights"
AVERAGE = "arXiv:2401.04056, 2405.00675: self-play without a reference converges on average, not in the last iterate"
INPO = "arXiv:2407.00617: the minimum of the INPO loss is the mirror-descent update"
MNPO = "arXiv:2509.23102: INPO is the case of one opponent; a population keeps the equilibrium"
FLOOR = "ours: within a factor 3 of the exact version at the same setting"


def tested(
    settings: Sequence[Mapping[str, Any]], sampled: Sequence[Mapping[str, Any]], rows: Sequence[Row]
) -> list[Tested]:
    """Every claim with the statement it tests, in the order of the settings."""
    found: list[Tested] = []
    plain = {(setting["step_size"], setting["steps"]): setting for setting in settings}  # beta does not enter
    for setting in settings:
        found += _speed(setting, rows) + _order(setting, rows) + _agreement(setting, rows) + _opponents(setting, rows)
    for setting in plain.values():
        found += _plain(setting, rows)
    for setting in sampled:
        found += _samples(setting, rows)
    return found


def _cell(part: str, setting: Mapping[str, Any], method: str) -> dict[str, Any]:
    return {"part": part, **setting, "method": method}


def _title(setting: Mapping[str, Any]) -> str:
    return f"beta {setting['beta']:g}, step {setting['step_size']:g}, {setting['steps']} steps"


def _speed(setting: Mapping[str, Any], rows: Sequence[Row]) -> list[Tested]:
    """Linear convergence, and at which rate."""
    egpo, omd = (_cell(EXACT, setting, method) for method in ("egpo", "online_ipo_omd"))
    line = f"{_title(setting)}: log gap of egpo is a line until 1e-10 (R2)"
    steeper = f"{_title(setting)}: decay per step of egpo > that of online_ipo_omd"
    return [
        (claims.every(line, rows, "r2", egpo, low=0.98), EGPO),
        (claims.greater(steeper, rows, "rate", egpo, omd), FASTER),
    ]


def _order(setting: Mapping[str, Any], rows: Sequence[Row]) -> list[Tested]:
    """Gaps at the end, where they are not yet rounding: their means, and their ratio, as they span many decades."""
    order = [("egpo", "nash_md")]
    if setting["beta"] < 0.1:
        order += [("egpo", "online_ipo_omd"), ("online_ipo_omd", "sppo")]
    found = []
    for ours, theirs in order:
        pair = _cell(EXACT, setting, ours), _cell(EXACT, setting, theirs)
        text = f"{_title(setting)}: gap of {ours} < that of {theirs}"
        found.append((claims.greater(text, rows, "gap", *pair[::-1]), FASTER))
        found.append((claims.ratio_within(f"{text} (ratio)", rows, "gap", *pair, 0.0, 1.0), FASTER))
    return found


def _plain(setting: Mapping[str, Any], rows: Sequence[Row]) -> list[Tested]:
    """Self-play without a reference."""
    title = f"no reference, step {setting['step_size']:g}, {setting['steps']} steps"
    cell, found = _cell(EXACT, setting, "sppo"), []
    for metric, policy in (("plain_average", "average"), ("plain_last", "last")):
        text = f"{title}: exploitability of the {policy} policy of sppo"
        bounds = {"high": 0.02} if policy == "average" else {"low": 0.02}
        found.append((claims.mean_within(text, rows, metric, cell, **bounds), AVERAGE))
    text = f"{title}: the loss of sppo plays multiplicative weights (largest difference of a probability)"
    return [*found, (claims.every(text, rows, "twin_error", cell, high=1e-5), SPPO)]


def _agreement(setting: Mapping[str, Any], rows: Sequence[Row]) -> list[Tested]:
    """Losses against closed forms, along the whole trajectory."""
    title = _title(setting)
    twins = {
        "online_ipo_omd": "mirror descent",
        "inpo": "mirror descent",
        "egpo": "extragradient",
        "nash_md": "Nash-MD",
    }
    found = []
    for method, twin in twins.items():
        text = f"{title}: the loss of {method} plays {twin} (largest difference of a probability)"
        claim = claims.every(text, rows, "twin_error", _cell(EXACT, setting, method), high=1e-5)
        found.append((claim, INPO if method == "inpo" else STEP))
    text = f"{title}: mnpo whose one opponent is the last policy plays inpo (largest difference)"
    return [*found, (claims.every(text, rows, "twin_error", _cell(EXACT, setting, "mnpo, last 1"), high=1e-6), MNPO)]


def _opponents(setting: Mapping[str, Any], rows: Sequence[Row]) -> list[Tested]:
    """A history keeps the equilibrium: distance of the last policy from the one that the solver finds."""
    found = []
    for method in ("mnpo, last 2 as 2:1", "mnpo, last 2", "mnpo, last 3"):
        text = f"{_title(setting)}: {method} ends at the equilibrium (largest difference of a probability)"
        found.append((claims.every(text, rows, "distance", _cell(EXACT, setting, method), high=1e-6), MNPO))
    return found


def _samples(setting: Mapping[str, Any], rows: Sequence[Row]) -> list[Tested]:
    """What noise leaves of the gap, and whether the order of the methods stays."""
    title, found = f"{_title(setting)}, sampled", []
    for method in ("egpo", "online_ipo_omd", "nash_md"):
        noisy, exact = _cell(SAMPLED, setting, method), _cell(COMPARED, setting, method)
        text = f"{title}: gap of {method} over the last tenth against that of the exact version"
        found.append((claims.ratio_within(text, rows, "floor", noisy, exact, 0.0, 3.0), FLOOR))
    egpo, omd = (_cell(SAMPLED, setting, method) for method in ("egpo", "online_ipo_omd"))
    text = f"{title}: gap of egpo over the last tenth < that of online_ipo_omd"
    return [*found, (claims.greater(text, rows, "floor", omd, egpo), NOISE)]
