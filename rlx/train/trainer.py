"""A run carried through its stages: where it goes on, what is saved, and the reference of the preference stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from rlx.data import pipeline
from rlx.data.dataset import Dataset
from rlx.errors import UserError
from rlx.models.moving import join, moving
from rlx.report.loggers import JsonlLogger, Loggers, open_loggers
from rlx.report.rows import truncate
from rlx.report.run_report import write_report
from rlx.train import policies, processes
from rlx.train.agreement import make_agreement
from rlx.train.assemble import Run, Stage
from rlx.train.checkpoint import Checkpoints
from rlx.train.fresh import make_blank, make_state
from rlx.train.interrupts import Interrupts
from rlx.train.kept import (
    BEFORE_REWARD,
    REFERENCE,
    REWARD_MODEL,
    keep_base,
    kept_policy,
    kept_reward_model,
    restore_state,
)
from rlx.train.log import say
from rlx.train.loop import Outlets, Programs, Row, run_stage
from rlx.train.moved import part_of
from rlx.train.programs import make_programs
from rlx.train.restore import starting_policy
from rlx.train.sharding import share
from rlx.train.state import TrainState, moving_params
from rlx.train.watch import Watch, Watching
from rlx.train.workdir import CHECKPOINTS, METRICS, SPEED, Workdir, versions

Stop = Callable[[str, int], bool]


class Trainer:
    """Runs what is left of a run.

    Args:
      plan: the objects of the config.
      folder: the locked run directory.
      interrupts: wishes to stop.
      stop: see :func:`rlx.train.main.train`.
    """

    def __init__(self, plan: Run, folder: Workdir, interrupts: Interrupts, stop: Stop | None = None):
        self.plan, self.folder = plan, folder
        self.interrupts, self.stop, settings = interrupts, stop, plan.settings
        self.watch: Watching = Watch(settings.on_nan, settings.explode, settings.max_skips, folder.path)
        self.checkpoints = Checkpoints(folder.path / CHECKPOINTS, settings.keep, settings.checksums)
        self.group, self.agree = processes.group(), make_agreement()
        self.group.lead(self.checkpoints.tidy)
        self.newest = self.checkpoints.newest()
        self.notes = None if self.newest is None else self.checkpoints.notes(self.newest)
        self.start: Any = None  # what the next stage starts from
        self.results: dict[str, Row] = dict(self.notes["results"]) if self.notes else {}
        self.began = time.monotonic() - (self.notes["wall_s"] if self.notes else 0.0)

    def run(self) -> dict[str, float]:
        """Returns the final metrics."""
        left = self.plan.stages[self._first_stage() :]
        stage, step = (self.notes["stage"], self.notes["step"]) if self.notes else (left[0].name, -1)
        self.group.lead(partial(truncate, self.folder.path / METRICS, stage, step))
        if self.notes:
            say(f"going on from step {step} of the stage {stage!r}{_other_versions(self.notes['versions'])}")
        loggers = Loggers(())
        if self.group.leads:
            loggers = open_loggers(self.folder.path, self.plan.settings.loggers, self.plan.config)
        self.start, notes = None if self.notes else starting_policy(self.plan), self.notes
        try:
            for stage in left:
                self.start, notes = self._after(stage, self._stage(stage, loggers, notes)), None
        finally:
            loggers.close()
            self.checkpoints.close()
        return self._finish()

    def _after(self, stage: Stage, state: TrainState) -> Any:
        """The policy that the next stage starts from: a reward model is none, and is kept for the stages to come."""
        policy, model = state.params["policy"], self.plan.model
        if stage.name != "reward" or stage is self.plan.stages[-1]:
            return policy
        self.checkpoints.save_policy(REWARD_MODEL, moving_params(model, state.params))
        return kept_policy(model, self.checkpoints, BEFORE_REWARD, policy)

    def _first_stage(self) -> int:
        """The number of the stage to go on with: the checkpoint's own, which may be at its end."""
        names = [stage.name for stage in self.plan.stages]
        if self.notes is None:
            return 0
        if self.notes["stage"] not in names:
            raise UserError(
                f"{self.checkpoints.folder} is from the stage {self.notes['stage']!r}, but the config runs {names}: "
                "name another --workdir."
            )
        return names.index(self.notes["stage"])

    def _stage(self, stage: Stage, loggers: Loggers, notes: dict[str, Any] | None) -> TrainState:
        """Runs a stage from its start, or from the checkpoint that ``notes`` belong to."""
        train_set, held_out = self.group.first(lambda: load_data(self.plan, stage, self.folder.path))
        if notes is None:
            state = make_state(self.plan, stage, len(train_set), self.start)
            self.start = None  # a policy of real size that nobody reads would stand in the way of the stage
            self._keep_start(stage, state)
            held, left = self._new_reference(stage, state), {}
        else:
            assert self.newest is not None  # the notes are its own
            like = make_blank(self.plan, stage, len(train_set))
            state = restore_state(self.plan.model, self.checkpoints, self.newest, like)
            held = self._saved_reference(stage, state)
            done = stage.settings.steps if notes["ended"] else notes["step"]
            left = {"done": done, "window": notes["window"], "last": notes["results"][stage.name]}
        batches = train_set.batches(
            stage.settings.batch_size,
            seed=self.plan.settings.seed,
            mismatched=stage.mismatched,
            state=notes and notes["iterator"],
            **read_part(self.plan, stage),
        )
        save = partial(self._save, stage, len(train_set))
        outlets = Outlets(loggers, save, self.interrupts, self.stop, self.watch, self._speed, self.agree)
        judge = kept_reward_model(self.plan, self.checkpoints, state.params["policy"])
        programs = programs_of(self.plan, stage, train_set, held_out, held, judge, self.folder.path / "cache")
        del held  # the programs have of it what they read
        state, self.results[stage.name] = run_stage(stage, programs, outlets, state, batches, **left)
        return state

    def _speed(self, step: int, stage: str, rates: Row) -> None:
        """Appends rates to their own file; a resumed run leaves those of before."""
        if not self.group.leads:
            return
        logger = JsonlLogger(self.folder.path / SPEED)
        logger.write(step, stage, "train", rates)
        logger.close()

    def _save(
        self,
        stage: Stage,
        examples: int,
        step: int,
        state: TrainState,
        iterator: dict,
        window: dict,
        row: Row,
        ended: bool,
    ) -> None:
        self.folder.check()
        names = [other.name for other in self.plan.stages]
        before = sum(other.settings.steps for other in self.plan.stages[: names.index(stage.name)])
        notes = {
            "stage": stage.name,
            "step": step,
            "ended": ended,
            "examples": examples,
            "iterator": iterator,
            "window": window,
            "results": self.results | {stage.name: row},
            "config": self.plan.config,
            "versions": versions(),
            "wall_s": time.monotonic() - self.began,
        }
        self.checkpoints.save(before + step, part_of(self.plan.model, state), notes)

    def _keep_start(self, stage: Stage, state: TrainState) -> None:
        """Keeps what no checkpoint of the stage holds: what no stage moves, and the policy that ``reward`` leaves."""
        policy, model = state.params["policy"], self.plan.model
        if self.notes is None and stage is self.plan.stages[0]:
            keep_base(model, self.checkpoints, policy)
        if stage.name == "reward" and stage is not self.plan.stages[-1]:
            self.checkpoints.save_policy(BEFORE_REWARD, moving(model, policy))

    def _new_reference(self, stage: Stage, state: TrainState) -> Any:
        """The policy as the stage starts, kept for resumes; None where the method reads none."""
        if not policies.keeps_start(stage.rules):
            return None
        policy = jax.tree.map(jax.numpy.copy, moving(self.plan.model, state.params["policy"]))
        self.checkpoints.save_policy(REFERENCE, policy, stage.name)
        return join(policy, state.params["policy"])

    def _saved_reference(self, stage: Stage, state: TrainState) -> Any:
        if not policies.keeps_start(stage.rules):
            return None
        policy = kept_policy(self.plan.model, self.checkpoints, REFERENCE, state.params["policy"], stage.name)
        if policy is None:
            raise UserError(
                f"{self.checkpoints.folder / REFERENCE} is gone, the policy at the start of the stage {stage.name!r}: "
                "restore it, or name another --workdir."
            )
        return policy

    def _finish(self) -> dict[str, float]:
        *before, last = self.plan.stages
        metrics = dict(self.results[last.name])
        for stage in before:
            metrics |= {f"{stage.name}/{name}": value for name, value in self.results[stage.name].items()}
        self.group.lead(lambda: self._report(metrics))
        return metrics

    def _report(self, metrics: dict[str, float]) -> None:
        write_report(self.folder.path)
        steps = sum(stage.settings.steps for stage in self.plan.stages)
        self.folder.write_result(metrics, steps, time.monotonic() - self.began)


def read_part(run: Run, stage: Stage) -> dict[str, Any]:
    """Which part of its batches a process reads; of prompts, which are little to what is made of them, all."""
    return {} if stage.rollout else share(run.mesh)


def programs_of(
    run: Run, stage: Stage, train_set: Dataset, held_out: Dataset, held: Any, reward_model: Any, cache: Path
) -> Programs:
    """The functions that the loop of a stage calls."""
    if stage.rollout is None:
        return make_programs(run, stage, train_set, held_out, held, cache)
    from rlx.train import evolution, rollouts  # they bring the tasks along

    if stage.rollout.evolution:
        return evolution.make_evolution_programs(run, stage, train_set, held_out, reward_model)
    return rollouts.make_rollout_programs(run, stage, train_set, held_out, held, reward_model)


def _other_versions(saved: dict[str, str]) -> str:
    """What to say of libraries that have changed since the checkpoint: the last digits may differ then."""
    now = versions()
    changed = [f"{name} {old} -> {now.get(name, 'absent')}" for name, old in saved.items() if now.get(name) != old]
    return f", with other versions than before: {', '.join(changed)}" if changed else ""


def load_data(run: Run, stage: Stage, folder: Path) -> tuple[Dataset, Dataset]:
    """The training and the held-out examples of a stage; says what was read."""
    train_set, held_out, report = pipeline.load(
        stage.data, run.tokenizer, kind=stage.kind, seed=run.settings.seed, workdir=folder
    )
    if stage.kind == "sft" and "environment" in run.settings.task:
        from rlx.train.episodes import Demonstrations  # it brings the environments along

        train_set, held_out = (Demonstrations(dataset, run.settings.task) for dataset in (train_set, held_out))
    skipped = f", {report.skipped} bad rows skipped ({report.reasons[0]})" if report.skipped else ""
    flipped = f", {report.flipped} labels flipped" if report.flipped else ""
    say(
        f"stage {stage.name!r}: {report.rows} rows of format {report.format!r}, {report.train} examples to train on, "
        f"{report.eval} held out{flipped}{skipped}"
    )
    return train_set, held_out
