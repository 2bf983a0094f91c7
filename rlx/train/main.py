"""The run of a config: its stages in order, resumed where a checkpoint is, reported at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlx import config as configs
from rlx.data import pipeline
from rlx.data.dataset import Dataset
from rlx.errors import UserError
from rlx.method import Shapes
from rlx.report import tables
from rlx.report.loggers import open_loggers
from rlx.report.rows import truncate
from rlx.report.run_report import write_report
from rlx.train import reference
from rlx.train.assemble import Run, Stage, assemble
from rlx.train.checkpoint import Checkpoints
from rlx.train.interrupts import Interrupts, Stopped
from rlx.train.loop import HostBatch, Outlets, Programs, Row, run_stage
from rlx.train.sharding import put_batch
from rlx.train.state import TrainState, create_state
from rlx.train.step import make_eval_step, make_score, make_train_step
from rlx.train.workdir import CHECKPOINTS, METRICS, Workdir, use_compilation_cache, versions

USAGE = """python -m rlx.train --config=FILE.py[:ARG] --workdir=DIR [--config.KEY.KEY=VALUE ...] [--force]

Trains what get_config(ARG) of the config file describes, stage by stage, and writes config.json, metrics.jsonl,
table.md, table.csv, plot.png, result.json and checkpoints/ into DIR. The same command goes on where an interrupted
run stopped; SIGTERM and Ctrl-C save first. --force goes on with a config that differs from the one in DIR.
"""

Stop = Callable[[str, int], bool]


def train(
    config: Mapping[str, Any], workdir: str | os.PathLike[str], *, stop: Stop | None = None, force: bool = False
) -> dict[str, float]:
    """Trains what a config describes, or goes on where the work directory's last checkpoint is.

    Args:
      config: a ConfigDict or nested dicts; see :mod:`rlx.train.settings`.
      workdir: the run directory.
      stop: called with stage and step after every step; true saves a checkpoint and raises ``Stopped``.
      force: accept a work directory of another config.

    Returns:
      The last evaluation of the last stage (training metrics where nothing is held out), and under ``<stage>/`` those
      of the stages before it. It is in ``result.json``, too; a finished run returns it from there.

    Raises:
      UserError: a mistake in the config, the data or the work directory, or a loss that is not finite.
      Stopped: SIGTERM, Ctrl-C or ``stop``; the same call goes on.
    """
    run = assemble(config)
    with Workdir(workdir) as folder:
        folder.claim(run.config, force=force)
        finished = folder.result()
        if finished is not None:
            return finished["metrics"]
        with Interrupts() as interrupts:
            return Trainer(run, folder, interrupts, stop).run()


class Trainer:
    """Carries a run through its stages: what is saved, where it goes on, and the reference of the preference stage.

    Args:
      run: the objects of the config.
      folder: the locked run directory.
      interrupts: wishes to stop.
      stop: see :func:`train`.
    """

    def __init__(self, run: Run, folder: Workdir, interrupts: Interrupts, stop: Stop | None = None):
        self.run_, self.folder = run, folder
        self.checkpoints = Checkpoints(folder.path / CHECKPOINTS, run.settings.keep)
        self.interrupts, self.stop = interrupts, stop
        self.examples = 0
        self.results: dict[str, Row] = {}
        self.wall_before, self.start = 0.0, time.monotonic()

    def run(self) -> dict[str, float]:
        """Runs what is left; returns the final metrics."""
        notes = self._latest_notes()
        first = self._first_stage(notes)
        self._truncate(notes, first)
        loggers = open_loggers(self.folder.path, self.run_.settings.loggers, self.run_.config)
        policy = None
        try:
            for number, stage in enumerate(self.run_.stages):
                if number < first:
                    continue
                resumed = notes if notes and notes["stage"] == stage.name else None
                policy = self._stage(stage, loggers, policy, resumed).params["policy"]
        finally:
            loggers.close()
            self.checkpoints.close()
        return self._finish()

    # ------------------------------------------------------------ where to go on

    def _latest_notes(self) -> dict[str, Any] | None:
        steps = self.checkpoints.steps()
        if not steps:
            return None
        notes = self.checkpoints.notes(steps[-1])
        self.results, self.wall_before = dict(notes["results"]), notes["wall_s"]
        return notes

    def _first_stage(self, notes: dict[str, Any] | None) -> int:
        """The number of the stage to go on with: the checkpoint's own, which may be at its end."""
        if notes is None:
            return 0
        names = [stage.name for stage in self.run_.stages]
        if notes["stage"] not in names:
            raise UserError(
                f"{self.checkpoints.folder} is from the stage {notes['stage']!r}, but the config has {names}: "
                "name another --workdir."
            )
        return names.index(notes["stage"])

    def _truncate(self, notes: dict[str, Any] | None, first: int) -> None:
        stage, step = (notes["stage"], notes["step"]) if notes else (self.run_.stages[first].name, -1)
        truncate(self.folder.path / METRICS, stage, step)
        if notes:
            _say(f"going on from step {step} of the stage {stage!r}")

    # ------------------------------------------------------------ one stage

    def _stage(self, stage: Stage, loggers: Any, policy: Any, notes: dict[str, Any] | None) -> TrainState:
        """Runs a stage, or what is left of it."""
        data = load_data(self.run_, stage, self.folder.path)
        self.examples = len(data[0])
        state = make_state(self.run_, stage, self.examples, policy)
        programs_of = partial(self._programs, stage, data)
        if notes is None:
            programs = programs_of(self._new_reference(stage, state))
            done, place = 0, None
        else:
            state = self.checkpoints.restore(self.checkpoints.steps()[-1], state).state
            programs = programs_of(self._saved_reference(stage, state))
            done, place = notes["step"], notes["iterator"]
        batches = data[0].batches(
            stage.settings.batch_size,
            seed=self.run_.settings.seed,
            mismatched=stage.mismatched,
            state=place,
            **_hosts(),
        )
        outlets = Outlets(loggers, partial(self._save, stage), self.interrupts, self.stop, self.run_.settings.on_nan)
        state, row = run_stage(
            stage, programs, outlets, state, batches,
            done=done, window=notes and notes["window"], last=notes and notes["results"].get(stage.name),
        )  # fmt: skip
        self.results[stage.name] = row
        return state

    def _programs(self, stage: Stage, data: tuple[Dataset, Dataset], held: Any) -> Programs:
        """The compiled functions of a stage; ``held`` is its reference policy, None without one."""
        train_set, held_out = data
        run, s = self.run_, stage.settings
        prompt_length = train_set.lengths.prompt
        cached = held is not None and reference.is_cached(
            stage.method, run.settings.reference, s.steps * s.batch_size, len(train_set)
        )
        attach = {}
        if cached:
            attach = {split: self._cache(stage, data_set, held) for split, data_set in zip(SPLITS, data, strict=True)}
        elif held is not None and run.settings.reference == "cached":
            names = ", ".join(sorted(reference.needed(stage.method)))
            _say(f"{stage.method.name} reads {names}: not a matter of one example, so the reference runs in every step")
        auxiliary = {} if cached or held is None else {"reference": held}
        step = make_train_step(
            run.model, stage.method, stage.optimizer, mesh=run.mesh, prompt_length=prompt_length,
            micro_batches=s.micro_batches,
        )  # fmt: skip
        evaluate = make_eval_step(run.model, stage.method, mesh=run.mesh, prompt_length=prompt_length)

        def put(batch: HostBatch, split: str) -> dict[str, jax.Array]:
            return put_batch(reference.attach(batch, attach[split]) if cached else batch, run.mesh)

        return Programs(
            lambda state, batch: step(state, put(batch, "train"), auxiliary),
            lambda state, batch: evaluate(state.params, state.method_state, put(batch, "eval"), auxiliary),
            lambda: held_out.batches(s.batch_size, mismatched=stage.mismatched, **_hosts()) if len(held_out) else (),
        )

    def _save(self, stage: Stage, step: int, state: TrainState, iterator: dict, window: dict, row: Row) -> None:
        before = 0
        for other in self.run_.stages:
            if other.name == stage.name:
                break
            before += other.settings.steps
        notes = {
            "stage": stage.name,
            "step": step,
            "examples": self.examples,
            "iterator": iterator,
            "window": window,
            "results": self.results | {stage.name: row},
            "config": self.run_.config,
            "versions": versions(),
            "wall_s": self._wall(),
        }
        self.checkpoints.save(before + step, state, notes)

    # ------------------------------------------------------------ the reference policy

    def _new_reference(self, stage: Stage, state: TrainState) -> Any:
        """The policy as the stage starts, kept for resumes; None where the method reads none."""
        if not reference.needed(stage.method):
            return None
        policy = jax.tree.map(jax.numpy.copy, state.params["policy"])
        self.checkpoints.save_policy(REFERENCE, policy)
        return policy

    def _saved_reference(self, stage: Stage, state: TrainState) -> Any:
        if not reference.needed(stage.method):
            return None
        return self.checkpoints.restore_policy(REFERENCE, state.params["policy"])

    def _cache(self, stage: Stage, dataset: Dataset, held: Any) -> np.ndarray:
        """Reference log-probabilities of a data set, from the cache where they are there."""
        run = self.run_
        score = make_score(run.model, mesh=run.mesh, prompt_length=dataset.lengths.prompt)
        key = reference.content_hash(dataset, held, run.model_config)
        return reference.cached_logps(
            self.folder.path / "cache", key, dataset, stage.settings.batch_size,
            lambda batch: np.asarray(score(held, put_batch(batch, run.mesh))["logps"]),
        )  # fmt: skip

    # ------------------------------------------------------------ the end

    def _finish(self) -> dict[str, float]:
        *before, last = self.run_.stages
        metrics = dict(self.results[last.name])
        for stage in before:
            metrics |= {f"{stage.name}/{name}": value for name, value in self.results[stage.name].items()}
        write_report(self.folder.path)
        self.folder.write_result(metrics, sum(stage.settings.steps for stage in self.run_.stages), self._wall())
        return metrics

    def _wall(self) -> float:
        return self.wall_before + time.monotonic() - self.start


SPLITS = ("train", "eval")
REFERENCE = "reference"


def load_data(run: Run, stage: Stage, folder: Path) -> tuple[Dataset, Dataset]:
    """The training and the held-out examples of a stage; says what was read."""
    train_set, held_out, report = pipeline.load(
        stage.data, run.tokenizer, kind=stage.kind, seed=run.settings.seed, workdir=folder
    )
    skipped = f", {report.skipped} bad rows skipped ({report.reasons[0]})" if report.skipped else ""
    flipped = f", {report.flipped} labels flipped" if report.flipped else ""
    _say(
        f"stage {stage.name!r}: {report.rows} rows of format {report.format!r}, {report.train} examples to train on, "
        f"{report.eval} held out{flipped}{skipped}"
    )
    return train_set, held_out


def make_state(run: Run, stage: Stage, examples: int, policy: Any = None) -> TrainState:
    """A fresh state of a stage."""
    shapes = Shapes(run.model.hidden_size, run.model.vocab_size, examples)
    return create_state(
        run.model, stage.method, stage.optimizer, shapes, seed=run.settings.seed, mesh=run.mesh, policy=policy
    )


def _hosts() -> dict[str, int]:
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def _say(text: str) -> None:
    print(f"rlx: {text}", file=sys.stderr, flush=True)


def cli(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        config, options = configs.parse_argv(argv, USAGE)
        use_compilation_cache(Path(options["workdir"]).absolute() / ".cache" / "jax")
        train(config, options["workdir"], force=options["force"])
        workdir = Path(options["workdir"])
        tables.show(write_report(workdir), f"{workdir}: last rows of metrics.jsonl")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        _say(str(stopped))
        return 0
    return 0
