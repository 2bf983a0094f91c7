"""Measures of a run, and the claims of the comparison, from rows alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import claims, parts
from experiments.entropy_law_claims import GAIN, LAW, LINE, METHODS, fits
from experiments.parts import Row
from rlx.report import entropy as law

GRPO, AEPO = "grpo", "aepo_"
ENDS = ("start_reward", "reward", "gain", "start_entropy", "entropy", "fall")
FITS = ("a", "b", "r2_exp", "r2_line", "rmse_exp", "rmse_line", "positive", "correlation", "jump", "miss")
LEARNS = "our bar: GRPO learns sums, by 0.35 from at most 0.2"
COVARIANCE = "covariance stays positive and drives the entropy (arXiv:2505.22617)"
TARGET = "the entropy is held at any target, under GRPO it collapses (arXiv:2510.08141)"
STEER = "entropy changes less in a step, and reward does not suffer (arXiv:2510.10150)"


def measures(rows: Sequence[Mapping[str, Any]], method: str, config: ConfigDict) -> Row:
    """What is reported of a run, from its rows of training metrics, one for every step.

    Ends are means over the last steps, as many as the moving averages of the fits have; the start is the first step,
    before any update. ``jump`` is the 95th percentile of the change of entropy from a step to the next, ``miss`` the
    mean distance from the target over the last half of the steps, as a share of the target.
    """
    reward, entropy, covariance = (
        np.array([row[name] for row in rows]) for name in ("reward", "rollout_entropy", "covariance")
    )
    found, window = law.fit(entropy, reward, config.window), config.window
    ends = {"reward": reward[-window:].mean(), "entropy": entropy[-window:].mean()}
    change, shown = np.diff(entropy), np.linspace(0, len(rows) - window, config.points).astype(int)
    smooth = {"entropy": entropy, "reward": reward}
    numbers = {
        "start_reward": reward[0],
        "start_entropy": entropy[0],
        **ends,
        "gain": ends["reward"] - reward[0],
        "fall": 1 - ends["entropy"] / entropy[0],
        "a": found.exponential.a,
        "b": found.exponential.b,
        "r2_exp": found.exponential.r_squared,
        "r2_line": found.line.r_squared,
        "rmse_exp": found.error,
        "rmse_line": found.line_error,
        "positive": (covariance > 0).mean(),
        "correlation": correlation(-covariance[:-1], change),
        "jump": np.quantile(np.abs(change), 0.95),
    }
    if method.startswith(AEPO):
        target = target_of(method)
        numbers["miss"] = np.abs(entropy[len(rows) // 2 :] - target).mean() / target
    points = {name: law.moving_average(values, window)[shown].tolist() for name, values in smooth.items()}
    return {**{k: float(v) for k, v in numbers.items()}, "curve": {"step": (shown + window // 2).tolist(), **points}}


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; 0 where one of the two does not vary.

    >>> correlation(np.array([0.0, 1.0]), np.array([1.0, 3.0])), correlation(np.zeros(2), np.ones(2))
    (1.0, 0.0)
    """
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else 0.0


def target_of(method: str) -> float:
    """The entropy that AEPO is to hold (nats).

    >>> target_of("aepo_0.5")
    0.5
    """
    return float(method.removeprefix(AEPO))


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """The claims of the papers, and the rewards at equal steps, which have no pass mark."""
    return [*_of_grpo(rows), *_of_control(config, rows), *_of_rewards(config, rows)]


def _of_grpo(rows: Sequence[Row]) -> list[parts.Tested]:
    """Learning, the law and the covariance, in runs without entropy control."""
    grpo, own = {"method": GRPO}, [row for row in rows if row["method"] == GRPO]
    return [
        (claims.every("grpo: reward at the start, worst seed", rows, "start_reward", grpo, high=0.2), LEARNS),
        (claims.mean_within("grpo: rise of the reward", rows, "gain", grpo, low=0.35), LEARNS),
        (claims.every("grpo: R2 of the law, worst seed", rows, "r2_exp", grpo, low=0.9), LAW),
        (claims.every("grpo: error on the last 64 %, worst seed", rows, "rmse_exp", grpo, high=0.1), LAW),
        (
            claims.greater(
                "grpo: R2 of the exponential > of the line", fits(own), "r2", {"fit": "exp"}, {"fit": "line"}
            ),
            LINE,
        ),
        (claims.every("grpo: share of steps with Cov > 0, worst seed", rows, "positive", grpo, low=0.9), COVARIANCE),
        (
            claims.mean_within("grpo: correlation of -Cov and change of entropy", rows, "correlation", grpo, low=0.5),
            COVARIANCE,
        ),
        (claims.every("grpo: share of the entropy that is lost, worst seed", rows, "fall", grpo, low=0.5), TARGET),
    ]


def _of_control(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """What each method promises of the entropy."""
    grpo, found = {"method": GRPO}, []
    for name in ("clip_cov", "kl_cov"):
        found.append(
            (claims.greater(f"final entropy of {name} > grpo", rows, "entropy", {"method": name}, grpo), METHODS)
        )
    for name in (name for name in config.methods if name.startswith(AEPO)):
        text = f"{name}: |H - target| over the last half, share of the target"
        found.append((claims.mean_within(text, rows, "miss", {"method": name}, high=0.15), TARGET))
    steer = {"method": "steer"}
    text = "95th percentile of a step's change of entropy: grpo > steer"
    return [
        *found,
        (claims.greater(text, rows, "jump", grpo, steer), STEER),
        (claims.greater("final entropy of steer > grpo", rows, "entropy", steer, grpo), STEER),
        (claims.not_less("final reward of steer >= grpo", rows, "reward", steer, grpo, by=0.02), STEER),
    ]


def _of_rewards(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    return [
        (claims.greater(f"final reward of {name} > grpo", rows, "reward", {"method": name}, {"method": GRPO}), GAIN)
        for name in config.methods
        if name != GRPO
    ]
