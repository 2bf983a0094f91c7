"""The loop of one stage: steps, rows of metrics, evaluations, checkpoints, and a gentle stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from rlx import metrics
from rlx.data.dataset import Batches
from rlx.report.intervals import wilson_interval
from rlx.report.loggers import Loggers
from rlx.report.progress import Progress
from rlx.train import processes
from rlx.train.assemble import Stage
from rlx.train.guard import SKIPPED
from rlx.train.interrupts import Interrupts, Stopped
from rlx.train.state import TrainState
from rlx.train.watch import Watching

HostBatch = dict[str, np.ndarray]
Row = dict[str, float]
Saved = dict[str, tuple[str, list[float]]]
"""Metrics as JSON holds them."""


class Programs(NamedTuple):
    """What a stage runs, on host batches.

    Attributes:
      step: ``(state, batch) -> (state, metrics)``; the state is donated.
      evaluate: ``(state, batch) -> metrics``.
      held_out: the batches of an evaluation; called anew for each.
      speed: rates since the last row, for the progress line and ``speed.jsonl``; None measures none.
      total: from a number of this process's examples to that of all processes.
      begin: from a plain state to what ``step`` takes (:class:`rlx.train.updates.Updates`).
      plain: the way back, for evaluations and checkpoints.
      learnt: what the last step has learnt from, where that is not the batch it was given.
    """

    step: Callable[[TrainState, HostBatch], tuple[TrainState, Mapping[str, Any]]]
    evaluate: Callable[[TrainState, HostBatch], Mapping[str, Any]]
    held_out: Callable[[], Iterable[HostBatch]]
    speed: Callable[[], Row] | None = None
    total: Callable[[int], int] = lambda own: own
    learnt: Callable[[], HostBatch] | None = None
    begin: Callable[[TrainState], TrainState] = lambda state: state
    plain: Callable[[TrainState], TrainState] = lambda state: state


class Outlets(NamedTuple):
    """Where a stage reports to.

    Attributes:
      loggers: rows of metrics.
      save: ``(step, state, iterator state, window, last evaluation, whether the stage has ended early) ->
        None``: a checkpoint.
      interrupts: wishes to stop.
      stop: ``(stage, step) -> bool`` after every step: whether to save and stop; None never does.
      watch: what is done about a loss that is not finite.
      speed: ``(step, stage, rates) -> None``: rates, apart from the metrics, which two equal runs share to the bit.
      agree: a wish to stop of this process -> that of all (:mod:`rlx.train.agreement`).
    """

    loggers: Loggers
    save: Callable[[int, TrainState, dict[str, Any], dict[str, Any], Row, bool], None]
    interrupts: Interrupts
    stop: Callable[[str, int], bool] | None
    watch: Watching
    speed: Callable[[int, str, Row], None] = lambda step, stage, rates: None
    agree: Callable[[str], str] = lambda wish: wish


class Window:
    """The metrics since the last row, merged on the host in double precision, so that a checkpoint can hold them.

    The metrics of the latest step stay on the device until the next one is under way.
    """

    def __init__(self, stage: str, watch: Watching, saved: Saved | None = None):
        self.stage, self.watch = stage, watch
        self.totals = {name: metrics.KINDS[kind](*parts) for name, (kind, parts) in (saved or {}).items()}
        self._latest: tuple[int, Mapping[str, Any], HostBatch] | None = None

    def push(self, step: int, found: Mapping[str, Any], batch: HostBatch) -> None:
        """Adds the metrics of a step, and what it has learnt from."""
        self.settle()
        self._latest = step, found, batch

    def settle(self) -> None:
        """Waits for the latest step; a loss or gradient that is not finite ends the run before anything is saved.

        Raises:
          UserError: the loss or the norm of the gradient is NaN or infinite.
        """
        if self._latest is None:
            return
        (step, latest, batch), self._latest = self._latest, None
        found = jax.device_get(dict(latest))
        self.watch(self.stage, step, found, batch)
        add(self.totals, found)

    def take(self) -> Row:
        """The values since the last row, and a new start."""
        self.settle()
        row, self.totals = row_of(self.totals), {}
        if row.get(SKIPPED) == 1.0:  # there is no loss: a mean of nothing says 0
            row |= {"loss": math.nan, "grad_norm": math.nan}
        return row

    def saved(self) -> Saved:
        """What a checkpoint holds: the kind of each metric and its parts."""
        return {name: (type(metric).__name__, [*metric]) for name, metric in self.totals.items()}


def add(totals: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Merges metrics into running ones, as Python numbers."""
    totals |= metrics.merge(totals, {name: type(metric)(*map(float, metric)) for name, metric in found.items()})


def row_of(totals: Mapping[str, Any]) -> Row:
    """The values, in the order of the names; an extreme of nothing is left out.

    >>> row_of({"loss": metrics.Mean(3.0, 2.0), "accuracy": metrics.Mean(0.0, 0.0)})
    {'accuracy': 0.0, 'loss': 1.5}
    """
    found = {name: float(metric.value) for name, metric in sorted(totals.items())}
    empty = [name for name, metric in totals.items() if len(metric) == 1 and math.isinf(metric.value)]
    return {name: value for name, value in found.items() if name not in empty}


def evaluate(
    run: Callable[[HostBatch], Mapping[str, Any]],
    batches: Iterable[HostBatch],
    total: Callable[[int], int] = lambda own: own,
) -> Row:
    """The means over a held-out set; accuracies carry the ends of their 95 % Wilson interval.

    Args:
      run: the metrics of a batch.
      batches: each example once, filled up with rows in which no candidate is real.
      total: see :class:`Programs`.

    Returns:
      The metrics, accuracies first, and ``examples``; nothing when there are no batches.
    """
    totals: dict[str, Any] = {}
    examples = 0
    for batch in batches:
        add(totals, jax.device_get(dict(run(batch))))
        examples += int(batch["candidate_where"].any(-1).sum())
    if not totals:
        return {}
    row: Row = {}
    found = row_of(totals)
    for name in sorted(found, key=lambda name: ("accuracy" not in name, name != "loss", name)):
        row[name] = found[name]
        if name.endswith("accuracy"):
            interval = wilson_interval(totals[name].sum, round(totals[name].count))
            row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row | {"examples": total(examples)}


def run_stage(
    stage: Stage,
    programs: Programs,
    outlets: Outlets,
    state: TrainState,
    batches: Batches,
    *,
    done: int = 0,
    window: Saved | None = None,
    last: Row | None = None,
) -> tuple[TrainState, Row]:
    """Runs a stage from step ``done`` to its end.

    Args:
      stage: the stage.
      programs: its compiled functions.
      outlets: where it reports to.
      state: where it starts; it is consumed.
      batches: where it reads, already at the right place.
      done: steps behind ``state``.
      window: metrics since the last row, of the checkpoint.
      last: the last evaluation, of the checkpoint.

    Returns:
      The last state, and the last evaluation (of the last training row where nothing is held out).

    Raises:
      Stopped: a signal or ``outlets.stop`` ended it early; a checkpoint is there.
      UserError: the loss is not finite.
    """
    s, row, trained = stage.settings, dict(last or {}), {}
    open_window = Window(stage.name, outlets.watch, window)
    with Progress(s.steps, done=done, label=stage.name, stream=processes.stderr()) as progress:
        state = programs.begin(state)
        for step in range(done + 1, s.steps + 1):
            batch = next(batches)
            state, found = programs.step(state, batch)
            open_window.push(step, found, programs.learnt() if programs.learnt else batch)
            final = step == s.steps
            if final or step % s.log_every == 0:
                trained = open_window.take()
                final = final or (s.until_loss is not None and trained["loss"] < s.until_loss)
                outlets.loggers.write(step, stage.name, "train", trained)
                rates = programs.speed() if programs.speed else {}
                if rates:
                    outlets.speed(step, stage.name, rates)
                progress.update(step, _note(trained, rates))
            if final or _due(step, s.eval_every):
                open_window.settle()
                held = evaluate(partial(programs.evaluate, programs.plain(state)), programs.held_out(), programs.total)
                if held:
                    outlets.loggers.write(step, stage.name, "eval", held)
                row = held or row
            if final and not row:
                row = trained
            asked = _asked(outlets, stage.name, step)
            if final or asked or _due(step, s.checkpoint_every):
                open_window.settle()
                plain, early = programs.plain(state), final and step < s.steps
                outlets.save(step, plain, batches.get_state(), open_window.saved(), row, early)
            if asked:
                raise Stopped(
                    f"{asked}: saved step {step} of the stage {stage.name!r}; the same command goes on from it."
                )
            if final:
                break
    return programs.plain(state), row


def _note(row: Row, rates: Row) -> str:
    """What the progress line says of a row."""
    shown = {name: f"{row[name]:.4g}" for name in ("loss", "reward", "rollout_entropy") if name in row}
    shown |= {name.removesuffix("_per_s"): f"{value:.0f}/s" for name, value in rates.items()}
    return " ".join(f"{name} {value}" for name, value in shown.items())


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _asked(outlets: Outlets, stage: str, step: int) -> str:
    """Why to stop now, or an empty string."""
    wished = outlets.stop is not None and outlets.stop(stage, step)
    return outlets.agree("stop" if wished else outlets.interrupts.requested)
