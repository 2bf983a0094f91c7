"""The compiled functions of a stage, on host batches: the step, the evaluation, and the reference behind both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlx.data.dataset import Dataset
from rlx.train import reference
from rlx.train.assemble import Run, Stage
from rlx.train.log import say
from rlx.train.loop import HostBatch, Programs
from rlx.train.sharding import put_batch
from rlx.train.step import make_eval_step, make_score, make_train_step


def make_programs(run: Run, stage: Stage, train_set: Dataset, held_out: Dataset, held: Any, cache: Path) -> Programs:
    """The functions that the loop of a stage calls.

    Args:
      run: model and mesh.
      stage: method and optimizer.
      train_set: the training examples.
      held_out: the held-out examples, maybe none.
      held: parameters of the reference policy; None without one.
      cache: folder of cached reference log-probabilities.
    """
    attached, auxiliary = _reference(run, stage, {"train": train_set, "eval": held_out}, held, cache)
    size = stage.settings.batch_size
    shared = {"mesh": run.mesh, "prompt_length": train_set.lengths.prompt}
    step = make_train_step(
        run.model, stage.method, stage.optimizer, micro_batches=stage.settings.micro_batches, **shared
    )
    evaluate = make_eval_step(run.model, stage.method, **shared)

    def put(batch: HostBatch, split: str) -> dict[str, jax.Array]:
        return put_batch(reference.attach(batch, attached[split]) if attached else batch, run.mesh)

    return Programs(
        lambda state, batch: step(state, put(batch, "train"), auxiliary),
        lambda state, batch: evaluate(state.params, state.method_state, put(batch, "eval"), auxiliary),
        lambda: held_out.batches(size, mismatched=stage.mismatched, **this_process()) if len(held_out) else (),
    )


def _reference(
    run: Run, stage: Stage, data: dict[str, Dataset], held: Any, cache: Path
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Cached log-probabilities by split, and the policies that run in every step: one of the two is empty."""
    if held is None:
        return {}, {}
    used, wanted = stage.settings.steps * stage.settings.batch_size, run.settings.reference
    if reference.is_cached(stage.method, wanted, used, len(data["train"])):
        return {split: _scored(run, stage, dataset, held, cache) for split, dataset in data.items()}, {}
    if wanted == "cached":
        names = ", ".join(sorted(reference.needed(stage.method)))
        say(f"{stage.method.name} reads {names}, not a matter of one example: the reference runs in every step")
    return {}, {"reference": held}


def _scored(run: Run, stage: Stage, dataset: Dataset, held: Any, cache: Path) -> np.ndarray:
    score = make_score(run.model, mesh=run.mesh, prompt_length=dataset.lengths.prompt)
    return reference.cached_logps(
        cache,
        reference.content_hash(dataset, held, run.model_config),
        dataset,
        stage.settings.batch_size,
        lambda batch: np.asarray(score(held, put_batch(batch, run.mesh))["logps"]),
    )


def this_process() -> dict[str, Any]:
    """Which part of a batch this process reads."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}
