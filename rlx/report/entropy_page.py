"""The picture of reward against entropy, and the page around it."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlx.report import plots, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rlx.report.entropy import Curve

STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
img { width: 100% } table { border-collapse: collapse } div { overflow-x: auto }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }"""
LEGEND = (
    "Reward over entropy as moving averages over 20 steps, and dashed the least-squares fit of R = -a exp(H) + b "
    "(arXiv:2505.22617). R2 is that of the fit, beside that of a line in H: do not read an exponential into a curve "
    "that a line fits as well. Error ahead: root mean square error on the last 64 % of the steps, predicted from the "
    "first 36 %. Cov > 0: share of the steps in which log-probability and advantage of the tokens vary together, "
    "which training turns into a loss of entropy. H is the entropy of the policy in nats, the mean over drawn tokens."
)

UNITS = {"entropy": "entropy (nats)", "covariance": "covariance of log-probability and advantage"}


def draw(curves: Sequence[Curve], path: str | os.PathLike[str], title: str = "Reward and entropy") -> None:
    """Draws reward over entropy with the fits, and reward, entropy and covariance over the steps."""
    moving = [one for one in curves if one.covariance is not None]
    figure, axes = plots.blank(4 if moving else 3, title, height=3.8)
    for i, one in enumerate(curves):
        style = {"color": plots.COLOURS[i % 7], "linewidth": 1.4, "label": one.name}
        axes[0].plot(one.smooth(one.entropy), one.smooth(one.reward), **style)
        _fitted(axes[0], one, plots.COLOURS[i % 7])
        _over_steps(axes[1], one, one.reward, style)
        _over_steps(axes[2], one, one.entropy, style)
        if one.covariance is not None:
            _over_steps(axes[3], one, one.covariance, style)
    axes[0].set(title="reward over entropy, dashed: R = -a exp(H) + b", xlabel="entropy (nats)", ylabel="reward")
    axes[0].invert_xaxis()  # training goes from left to right
    axes[0].legend(frameon=False, fontsize="small")
    for axis, name in zip(axes[1:], ("reward", "entropy", "covariance"), strict=False):
        axis.set(title=f"{name} over the steps", xlabel="step", ylabel=UNITS.get(name, name))
    if moving:
        axes[3].axhline(0, color="0.6", linewidth=0.8, linestyle=":")
    plots.save(figure, path)


def _over_steps(axis: Axes, one: Curve, values: np.ndarray, style: Mapping[str, Any]) -> None:
    """A moving average at the middle of its window, and faintly what it is the average of."""
    axis.plot(one.steps, values, color=style["color"], alpha=0.2, linewidth=0.6)
    axis.plot(np.convolve(one.steps, np.ones(one.window) / one.window, mode="valid"), one.smooth(values), **style)


def _fitted(axis: Axes, one: Curve, colour: str) -> None:
    if one.law is not None:
        smooth = one.smooth(one.entropy)
        shown = np.linspace(smooth.min(), smooth.max(), 50)
        axis.plot(shown, one.law.exponential(shown), color=colour, linewidth=1, linestyle="--", alpha=0.8)


def page(rows: Sequence[Mapping[str, Any]], notes: Sequence[str], picture: bytes) -> str:
    """One HTML file with table and picture in it."""
    columns = tables.columns_of(rows)
    header = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(tables.text(row.get(name)))}</td>" for name in columns) + "</tr>"
        for row in rows
    ]
    body = [
        "<h1>Reward and entropy</h1>",
        f'<img alt="Curves of the runs" src="data:image/png;base64,{base64.b64encode(picture).decode()}">',
        f"<p>{LEGEND}</p>",
        f"<div><table><tr>{header}</tr>\n{chr(10).join(lines)}</table></div>",
        *(f"<p>{html.escape(note)}</p>" for note in notes),
    ]
    head = f'<meta charset="utf-8"><title>Reward and entropy</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"
