"""The compiled functions of a stage, on host batches: the step, the evaluation, and the reference behind both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from rlx.data.dataset import Dataset
from rlx.method import Method
from rlx.metrics import Metrics
from rlx.models import Model
from rlx.models.moving import moving
from rlx.train import packing, policies, processes, reference
from rlx.train.assemble import Run, Stage
from rlx.train.log import say
from rlx.train.loop import HostBatch, Programs
from rlx.train.restore import restore
from rlx.train.sharding import fetch, put_batch, share
from rlx.train.state import TrainState
from rlx.train.step import make_eval_step, make_score
from rlx.train.updates import make_updates


def make_programs(run: Run, stage: Stage, train_set: Dataset, held_out: Dataset, held: Any, cache: Path) -> Programs:
    """The functions that the loop of a stage calls.

    Args:
      run: model and mesh.
      stage: method and optimizer.
      train_set: the training examples.
      held_out: the held-out examples, maybe none.
      held: the policy as the stage started; None where nothing reads it.
      cache: folder of cached reference log-probabilities.
    """
    beside, models = standing(stage, held, run)
    attached = _cached_reference(run, stage, {"train": train_set, "eval": held_out}, held, cache)
    auxiliary = {role: policy for role, policy in beside.items() if role != "reference" or not attached}
    size = stage.settings.batch_size
    shared = {"mesh": run.mesh, "prompt_length": train_set.lengths.prompt, "models": models}
    updates = make_updates(run, stage, auxiliary, models, train_set.lengths.prompt)
    evaluate = make_eval_step(run.model, stage.method, **shared)
    lay = packing.make_packer(stage.settings, stage.name, prompt_length=train_set.lengths.prompt, mesh=run.mesh)

    learnt: HostBatch = {}

    def read(batch: HostBatch, split: str) -> HostBatch:
        batch = reference.attach(batch, attached[split]) if attached else batch
        return as_read(batch, stage.method)

    def step(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        batch = read(batch, "train")
        learnt.update(batch)
        return updates.step(state, lay(batch))

    def of_batch(state: TrainState, batch: HostBatch) -> Metrics:
        placed = put_batch(read(batch, "eval"), run.mesh)
        return evaluate(state.params, state.method_state, placed, {**auxiliary, **state.followers})

    return Programs(
        step,
        of_batch,
        lambda: held_out.batches(size, mismatched=stage.mismatched, **share(run.mesh)) if len(held_out) else (),
        total=lambda own: total_of(own, run.mesh),
        learnt=lambda: dict(learnt),
        begin=updates.begin,
        plain=updates.plain,
    )


def standing(stage: Stage, held: Any, run: Run) -> tuple[dict[str, Any], dict[str, Model]]:
    """Parameters of the roles that do not follow the policy, and the models of those that have one of their own.

    Of policies of the run's model, the moving part: a step takes the other from the policy that it trains.
    """
    params: dict[str, Any] = {}
    models: dict[str, Model] = {}
    for role, rule in stage.rules.items():
        if rule.run is not None:
            other = restore(rule.run, mesh=run.mesh, optimizer=False)
            params[role], models[role] = policies.held_as(rule, other.state.params["policy"]), other.run.model
        elif not rule.follows:
            params[role] = policies.start(role, policies.held_as(rule, moving(run.model, held)), rule.count)
    return params, models


def as_read(batch: HostBatch, method: Method) -> HostBatch:
    """The batch with the scores of its lists under the names by which a method reads them.

    What stands first in a method's signature is the model's; labels, rewards, scores or advantages further on are the
    data's.
    """
    first, *constants = method.needs
    scored = {"labels", "rewards"} & {*constants} - {*batch} if "scores" in batch else ()
    named = dict.fromkeys(scored, batch["scores"]) if scored else {}
    if "advantages" in constants and "scores" in batch and "advantages" not in batch:
        named["advantages"] = batch["scores"][..., None]  # of the whole response: the same for every token
    return {name: array for name, array in batch.items() if name != first} | named


def _cached_reference(
    run: Run, stage: Stage, data: dict[str, Dataset], held: Any, cache: Path
) -> dict[str, np.ndarray]:
    """Cached log-probabilities by split; nothing where the reference runs in every step."""
    rule = stage.rules.get("reference")
    if rule is None or rule.follows or rule.run is not None:
        return {}
    used, wanted = stage.settings.steps * stage.settings.batch_size, run.settings.reference
    if reference.is_cached(stage.method, wanted, used, len(data["train"])):
        held = policies.held_as(rule, held)
        return {split: _scored(run, stage, dataset, held, cache) for split, dataset in data.items()}
    if wanted == "cached":
        names = ", ".join(sorted(reference.needed(stage.method)))
        say(f"{stage.method.name} reads {names}, not a matter of one example: the reference runs in every step")
    return {}


def _scored(run: Run, stage: Stage, dataset: Dataset, held: Any, cache: Path) -> np.ndarray:
    score = make_score(run.model, mesh=run.mesh, prompt_length=dataset.lengths.prompt)
    return reference.cached_logps(
        cache,
        reference.content_hash(dataset, held, run.model_config),
        dataset,
        stage.settings.batch_size,
        lambda batch: fetch(score(held, put_batch(batch, run.mesh))["logps"]),
        share(run.mesh),
    )


def total_of(own: int, mesh: Mesh) -> int:
    """The sum over all shares of a batch, from the number in that of this process."""
    group = processes.group()
    parts = dict(group.gather([share(mesh)["process_index"], own]))
    return sum(parts.values())
