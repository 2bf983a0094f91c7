"""The config of a run, checked block by block before any work starts: nothing unknown, nothing unused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlx.errors import UserError
from rlx.train import rollout_settings
from rlx.train.blocks import block_of, choice, integers
from rlx.train.guard import Guard, guard_of
from rlx.train.rollout_settings import RolloutSettings

STAGES = ("sft", "reward", "preference", "rl")
"""The stages in the order in which they may run."""
ENGINES = ("jit", "pmap")
REFERENCES = ("auto", "cached", "on_the_fly")


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """The block of a stage.

    Attributes:
      steps: optimiser steps; 0 leaves the stage out.
      batch_size: examples in a step, on all devices together.
      micro_batches: parts that a batch is worked off in; the result is that of the whole batch.
      packing: updates evaluate the real tokens of a batch side by side in rows without padding, to the same result; see
        :class:`rlx.train.packing.PackingSettings`; empty: every sequence has a row of its own, as in evaluations.
      optimizer: see :class:`rlx.train.optimizers.OptimizerConfig`.
      eval_every: steps between evaluations; 0: only at the end of the stage.
      checkpoint_every: steps between checkpoints; 0: only at the end of the stage.
      log_every: steps that a row of training metrics is the mean of.
      until_loss: the stage ends before ``steps``, once the loss of such a row is below this; None: it does not.
      data: keys that take the place of those in the block ``data``, for this stage.
      kind: ``pairs``, ``lists``, ``unpaired`` or ``sft``; ``auto`` follows from the method.
      method: of a stage that is not the last one; that of the last stage is ``config.method``.
      rollout: of the stage ``rl`` (:class:`RolloutSettings`), whose steps are batches of prompts.
    """

    steps: int
    batch_size: int
    micro_batches: int = 1
    packing: Mapping[str, int] = dataclasses.field(default_factory=dict)
    optimizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    eval_every: int = 0
    checkpoint_every: int = 0
    log_every: int = 10
    until_loss: float | None = None
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "auto"
    method: Mapping[str, Any] | str | None = None
    rollout: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Settings:
    """A whole config.

    Attributes:
      stages: those that run, a part of :data:`STAGES` in that order.
      model: see :func:`rlx.models.build`; ``vocab_size`` is the tokenizer's unless given.
      tokenizer: see :func:`rlx.data.tokenizers.build`.
      data: see :func:`rlx.data.pipeline.load`.
      method: see :func:`rlx.build.build`; of the last stage, where that is not ``sft``.
      task: ``name`` and options of a task (:mod:`rlx.rollout.tasks`): its examples are the data, in the place of files.
        ``environment`` in the place of ``name``: of several turns (:mod:`rlx.rollout.environments`).
      seed: of parameters, data order, split and random numbers.
      mesh: see :func:`rlx.train.sharding.make_mesh`.
      engine: of the updates: ``jit``, one program on the mesh; ``pmap`` over ``mesh.data`` devices that each have the
        whole state, to the same numbers.
      reference: ``cached`` computes the reference log-probabilities once, ``on_the_fly`` in every step, and ``auto``
        caches where examples are used more than once. A method without a reference takes ``auto`` alone.
      start: a run directory, or a checkpoint of it, whose policy the first stage starts from; None: from new weights.
      policies: role -> how it comes to its parameters (:class:`rlx.train.policies.Rule`); fixed unless given.
      keep: checkpoints that are kept.
      checksums: False: the files of a checkpoint are checked by their sizes alone, which costs nothing.
      loggers: beside ``metrics.jsonl``: ``tensorboard``, ``wandb``.
      on_nan: ``stop``, ``skip`` (such an update leaves the state as it was, but for the step) or ``continue`` when the
        loss or the gradient is not finite; the batch is kept, see :class:`rlx.train.watch.Watch`.
      explode: a gradient whose norm, before it is clipped, is above this counts as not finite; None: none does.
      max_skips: steps in a row that may be skipped.
      sft, reward, preference, rl: the stages.
    """

    stages: tuple[str, ...]
    model: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    data: Mapping[str, Any]
    method: Mapping[str, Any] | str | None = None
    seed: int = 0
    mesh: Mapping[str, int] = dataclasses.field(default_factory=dict)
    engine: str = "jit"
    reference: str = "auto"
    start: str | None = None
    policies: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keep: int = 2
    checksums: bool = True
    loggers: tuple[str, ...] = ()
    on_nan: str = "stop"
    explode: float | None = None
    max_skips: int = 10
    sft: StageSettings | None = None
    reward: StageSettings | None = None
    preference: StageSettings | None = None
    rl: StageSettings | None = None
    task: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def stage(self, name: str) -> StageSettings:
        """The block of a stage that runs."""
        return getattr(self, name)

    @property
    def guard(self) -> Guard | None:
        """What compiled steps make of updates that are not finite, or too large."""
        return guard_of(self.on_nan, self.explode)

    def method_of(self, name: str) -> Mapping[str, Any] | str:
        """The method of a stage that runs."""
        own = self.method if name == self.stages[-1] else self.stage(name).method
        return "sft" if name == "sft" else own or ""


def check(config: Mapping[str, Any]) -> Settings:
    """The settings of a config (nested dicts).

    Raises:
      UserError: a key that is unknown, missing, not used or has an impossible value.
    """
    stages = _stage_names(config.get("stages", ()))
    blocks = {name: block_of(StageSettings, config[name], name) for name in STAGES if name in config}
    rest = {key: value for key, value in config.items() if key not in STAGES}
    settings = block_of(Settings, rest | {"stages": stages} | blocks, "")
    for name in STAGES:
        _check_use(settings, name)
    _check_method(settings)
    _check_methods_before(settings)
    choice("engine", settings.engine, ENGINES)
    choice("reference", settings.reference, REFERENCES)
    _check_on_nan(settings)
    integers("config", settings, {"seed": 0, "keep": 1, "max_skips": 1})
    return settings


def _check_on_nan(settings: Settings) -> None:
    choice("on_nan", settings.on_nan, ("stop", "skip", "continue"))
    bound, evolution = settings.explode, settings.rl and settings.rl.rollout.get("evolution")
    if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0):
        raise UserError(f"config.explode must be a positive number or None, not {bound!r}.")
    if bound is not None and settings.on_nan == "continue":
        raise UserError("config.explode is not used: config.on_nan='continue' goes on whatever the gradient is.")
    if evolution and (bound is not None or settings.on_nan == "skip"):
        key = "explode" if bound is not None else "on_nan='skip'"
        raise UserError(f"config.{key} is not used: rollout.evolution takes no gradients. Set config.on_nan='stop'.")


def _stage_names(stages: Any) -> tuple[str, ...]:
    if not isinstance(stages, str | list | tuple):
        raise UserError(f"config.stages must name stages, of {', '.join(STAGES)}, not {stages!r}.")
    names = (stages,) if isinstance(stages, str) else tuple(stages)
    for name in names:
        choice("stages", name, STAGES)
    if not names or list(names) != sorted(set(names), key=STAGES.index):
        raise UserError(f"config.stages must name stages in the order {', '.join(STAGES)}, not {names}.")
    return names


def _check_use(settings: Settings, name: str) -> None:
    block, runs = settings.stage(name), name in settings.stages
    if runs and block is None:
        raise UserError(f"config.stages names {name!r}, but there is no block config.{name}.")
    if block is not None and not runs:
        raise UserError(
            f"config.{name} is not used: config.stages is {settings.stages}. Add {name!r} to it, or remove the block "
            f"(to leave a stage out for once, set config.{name}.steps=0)."
        )
    if block is not None:
        low = {"steps": 0, "batch_size": 1, "micro_batches": 1, "eval_every": 0, "checkpoint_every": 0, "log_every": 1}
        integers(f"config.{name}", block, low)
        if block.until_loss is not None and not isinstance(block.until_loss, int | float):
            raise UserError(f"config.{name}.until_loss must be a number or None, not {block.until_loss!r}.")
        choice(f"{name}.kind", block.kind, ("auto", "pairs", "lists", "unpaired", "sft"))
    if block is not None and name == "rl":
        rollout(settings)
    elif block is not None and block.rollout:
        raise UserError(f"config.{name}.rollout is not used: only the stage 'rl' draws responses.")


def _check_method(settings: Settings) -> None:
    wanted = settings.stages[-1] != "sft"
    if wanted and settings.method is None:
        raise UserError(f"config has no block 'method', which names the loss of the stage {settings.stages[-1]!r}.")
    if not wanted and settings.method is not None:
        raise UserError("config.method is not used: the stage 'sft' has the loss 'sft'. Remove it, or add a stage.")


def _check_methods_before(settings: Settings) -> None:
    """Every stage but the last has its own method; SFT has its loss."""
    for name in settings.stages:
        last, own = name == settings.stages[-1], settings.stage(name).method
        if own is not None and (last or name == "sft"):
            instead = "config.method" if last and name != "sft" else "nothing: its loss is 'sft'"
            raise UserError(f"config.{name}.method is not used: the method of this stage is {instead}.")
        if own is None and not last and name != "sft":
            raise UserError(f"config.{name} lacks the key 'method': config.method is that of {settings.stages[-1]!r}.")


def rollout(settings: Settings) -> RolloutSettings:
    """The block ``rollout`` of the stage ``rl``, checked."""
    assert settings.rl is not None  # the caller runs it
    return rollout_settings.check(settings.rl.rollout, settings.task, settings.rl.batch_size)
