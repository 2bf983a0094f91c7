"""Reward against entropy in runs of the stage ``rl``: curves, the law R = -a exp(H) + b beside a line, and a report.

Everything is read from ``metrics.jsonl``: rows of training with ``reward`` and ``rollout_entropy``, the mean entropy of
the policy at the tokens that it drew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlx.errors import UserError
from rlx.policy.law import PerformanceLaw, entropy_performance_law
from rlx.report import tables
from rlx.report.entropy_page import draw, page
from rlx.report.rows import write_atomically

WINDOW = 20
"""Steps that a point of the fit is the mean of."""
EARLY = 0.36
"""Share of the steps from which the rest is predicted."""
FILES = ("entropy.png", "entropy.html", "entropy.md")


class Law(NamedTuple):
    """The fits to the moving averages of a run.

    Attributes:
      exponential: R = -a exp(H) + b.
      line: R = -a H + b.
      error: root mean square error of the exponential on the last 64 % of the steps, fitted to the first 36 %.
      line_error: the same of the line.
    """

    exponential: PerformanceLaw
    line: PerformanceLaw
    error: float
    line_error: float


class Curve(NamedTuple):
    """What a run of the stage ``rl`` went through.

    Attributes:
      name: of the run.
      steps: ``[N]`` at which it reported.
      reward: ``[N]``.
      entropy: ``[N]`` nats.
      covariance: ``[N]`` of log-probability and advantage; None where the method reports none.
      window: rows of a moving average.
      law: the fits, None where there is nothing to fit.
      note: why not.
    """

    name: str
    steps: np.ndarray
    reward: np.ndarray
    entropy: np.ndarray
    covariance: np.ndarray | None
    window: int
    law: Law | None
    note: str = ""

    def smooth(self, values: np.ndarray) -> np.ndarray:
        """Moving averages, ``[N - window + 1]``."""
        return moving_average(values, self.window)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Means of ``window`` values in a row: ``[N] -> [N - window + 1]``.

    >>> moving_average(np.array([1.0, 2.0, 6.0]), 2).tolist()
    [1.5, 4.0]
    """
    return np.convolve(values, np.ones(window) / window, mode="valid")


def fit(entropy: np.ndarray, reward: np.ndarray, window: int, early: float = EARLY) -> Law:
    """Fits both laws to moving averages, and predicts the later steps from the first ones.

    Args:
      entropy: ``[N]`` nats, in the order of the steps.
      reward: ``[N]``.
      window: rows of a moving average.
      early: share of the rows that the prediction is fitted to; no average of the fit reaches beyond them.

    Raises:
      UserError: too few rows, entropies that are all equal, or numbers that are not finite.
    """
    first = round(early * len(entropy))
    if first < window + 1:
        raise UserError(f"{len(entropy)} rows: the first {early:.0%} of them give less than two averages of {window}.")
    smooth, cut = (moving_average(entropy, window), moving_average(reward, window)), first - window + 1
    found = {}
    for name, feature in (("exponential", np.exp), ("line", np.positive)):
        found[name] = entropy_performance_law(*smooth, feature=feature)
        ahead = entropy_performance_law(smooth[0][:cut], smooth[1][:cut], feature=feature)
        missed = ahead(entropy[first:]) - reward[first:]
        found["error" if name == "exponential" else "line_error"] = float(np.sqrt(np.mean(np.square(missed))))
    return Law(**found)


def curve(rows: Sequence[Mapping[str, Any]], name: str) -> Curve:
    """The curve of a run from its rows of metrics.

    Raises:
      UserError: no row is of a stage that draws responses.
    """
    own = [row for row in rows if _tells(row)]
    if not own:
        stages = ", ".join(dict.fromkeys(row["stage"] for row in rows)) or "none"
        raise UserError(
            f"{name} has no rows with reward and rollout_entropy: only the stage 'rl' draws responses. Its stages: "
            f"{stages}."
        )
    steps, reward, entropy = (
        np.array([row[key] for row in own], float) for key in ("step", "reward", "rollout_entropy")
    )
    covariance = (
        np.array([row["covariance"] for row in own], float) if all("covariance" in row for row in own) else None
    )
    window = min(max(1, round(WINDOW * len(steps) / steps[-1])), len(steps))
    law, note = None, f"only {steps[-1]:.0f} steps: a fit needs averages over {WINDOW}."
    if steps[-1] > WINDOW:
        try:
            law, note = fit(entropy, reward, window), ""
        except UserError as error:
            note = str(error)
    return Curve(name, steps, reward, entropy, covariance, window, law, note)


def table(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """A row per run: where it starts and ends, the fits, and how often the covariance is above 0.

    The end is the last moving average; ``R2`` and ``error`` are of the exponential, the latter on the last 64 % of the
    steps from a fit to the first 36 %.
    """
    found = []
    for one in curves:
        row: dict[str, Any] = {"run": one.name, "steps": int(one.steps[-1])}
        for name, values in (("reward", one.reward), ("entropy", one.entropy)):
            row |= {f"first {name}": float(values[0]), f"last {name}": float(one.smooth(values)[-1])}
        if one.law is not None:
            law = one.law.exponential
            row |= {"a": law.a, "b": law.b, "R2": law.r_squared, "R2 of a line": one.law.line.r_squared}
            row |= {"error ahead": one.law.error, "of a line": one.law.line_error}
        if one.covariance is not None:
            row["Cov > 0"] = float(np.mean(one.covariance > 0))
        found.append(row)
    return found


def draws(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run has drawn responses.

    >>> draws([{"stage": "sft", "step": 1, "split": "train", "loss": 1.0}])
    False
    """
    return any(_tells(row) for row in rows)


def write_entropy_report(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], out: str | os.PathLike[str]
) -> list[dict[str, Any]]:
    """Writes ``entropy.png``, ``entropy.html`` (one file, to open as it is) and ``entropy.md``.

    Args:
      runs: rows of metrics by the name of the run.
      out: the folder, which is made.

    Returns:
      The table, a row per run.

    Raises:
      UserError: a run has drawn no responses.
    """
    curves = [curve(rows, name) for name, rows in runs.items()]
    found, notes = table(curves), [f"{one.name}: {one.note}" for one in curves if one.note]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".entropy.{os.getpid()}.png"
    draw(curves, temporary)
    picture = temporary.read_bytes()
    os.replace(temporary, folder / FILES[0])
    write_atomically(folder / FILES[1], page(found, notes, picture))
    text = "# Reward and entropy\n\n" + tables.markdown(found) + "".join(f"\n{note}\n" for note in notes)
    write_atomically(folder / FILES[2], text)
    return found


def _tells(row: Mapping[str, Any]) -> bool:
    return row["split"] == "train" and {"reward", "rollout_entropy"} <= {*row}
