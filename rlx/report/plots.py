"""Plots from rows: metrics over steps, and cells with intervals as bars or over a numeric axis.

matplotlib is imported when a figure is drawn, and used without pyplot: no display, no global state.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlx.errors import one_line
from rlx.report.intervals import Interval
from rlx.report.rows import RESERVED
from rlx.report.tables import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # told apart by all eyes
MARKERS = "osD^vPX"
LONGEST_LABEL = 100
TELLING = ("loss", "reward_accuracy", "reward_margin", "nll", "entropy", "grad_norm")
"""What a reader looks for first."""


def curves(rows: Sequence[Row], path: str | os.PathLike[str], *, title: str = "", metrics: Sequence[str] = ()):
    """Draws one panel per metric over the steps, stages one after another, train as lines and eval with dots.

    A metric with companions ``_low`` and ``_high`` gets a band.

    Args:
      rows: rows of ``metrics.jsonl``, in order.
      path: the PNG to write.
      title: above the figure.
      metrics: names of the metrics, in order; the nine that tell most unless given (:func:`plottable`).
    """
    chosen = list(metrics) or plottable(rows)[:9]
    offsets = _stage_offsets(rows)
    splits = list(dict.fromkeys(row["split"] for row in rows))
    figure, axes = blank(len(chosen), title)
    for axis, metric in zip(axes, chosen, strict=False):
        for i, split in enumerate(splits):
            _curve(axis, [row for row in rows if row["split"] == split], metric, offsets, i)
        for start in list(offsets.values())[1:]:
            axis.axvline(start, color="0.6", linewidth=0.8, linestyle=":")
        axis.set(title=metric, ylabel=metric, xlabel=f"step ({', then '.join(offsets)})")
        axis.legend(frameon=False, fontsize="small")
    last = max((offsets[row["stage"]] + row["step"] for row in rows), default=1)
    for axis in axes:
        axis.set_xlim(-0.03 * last, 1.03 * last)
    save(figure, path)


def plottable(rows: Sequence[Row]) -> list[str]:
    """The metrics of which some row holds a finite number: the telling ones, those of eval rows, the others.

    Ends of intervals and counts of examples, which move nothing, are left out.

    >>> plottable([{"stage": "sft", "step": 1, "split": "train", "kl": 0.1, "loss": 1.0, "rate": float("nan")}])
    ['loss', 'kl']
    """
    ordered = sorted(rows, key=lambda row: row["split"] == "train")
    names = dict.fromkeys(key for row in ordered for key, value in row.items() if _finite(value))
    found = [name for name in names if name not in (*RESERVED, "examples") and not is_companion(name, names)]
    return sorted(found, key=lambda name: TELLING.index(name) if name in TELLING else len(TELLING))


def is_companion(name: str, names: Mapping[str, Any] | Sequence[str]) -> bool:
    """Whether the metric is the end of another one's interval.

    >>> is_companion("accuracy_low", ["accuracy", "accuracy_low"]), is_companion("kl_low", ["kl_low"])
    (True, False)
    """
    return any(name.endswith(end) and name.removesuffix(end) in names for end in ("_low", "_high"))


def cells(
    rows: Sequence[Row],
    path: str | os.PathLike[str],
    *,
    by: Sequence[str],
    metrics: Sequence[str],
    title: str = "",
):
    """Draws one panel per metric with its interval in every cell.

    Where a key of `by` is numeric with at least three values, it becomes the horizontal axis, and the others
    name the lines; otherwise every cell is a bar.

    Args:
      rows: as `rlx.report.tables.summarise` returns them.
      path: the PNG to write.
      by: the keys that tell cells apart.
      metrics: the keys that hold an `Interval`.
      title: above the figure.
    """
    panels([(metric, rows, by, metric) for metric in metrics], path, title=title)


def panels(
    shown: Sequence[tuple[str, Sequence[Row], Sequence[str], str]], path: str | os.PathLike[str], *, title: str = ""
):
    """Draws panels of different rows, each as :func:`cells` draws its own.

    Args:
      shown: (title, rows, by, metric) of every panel.
      path: the PNG to write.
      title: above the figure.
    """
    axis_keys = [_numeric_axis(rows, by) for _, rows, by, _ in shown]
    bars = [len(rows) for (_, rows, *_), key in zip(shown, axis_keys, strict=True) if key is None]
    lowest = [3.4] if len(bars) < len(shown) else [2.0]
    figure, axes = blank(len(shown), title, height=max(lowest + [0.9 + 0.32 * count for count in bars]))
    for axis, (heading, rows, by, metric), axis_key in zip(axes, shown, axis_keys, strict=False):
        others = [key for key in by if key != axis_key]
        present = [row for row in rows if isinstance(row.get(metric), Interval) and _finite(row[metric].mean)]
        if axis_key is None:
            _bars(axis, present, metric, others)
        else:
            _lines(axis, present, metric, axis_key, others)
        axis.set_title(heading)
    save(figure, path)


def _curve(axis: Axes, rows: Sequence[Row], metric: str, offsets: Mapping[str, int], i: int) -> None:
    """One split of one metric; the line breaks between stages."""
    style = {"color": COLOURS[i % 7], "linewidth": 1.4}
    name = rows[0]["split"] if rows else None
    for stage, offset in offsets.items():
        kept = [row for row in rows if row["stage"] == stage and _finite(row.get(metric))]
        if not kept:
            continue
        steps = [offset + row["step"] for row in kept]
        dots = {"marker": MARKERS[i % 7], "markersize": 4} if name != "train" or len(kept) == 1 else {}
        labelled = any(line.get_label() == name for line in axis.lines)
        axis.plot(steps, [row[metric] for row in kept], label=None if labelled else name, **style, **dots)
        ends = [(row.get(f"{metric}_low"), row.get(f"{metric}_high")) for row in kept]
        if all(_finite(low) and _finite(high) for low, high in ends):
            lows, highs = zip(*ends, strict=True)
            axis.fill_between(steps, lows, highs, color=style["color"], alpha=0.2, linewidth=0)


def _stage_offsets(rows: Sequence[Row]) -> dict[str, int]:
    """Where each stage begins when the stages are drawn one after another."""
    offsets: dict[str, int] = {}
    start = 0
    for stage in dict.fromkeys(row["stage"] for row in rows):
        offsets[stage] = start
        start += max(row["step"] for row in rows if row["stage"] == stage)
    return offsets


def _bars(axis: Axes, rows: Sequence[Row], metric: str, keys: Sequence[str]) -> None:
    names = [label(row, keys) for row in rows]
    positions = range(len(rows))
    kinds = list(dict.fromkeys(text(row.get(keys[0])) for row in rows)) if keys else [""]
    colours = [COLOURS[kinds.index(text(row.get(keys[0]))) % 7] if keys else COLOURS[0] for row in rows]
    means = [row[metric].mean for row in rows]
    errors = _errors(rows, metric)
    axis.barh(positions, means, xerr=errors, color=colours, alpha=0.75, capsize=3)
    axis.set_yticks(positions, names)
    axis.invert_yaxis()
    axis.set_xlabel(metric if errors is None else f"{metric} (mean, 95 % interval)")


def _lines(axis: Axes, rows: Sequence[Row], metric: str, axis_key: str, keys: Sequence[str]) -> None:
    groups = dict.fromkeys(label(row, keys) for row in rows)
    values = sorted({row[axis_key] for row in rows})
    logarithmic = bool(values) and values[0] > 0 and values[-1] / values[0] >= 50
    for i, name in enumerate(groups):
        group = sorted((row for row in rows if label(row, keys) == name), key=lambda row: row[axis_key])
        # neighbouring intervals side by side, well short of the next place on the axis
        shift = min(0.012, 0.1 / len(groups), 0.4 / (len(groups) * len(values))) * (i - (len(groups) - 1) / 2)
        span = values[-1] / values[0] if logarithmic else values[-1] - values[0]
        places = [row[axis_key] * span**shift if logarithmic else row[axis_key] + shift * span for row in group]
        means = [row[metric].mean for row in group]
        style = {"color": COLOURS[i % 7], "marker": MARKERS[i % 7], "markersize": 4, "linewidth": 1.4}
        style |= {"linestyle": ("-", "--", ":")[i // 7 % 3]}  # a second round of colours is dashed
        axis.errorbar(places, means, yerr=_errors(group, metric), capsize=3, label=name, **style)
    if logarithmic:
        axis.set_xscale("log")
    single = _errors(rows, metric) is None
    axis.set(xlabel=axis_key, ylabel=metric if single else f"{metric} (mean, 95 % interval)")
    if any(groups):
        many = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if len(groups) > 7 else {}  # beside, not on the lines
        axis.legend(frameon=False, fontsize="small", **many)


def _errors(rows: Sequence[Row], metric: str) -> list[list[float]] | None:
    """Lengths of the whiskers, 0 where a cell has one run alone; None where all have."""
    ends = [(row[metric].mean - row[metric].low, row[metric].high - row[metric].mean) for row in rows]
    if not any(math.isfinite(end) for side in ends for end in side):
        return None
    return [[end if math.isfinite(end) else 0.0 for end in side] for side in zip(*ends, strict=True)]


def label(row: Row, keys: Sequence[str]) -> str:
    """What a cell is called: a lone key needs no name.

    >>> label({"method.name": "dpo", "method.beta": 0.1}, ["method.name", "method.beta"])
    'dpo, beta=0.1'
    """
    parts = []
    for key in keys:
        value, last = row.get(key), key.split(".")[-1]
        named = last == "name" or len(keys) == 1 or not isinstance(value, int | float)
        parts.append(text(value) if named else f"{last}={text(value)}")
    return one_line(", ".join(part for part in parts if part), LONGEST_LABEL).replace("$", r"\$")


def _numeric_axis(rows: Sequence[Row], by: Sequence[str]) -> str | None:
    counts = {}
    for key in by:
        values = [row.get(key) for row in rows]
        if all(_finite(value) for value in values):
            counts[key] = len(set(values))
    best = max(counts, key=lambda key: counts[key], default=None)
    return best if best is not None and counts[best] >= 3 else None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def blank(count: int, title: str, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` empty panels, and these."""
    from matplotlib.figure import Figure

    columns = 1 if count <= 1 else 2 if count <= 4 else 3
    lines = max(1, math.ceil(count / columns))
    figure = Figure(figsize=(5.0 * columns, height * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[count:]:
        axis.set_axis_off()
    figure.suptitle(title, fontweight="bold")
    return figure, axes[:count]


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG; words in it are no formulas, and not longer than there is room for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for words in figure.findobj(Text):
        assert isinstance(words, Text)
        if words.get_text():  # ticks are written later: those of logarithmic axes are formulas
            words.set_text(words.get_text()[: 2 * LONGEST_LABEL])
            words.set_parse_math(False)

    FigureCanvasAgg(figure).print_figure(path, dpi=120)
