"""The block ``rl.rollout`` of a config: how responses are drawn, rewarded and learnt from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlx.errors import UserError, close_matches
from rlx.rollout.calls import Calls
from rlx.train import rollout_parts
from rlx.train.blocks import block_of, choice, integers

COMPARISONS = ("order", "bradley_terry")
"""How rewards say that a response beats another: by being larger, or with the probability ``sigmoid(r_i - r_j)``."""
ENGINE = "rlx.rollout:engine"
"""The sampler of rlx."""
MATCHINGS = ("optimal", "greedy", "transport")


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
      buckets: lengths beside ``config.data.max_prompt_length``: the smallest that holds the prompts of a step is
        drawn from. Each is a program to compile.
      stop: texts that end a response, beside EOS; of ids alone, that do not begin in the prompt.
      engine: what draws, as ``module:function``: called as :func:`rlx.rollout.sampler.engine` is, returns an
        :class:`rlx.rollout.types.Engine`, which may speak to an inference server.
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
      retries: further calls of a reward function (``module:function``) that raises, hangs or ends its process.
      pause_s: seconds before the first of them, doubled before each next one.
      timeout_s: seconds that a call of it may take, in a process of its own; None: in this one, as long as it takes.
      on_reward_error: ``stop`` or ``zero``, its reward, when all calls have failed.
      preference: what compares responses, for methods that read pairs, win rates or preferences: their rewards, by
        ``order`` or ``bradley_terry`` (:data:`COMPARISONS`), or a learned model: ``reward``, that of the stage
        before, or a run directory.
      evolution: population and noise of EGGROLL, see :class:`rlx.train.evolution.EvolutionSettings`; empty: gradients.
      control: controllers of a KL penalty and an entropy bonus by quantity, see :mod:`rlx.train.controls`.
      critic: a value head that is trained along, see :class:`rlx.train.critic.CriticSettings`; empty: none.
      observation_tokens: bound on what an environment answers; ``max_new_tokens`` then is that of an action.
      turns: bound on the actions of an episode; None: that of the environment.
      matching: reward calls of a tool by how they match those of a known way: ``optimal``, ``greedy`` or ``transport``.
      tempered: responses at another temperature that hold the entropy, see
        :class:`rlx.train.tempered.TemperedSettings`; empty: none.
      replay: earlier prompts are learnt from again, see :class:`rlx.train.rollout_parts.ReplaySettings`; empty: none.
      budget: some prompts get more responses than others, ``group`` on average, see
        :class:`rlx.train.rollout_parts.BudgetSettings`; empty: all get as many.
      segments: responses branch after every so many tokens, see
        :class:`rlx.train.rollout_parts.SegmentSettings`; empty: they do not.
    """

    max_new_tokens: int
    group: int = 8
    forks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    buckets: Sequence[int] = ()
    stop: Sequence[str] = ()
    engine: str = ENGINE
    epochs: int = 1
    minibatches: int = 1
    shared_prefix: bool = False
    keep: int | None = None
    sync_every: int = 1
    advantage: str = "grpo"
    verifier: str | None = None
    reward: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    retries: int = 2
    pause_s: float = 1.0
    timeout_s: float | None = None
    on_reward_error: str = "stop"
    preference: str = "order"
    evolution: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    control: Mapping[str, str] = dataclasses.field(default_factory=dict)
    critic: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    observation_tokens: int | None = None
    turns: int | None = None
    matching: str | None = None
    tempered: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    replay: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    budget: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    segments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def updates(self) -> int:
        """Optimiser steps of a batch of prompts."""
        return self.epochs * self.minibatches

    @property
    def calls(self) -> Calls:
        """How reward functions of a user's module are called."""
        return Calls(self.retries, self.pause_s, self.timeout_s, self.on_reward_error == "stop")

    def verifier_of(self, task: Mapping[str, Any]) -> str:
        """The verifier, that of a task where the config names none."""
        from rlx.rollout.verifiers import VERIFIERS

        own = task.get("name", "exact")
        return self.verifier or (own if own in VERIFIERS else "exact")


def check(block: Mapping[str, Any], task: Mapping[str, Any], batch_size: int) -> RolloutSettings:
    """The settings of a block, for prompts of a task in batches of a size.

    Raises:
      UserError: a key that is unknown, missing, not used or has an impossible value.
    """
    found = block_of(RolloutSettings, block, "rl.rollout")
    low = {"max_new_tokens": 1, "group": 1, "epochs": 1, "minibatches": 1, "sync_every": 1}
    integers("config.rl.rollout", found, low | ({} if found.keep is None else {"keep": 1}))
    if found.keep is not None and found.keep > batch_size:
        raise UserError(f"config.rl.rollout.keep={found.keep} is more than config.rl.batch_size.")
    if found.reward and found.verifier is not None:
        raise UserError("config.rl.rollout has both reward and verifier: name the verifier as a component of reward.")
    _check_calls(found)
    _check_engine(found)
    _check_forks(found)
    rollout_parts.check(found, task)
    _check_episodes(task, found)
    _check_evolution(found)
    return found


def _check_calls(found: RolloutSettings) -> None:
    integers("config.rl.rollout", found, {"retries": 0})
    choice("rl.rollout.on_reward_error", found.on_reward_error, ("stop", "zero"))
    for key, low in (("pause_s", "at least"), ("timeout_s", "more than")):
        value = getattr(found, key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (number and (value > 0 or (value == 0 and key == "pause_s"))):
            raise UserError(f"config.rl.rollout.{key} must be a number of {low} 0, not {value!r}.")


def _check_engine(found: RolloutSettings) -> None:
    from rlx.rollout.imports import by_name

    by_name(found.engine, {}, "engine")
    if isinstance(found.stop, str) or not all(isinstance(text, str) and text for text in found.stop):
        raise UserError(f"config.rl.rollout.stop holds texts, ('\\n',) for example, not {found.stop!r}.")
    sizes = found.buckets
    if not isinstance(sizes, Sequence) or not all(type(size) is int for size in sizes) or min(sizes, default=1) < 1:
        raise UserError(f"config.rl.rollout.buckets holds lengths of prompts, (64, 128) for example, not {sizes!r}.")
    for name in ("forks", "segments", "budget", "tempered") if found.engine != ENGINE else ():
        if getattr(found, name):
            raise UserError(
                f"config.rl.rollout.{name} is drawn by the sampler of rlx alone: it does not go with engine="
                f"{found.engine!r}."
            )


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
    given = {field.name for field in dataclasses.fields(found) if getattr(found, field.name) not in (None, {}, ())}
    if "environment" not in task:
        unused, why = {"observation_tokens", "turns", "matching"}, "config.task names no environment"
    else:
        unused, why = (
            {"reward", "verifier", "timeout_s", "forks", "stop", "buckets"},
            "the environment rewards each action itself, and says where it ends",
        )
        if found.observation_tokens is None:
            raise UserError("config.rl.rollout lacks the key 'observation_tokens', which episodes need.")
        turns = {} if found.turns is None else {"turns": 1}
        integers("config.rl.rollout", found, {"observation_tokens": 0, **turns})
    for name in sorted(unused & given):
        raise UserError(f"config.rl.rollout.{name} is not used: {why}.")
    if found.matching is not None:
        choice("rl.rollout.matching", found.matching, MATCHINGS)
