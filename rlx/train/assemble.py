"""From a config to the objects of a run: everything is built, and so checked, before any work starts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rlx import config as configs
from rlx import models
from rlx.build import build
from rlx.data import pipeline, tokenizers
from rlx.data.sources import find_file
from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError
from rlx.method import Method
from rlx.models import Model
from rlx.train import optimizers, packing, policies, reference
from rlx.train import settings as settings_module
from rlx.train.policies import Rule
from rlx.train.rollout_plan import check_run, plan
from rlx.train.rollout_settings import ENGINE, RolloutSettings
from rlx.train.settings import Settings, StageSettings
from rlx.train.sharding import batch_shards, make_mesh
from rlx.train.step import check_split

BY_HEAD = ("rewards", "scores", "values", "q_values", "token_rewards")
"""Arrays that a scalar head gives where they stand first in the signature of a loss."""
AXIS = "rows"
"""What pmap calls the devices of its axis."""
MISMATCHED = ("policy_kl_logps", "reference_kl_logps")


class Stage(NamedTuple):
    """One stage: what it minimises, on what.

    Attributes:
      name: sft, reward, preference or rl.
      settings: its block.
      method: its loss.
      optimizer: moves the parameters.
      data: the block ``data`` with the stage's own keys.
      kind: of data.
      rules: of the policies beside the trained one that the method reads.
      rollout: how the stage ``rl`` draws responses; None for the others.
      mapped: the method, built for the axis of pmap; None with the other engine.
    """

    name: str
    settings: StageSettings
    method: Method
    optimizer: optax.GradientTransformation
    data: dict[str, Any]
    kind: str
    rules: dict[str, Rule]
    rollout: RolloutSettings | None = None
    mapped: Method | None = None

    @property
    def compares(self) -> str:
        """``pairs`` or ``lists`` where the method learns from responses set against each other, else nothing."""
        alone = "logprobs" in self.method.needs or self.method.data not in ("pairs", "lists")
        return "" if alone or not self.rollout else self.method.data

    @property
    def reads(self) -> frozenset[str]:
        """Arrays that the method reads and, for one that reads advantages, their estimator."""
        from rlx import stages

        names = {*self.method.needs, *self.method.prepare_needs}
        estimators = stages.parts_of("advantage", self.rollout.advantage) if self.rollout else ()
        of_estimator = estimators[0].reads if estimators and "advantages" in names else ()
        return frozenset((*names, *of_estimator))

    @property
    def mismatched(self) -> bool:
        """Whether the method reads prompts with the responses of other examples (KTO)."""
        return any(name in MISMATCHED for name in (*self.method.needs, *self.method.prepare_needs))


class Run(NamedTuple):
    """What a config describes.

    Attributes:
      config: the config as JSON would hold it.
      settings: the same, checked.
      tokenizer: text to tokens.
      model: the policy.
      model_config: what it was built from.
      mesh: the devices.
      stages: those with steps, in order.
    """

    config: dict[str, Any]
    settings: Settings
    tokenizer: Tokenizer
    model: Model
    model_config: dict[str, Any]
    mesh: Mesh
    stages: tuple[Stage, ...]


def assemble(config: Mapping[str, Any] | ConfigDict, *, to_train: bool = True) -> Run:
    """Builds what a config describes; reads no data and touches no file.

    Args:
      config: nested dicts.
      to_train: False: what training alone reads, data files and the run that it starts from, need not be there.

    Raises:
      UserError: anything that is wrong with the config, the data file's name included.
    """
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    settings = settings_module.check(plain)
    tokenizer = tokenizers.build(settings.tokenizer)
    model_config = _model_config(settings.model, tokenizer)
    model = models.build(model_config)
    if model.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"config.model.vocab_size={model.vocab_size} is smaller than the tokenizer's {tokenizer.vocab_size} tokens."
        )
    mesh = make_mesh(settings.mesh)
    if settings.start is not None and to_train:
        check_run(settings.start, "config.start")
    stages = tuple(_stage(name, settings, model, mesh, to_train) for name in settings.stages)
    running = tuple(stage for stage in stages if stage.settings.steps)
    if not running:
        raise UserError("every stage has steps=0: there is nothing to train.")
    _check_reference(settings, stages[-1])
    run = Run(json.loads(configs.to_json(plain)), settings, tokenizer, model, model_config, mesh, running)
    _check_processes(run)
    for stage in running:
        if stage.rollout:
            from rlx.train import memory, tempered  # they stand above this module

            memory.check(stage)
            if stage.rollout.tempered:
                tempered.check(run, stage)
    return run


def _check_processes(run: Run) -> None:
    """Several processes have to do the same: what acts on the outside, and need not be the same twice, is refused."""
    count = jax.process_count()
    for stage in run.stages if count > 1 else ():
        if stage.rollout and "environment" in run.settings.task:
            raise UserError(f"config.task.environment goes with one process, not {count}: each would play its own.")
        if stage.rollout and stage.rollout.engine != ENGINE:
            raise UserError(f"config.rl.rollout.engine={stage.rollout.engine!r} goes with one process, not {count}.")


def _model_config(config: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    own = dict(config)
    if own.get("name", "transformer") == "transformer" and own.get("vocab_size") is None:
        own["vocab_size"] = tokenizer.vocab_size
    return own


def _stage(name: str, settings: Settings, model: Model, mesh: Mesh, to_train: bool) -> Stage:
    block = settings.stage(name)
    method, rollout = plan(settings, model) if name == "rl" else (build(settings.method_of(name)), None)
    updates = block.steps * (rollout.updates if rollout else 1)
    optimizer = optimizers.build(block.optimizer, updates, f"config.{name}.optimizer")
    check_split(method, block.micro_batches)
    packing.check(block.packing, name, rollout, model)
    _check_division(name, block, rollout, batch_shards(mesh), method.separable)
    if model.head is None and method.needs[0] in BY_HEAD:
        raise UserError(f"{method.name} reads a scalar head, which the model lacks: set config.model.head='scalar'.")
    kind = "prompts" if rollout else _kind(block, method)
    rules = policies.check(settings.policies if name == settings.stages[-1] and name != "sft" else {}, method)
    if rollout and rollout.sync_every > 1:
        rules[policies.SAMPLER] = Rule("snapshot", every=rollout.sync_every * rollout.updates)
    data = _data(_with_task(settings), block, kind, to_train)
    return Stage(name, block, method, optimizer, data, kind, rules, rollout, _mapped(name, settings, model, mesh))


def _mapped(name: str, settings: Settings, model: Model, mesh: Mesh) -> Method | None:
    """The method of a stage for pmap, which splits rows over devices that each have the whole state."""
    if settings.engine == "jit":
        return None
    split = [axis for axis, size in mesh.shape.items() if axis != "data" and size > 1]
    if split:
        raise UserError(
            f"config.engine='pmap' splits rows over mesh.data alone: set mesh.{split[0]}=1, or config.engine='jit'."
        )
    if jax.process_count() > 1:
        raise UserError(f"config.engine='pmap' goes with one process, not {jax.process_count()}: set it to 'jit'.")
    if name != "rl":
        return build(settings.method_of(name), axis_name=AXIS)
    method, rollout = plan(settings, model, AXIS)
    if rollout.evolution:
        raise UserError("config.engine='pmap' is not used: evolution takes no gradients of a loss. Set it to 'jit'.")
    return method


def _check_division(
    name: str, block: StageSettings, rollout: RolloutSettings | None, shards: int, separable: bool
) -> None:
    """Rows must divide evenly over what they are worked off in; micro-batches may part the responses of a row."""
    rows, group = {"batch_size": block.batch_size}, 1
    parts = {"micro_batches": block.micro_batches, "mesh.data x mesh.fsdp": shards}
    if rollout:
        rows |= {} if rollout.keep is None else {"rollout.keep": rollout.keep}
        parts["rollout.minibatches"] = rollout.minibatches
        group = rollout.group if separable and not block.packing else 1
    count = math.prod(parts.values())
    whole = count // block.micro_batches
    for key, value in rows.items():
        if value % count and (value % whole or value * group % count):
            raise UserError(f"config.{name}.{key}={value} must be a multiple of {' x '.join(parts)} = {count}.")


def _with_task(settings: Settings) -> dict[str, Any]:
    """The block ``data``, with the examples of the task for records where the config names one."""
    if not settings.task:
        return dict(settings.data)
    from rlx.rollout import environments, tasks

    multi = "environment" in settings.task
    made = ("source", "path", "records", *(("max_response_length",) if multi else ()))
    taken = [key for key in made if key in settings.data]
    if taken:
        raise UserError(f"config.task makes the data: remove config.data.{taken[0]}.")
    if multi:
        rows, long = environments.records(settings.task), {"max_response_length": 1}  # the stages lay episodes out
    else:
        rows, long = tasks.records(examples(settings.task)), {}
    return {**settings.data, **long, "source": "memory", "records": rows}


def examples(task: Mapping[str, Any]) -> list[Any]:
    """The examples of the block ``task``: ``name``, ``seed`` (0), ``size`` (all) and options of the task itself."""
    from rlx.rollout import tasks

    own = {key: value for key, value in task.items() if key not in ("seed", "size")}
    return tasks.make(own, seed=task.get("seed", 0), size=task.get("size"))


def _kind(block: StageSettings, method: Method) -> str:
    return method.data if block.kind == "auto" else block.kind


def _data(shared: Mapping[str, Any], block: StageSettings, kind: str, to_train: bool) -> dict[str, Any]:
    """The stage's data block, checked; flipped labels concern pairs alone, so other kinds of data leave them out."""
    data = {**shared, **block.data}
    if kind in ("sft", "lists") and "flip_rate" not in block.data:
        data["flip_rate"] = 0.0
    checked = pipeline.check(data, kind)
    if checked["source"] == "jsonl" and to_train:
        for key in ("path", "eval_path"):
            if checked[key] is not None:
                find_file(checked[key])
    return data


def _check_reference(settings: Settings, stage: Stage) -> None:
    """Explicit wishes must be possible: a reference that nothing reads would be an unused key."""
    needs = reference.needed(stage.method)
    follows = "reference" in stage.rules and stage.rules["reference"].follows
    if settings.reference == "cached" and follows:
        raise UserError("config.reference='cached', but config.policies.reference moves: set config.reference='auto'.")
    if settings.reference != "auto" and not needs:
        raise UserError(
            f"config.reference={settings.reference!r} is not used: {stage.method.name} reads no reference policy. "
            "Set config.reference='auto'."
        )
