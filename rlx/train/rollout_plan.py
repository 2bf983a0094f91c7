"""What the stage ``rl`` minimises and how it draws, from a config: everything that it names is found before it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlx.build import build
from rlx.errors import UserError, close_matches, one_line
from rlx.method import Method
from rlx.models import Model
from rlx.train import controls, critic, policies
from rlx.train import settings as settings_module
from rlx.train.rollout_settings import COMPARISONS, RolloutSettings
from rlx.train.settings import Settings


def plan(settings: Settings, model: Model, axis_name: str | None = None) -> tuple[Method, RolloutSettings]:
    """The method, with a value head's loss and controlled terms where the config has them, and the block ``rollout``.

    ``axis_name`` is the mapped axis that the batch is spread over, None without one.

    Raises:
      UserError: a method, a part or a model that is unknown or does not go with the rest.
    """
    rollout = settings_module.rollout(settings)
    method = _method(settings, rollout, axis_name)
    _check(settings, rollout, method)
    if rollout.shared_prefix and model.shared is None:
        raise UserError("config.rl.rollout.shared_prefix=True needs a model with Model.shared, which this one lacks.")
    return _with_controls(_with_critic(method, rollout, model), rollout, axis_name), rollout


def _method(settings: Settings, rollout: RolloutSettings, axis_name: str | None) -> Method:
    """The method; that of evolution has no loss, and what stands for it is never called."""
    wanted = settings.method_of("rl")
    if not rollout.evolution:
        return build(wanted, axis_name=axis_name)
    if (wanted if isinstance(wanted, str) else dict(wanted)) not in ("eggroll_update", {"name": "eggroll_update"}):
        raise UserError("config.rl.rollout.evolution goes with config.method='eggroll_update', without keywords.")
    from rlx.train.evolution import settings_of  # it stands above this module

    settings_of(rollout.evolution)
    return build("sft")._replace(name="eggroll_update", needs=("logprobs",))


def _check(settings: Settings, rollout: RolloutSettings, method: Method) -> None:
    """What the block names is there, and responses give what the method learns from."""
    from rlx import stages
    from rlx.rollout import rewards

    config = rollout.reward or {"verifier": rollout.verifier_of(settings.task)}
    rewards.build(config, models=_find_model(settings))
    if rollout.preference not in COMPARISONS:
        _check_preference(settings, rollout.preference)
    stages.parts_of("advantage", rollout.advantage)
    if "logprobs" in method.needs or "teacher" in policies.roles_of(method):
        return
    if method.data not in ("pairs", "lists"):
        raise UserError(f"{method.name} learns from {method.data} data, which responses and their rewards do not give.")
    if rollout.group < 2:
        raise UserError(f"{method.name} compares responses to a prompt: set config.rl.rollout.group to 2 or more.")


def _find_model(settings: Settings, owner: str = "a component of config.rl.rollout.reward") -> Callable[..., None]:
    """Makes sure that a learned model can be found when its time comes, and can be used so."""

    def check(name: str, *, win_rate: bool = False) -> None:
        if name == "reward" and "reward" not in settings.stages:
            raise UserError(f"{owner} names the model of the stage 'reward', which config.stages lacks.")
        if name == "reward" and not settings.stage("reward").steps:
            raise UserError(f"{owner} names the model of the stage 'reward', which config.reward.steps=0 leaves out.")
        if name == "reward":
            check_use(build(settings.method_of("reward")), None, win_rate)
        else:
            check_use(build(trained_by(check_run(name, owner))), None, win_rate)

    return check


def _check_preference(settings: Settings, name: str) -> None:
    if name != "reward" and not Path(name).exists():
        known = (*COMPARISONS, "reward")
        raise UserError(
            f"config.rl.rollout.preference={name!r} is neither one of {', '.join(known)} nor a run directory."
            f"{close_matches(name, known)}"
        )
    _find_model(settings, "config.rl.rollout.preference")(name, win_rate=True)


def check_use(method: Method, model: Model | None, win_rate: bool) -> None:
    """Makes sure that what a method has trained can be used so.

    Args:
      method: that trains, or has trained, the model.
      model: None where it is not known yet.
      win_rate: whether responses are compared, and not scored one by one.

    Raises:
      UserError: the model has no scalar head, or a preference model shall score responses one by one.
    """
    if method.preferences is not None:
        if not win_rate:
            raise UserError(
                f"{method.name} trains a preference model, which compares responses and scores none on its own: set "
                "options={'win_rate': True} of the component."
            )
    elif model is not None and model.head is None:
        raise UserError("a reward model needs a scalar head: train it with config.model.head='scalar'.")


def check_run(path: str, owner: str) -> Path:
    """The config of a run.

    Raises:
      UserError: there is no run, with the remedy.
    """
    folder = Path(path)
    folder = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    try:
        found = (folder / "config.json").is_file()
    except (OSError, ValueError):  # no name that a file can have
        found = False
    if not found:
        raise UserError(f"{owner} names the run {one_line(path)}, which is no run directory: it has no config.json.")
    return folder / "config.json"


def trained_by(config: Path) -> Mapping[str, Any] | str:
    """The method of a run's reward model: that of its stage ``reward``, or of its last stage."""
    settings = settings_module.check(json.loads(config.read_text(encoding="utf-8")))
    return settings.method_of("reward" if "reward" in settings.stages else settings.stages[-1])


def _with_critic(method: Method, rollout: RolloutSettings, model: Model) -> Method:
    """The method with the value head's loss, where the config has a critic."""
    found = critic.settings_of(rollout.critic)
    if found is None:
        if "values" in (*method.needs, *method.prepare_needs):
            raise UserError(
                f"{method.name} reads values: set config.rl.rollout.critic, for example {{'coefficient': 0.5}}."
            )
        return method
    if model.head is None:
        raise UserError(
            "config.rl.rollout.critic trains a scalar head, which the model lacks: set config.model.head='scalar'."
        )
    if "logprobs" not in method.needs:
        raise UserError(f"config.rl.rollout.critic: {method.name} is no loss of tokens, which a value head goes with.")
    return critic.with_critic(method, found)


def _with_controls(method: Method, rollout: RolloutSettings, axis_name: str | None) -> Method:
    """The method with the terms of the config's controllers."""
    found = controls.controllers(rollout.control)
    if found and "logprobs" not in method.needs:
        raise UserError(f"config.rl.rollout.control: {method.name} is no loss of tokens, which controllers measure.")
    return controls.with_controls(method, found, axis_name) if found else method
