"""The config of a run, checked block by block before any work starts: nothing unknown, nothing unused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlx.errors import UserError, close_matches

STAGES = ("sft", "reward", "preference", "rl")
"""The stages in the order in which they may run."""
REFERENCES = ("auto", "cached", "on_the_fly")
MATCHINGS = ("optimal", "greedy", "transport")


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """The block of a stage.

    Attributes:
      steps: optimiser steps; 0 leaves the stage out.
      batch_size: examples in a step, on all devices together.
      micro_batches: parts that a batch is worked off in; the result is that of the whole batch.
      optimizer: see :class:`rlx.train.optimizers.OptimizerConfig`.
      eval_every: steps between evaluations; 0: only at the end of the stage.
      checkpoint_every: steps between checkpoints; 0: only at the end of the stage.
      log_every: steps that a row of training metrics is the mean of.
      data: keys that take the place of those in the block ``data``, for this stage.
      kind: ``pairs``, ``lists``, ``unpaired`` or ``sft``; ``auto`` follows from the method.
      method: of a stage that is not the last one; that of the last stage is ``config.method``.
      rollout: of the stage ``rl`` (:class:`RolloutSettings`), whose steps are batches of prompts.
    """

    steps: int
    batch_size: int
    micro_batches: int = 1
    optimizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    eval_every: int = 0
    checkpoint_every: int = 0
    log_every: int = 10
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "auto"
    method: Mapping[str, Any] | str | None = None
    rollout: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """How the stage ``rl`` draws responses and learns from them: its block ``rollout``.

    Attributes:
      max_new_tokens: bound on the length of a response.
      group: responses to a prompt.
      forks: ``num_forks`` and ``num_branches`` of trees (:mod:`rlx.rollout.forks`), whose leaves are the group; empty:
        every response is drawn whole.
      temperature: that they are drawn at.
      top_k, top_p, min_p: what is left of the distribution; None: all.
      epochs: passes over the responses.
      minibatches: updates of a pass, each on its part of the prompts.
      shared_prefix: updates evaluate a prompt once for all of its responses; pays where prompts are no shorter than
        responses.
      keep: prompts of a step that are learnt from, those whose responses differ in reward first; None: all.
      sync_every: steps between copies of the policy to the one that draws; 1: it draws itself.
      advantage: estimator for methods that read ``advantages``; recipes bring their own.
      verifier: what rewards a response, by name or as ``module:function``; None: that of the task, or ``exact``.
      reward: a composed reward in the place of ``verifier``, see :func:`rlx.rollout.rewards.build`; its first component
        says what is correct.
      preference: how rewards compare responses, for methods that read win rates or preferences: ``order`` or
        ``bradley_terry`` (:mod:`rlx.train.comparisons`).
      evolution: population and noise of EGGROLL, see :class:`rlx.train.evolution.EvolutionSettings`; empty: gradients.
      control: controllers of a KL penalty and an entropy bonus by quantity, see :mod:`rlx.train.controls`.
      critic: a value head that is trained along, see :class:`rlx.train.critic.CriticSettings`; empty: none.
      observation_tokens: bound on what an environment answers; ``max_new_tokens`` then is that of an action.
      turns: bound on the actions of an episode; None: that of the environment.
      matching: reward calls of a tool by how they match those of a known way: ``optimal``, ``greedy`` or ``transport``.
      tempered: responses at another temperature that hold the entropy, see
        :class:`rlx.train.tempered.TemperedSettings`; empty: none.
    """

    max_new_tokens: int
    group: int = 8
    forks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    epochs: int = 1
    minibatches: int = 1
    shared_prefix: bool = False
    keep: int | None = None
    sync_every: int = 1
    advantage: str = "grpo"
    verifier: str | None = None
    reward: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preference: str = "order"
    evolution: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    control: Mapping[str, str] = dataclasses.field(default_factory=dict)
    critic: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    observation_tokens: int | None = None
    turns: int | None = None
    matching: str | None = None
    tempered: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def updates(self) -> int:
        """Optimiser steps of a batch of prompts."""
        return self.epochs * self.minibatches

    def verifier_of(self, task: Mapping[str, Any]) -> str:
        """The verifier, that of a task where the config names none."""
        from rlx.rollout.verifiers import VERIFIERS

        own = task.get("name", "exact")
        return self.verifier or (own if own in VERIFIERS else "exact")


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
      reference: ``cached`` computes the reference log-probabilities once, ``on_the_fly`` in every step, and ``auto``
        caches where examples are used more than once. A method without a reference takes ``auto`` alone.
      start: a run directory, or a checkpoint of it, whose policy the first stage starts from; None: from new weights.
      policies: role -> how it comes to its parameters (:class:`rlx.train.policies.Rule`); fixed unless given.
      keep: checkpoints that are kept.
      loggers: beside ``metrics.jsonl``: ``tensorboard``, ``wandb``.
      on_nan: ``stop`` or ``continue`` when the loss or the gradient is not finite.
      sft, reward, preference, rl: the stages.
    """

    stages: tuple[str, ...]
    model: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    data: Mapping[str, Any]
    method: Mapping[str, Any] | str | None = None
    seed: int = 0
    mesh: Mapping[str, int] = dataclasses.field(default_factory=dict)
    reference: str = "auto"
    start: str | None = None
    policies: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keep: int = 2
    loggers: tuple[str, ...] = ()
    on_nan: str = "stop"
    sft: StageSettings | None = None
    reward: StageSettings | None = None
    preference: StageSettings | None = None
    rl: StageSettings | None = None
    task: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def stage(self, name: str) -> StageSettings:
        """The block of a stage that runs."""
        return getattr(self, name)

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
    blocks = {name: _block(StageSettings, config[name], name) for name in STAGES if name in config}
    rest = {key: value for key, value in config.items() if key not in STAGES}
    settings = _block(Settings, rest | {"stages": stages} | blocks, "")
    for name in STAGES:
        _check_use(settings, name)
    _check_method(settings)
    _check_methods_before(settings)
    _choice("reference", settings.reference, REFERENCES)
    _choice("on_nan", settings.on_nan, ("stop", "continue"))
    _integers("config", settings, {"seed": 0, "keep": 1})
    return settings


def _stage_names(stages: Any) -> tuple[str, ...]:
    names = (stages,) if isinstance(stages, str) else tuple(stages)
    for name in names:
        _choice("stages", name, STAGES)
    if not names or list(names) != sorted(set(names), key=STAGES.index):
        raise UserError(f"config.stages must name stages in the order {', '.join(STAGES)}, not {names}.")
    return names


def _block(kind: type, values: Mapping[str, Any], name: str) -> Any:
    """A dataclass from a block: its fields are the keys that the block may have."""
    full = f"config.{name}" if name else "config"
    if not isinstance(values, Mapping):
        raise UserError(f"{full} must be a block of keys, not {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise UserError(
                f"{full} has an unknown key {key!r}.{close_matches(key, fields)} Keys: {', '.join(fields)}."
            )
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in values:
            raise UserError(f"{full} lacks the key {key!r}.")
    return kind(**values)


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
        _integers(f"config.{name}", block, low)
        _choice(f"{name}.kind", block.kind, ("auto", "pairs", "lists", "unpaired", "sft"))
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
    found = _block(RolloutSettings, settings.rl.rollout, "rl.rollout")
    low = {"max_new_tokens": 1, "group": 1, "epochs": 1, "minibatches": 1, "sync_every": 1}
    _integers("config.rl.rollout", found, low | ({} if found.keep is None else {"keep": 1}))
    if found.keep is not None and found.keep > settings.rl.batch_size:
        raise UserError(f"config.rl.rollout.keep={found.keep} is more than config.rl.batch_size.")
    _choice("rl.rollout.preference", found.preference, ("order", "bradley_terry"))
    if found.reward and found.verifier is not None:
        raise UserError("config.rl.rollout has both reward and verifier: name the verifier as a component of reward.")
    _check_forks(found)
    _check_episodes(settings.task, found)
    _check_evolution(found)
    return found


def _check_forks(found: RolloutSettings) -> None:
    keys = ("num_forks", "num_branches")
    for key in found.forks:
        if key not in keys:
            raise UserError(f"config.rl.rollout.forks has an unknown key {key!r}.{close_matches(key, keys)}")
    if found.forks:
        from rlx.rollout.forks import trunks_of

        trunks_of(found.group, **found.forks)


def _check_evolution(found: RolloutSettings) -> None:
    """What belongs to losses and their gradients goes with no evolution."""
    of_losses = ("epochs", "minibatches", "keep", "sync_every", "shared_prefix", "tempered", "control", "critic")
    plain = RolloutSettings(found.max_new_tokens)
    for name in of_losses if found.evolution else ():
        if getattr(found, name) != getattr(plain, name):
            raise UserError(f"config.rl.rollout.{name} is not used: evolution takes no gradients of a loss.")


def _check_episodes(task: Mapping[str, Any], found: RolloutSettings) -> None:
    """Keys of episodes go with an environment alone, and those of verified responses with another task."""
    given = {field.name for field in dataclasses.fields(found) if getattr(found, field.name) not in (None, {})}
    if "environment" not in task:
        unused, why = {"observation_tokens", "turns", "matching"}, "config.task names no environment"
    else:
        unused, why = {"reward", "verifier", "forks"}, "the environment rewards each action itself"
        if found.observation_tokens is None:
            raise UserError("config.rl.rollout lacks the key 'observation_tokens', which episodes need.")
        turns = {} if found.turns is None else {"turns": 1}
        _integers("config.rl.rollout", found, {"observation_tokens": 0, **turns})
    for name in sorted(unused & given):
        raise UserError(f"config.rl.rollout.{name} is not used: {why}.")
    if found.matching is not None:
        _choice("rl.rollout.matching", found.matching, MATCHINGS)


def _choice(name: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise UserError(
            f"config.{name}: unknown {value!r}.{close_matches(value, options)} Known: {', '.join(options)}."
        )


def _integers(name: str, block: Any, lowest: Mapping[str, int]) -> None:
    for key, low in lowest.items():
        value = getattr(block, key)
        if type(value) is not int or value < low:
            raise UserError(f"{name}.{key} must be a whole number of at least {low}, not {value!r}.")
