"""``python -m rlx.evaluate``: the metrics of a checkpoint on held-out examples, with intervals."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from rlx import config as configs
from rlx.data import pipeline
from rlx.errors import UserError
from rlx.report import tables
from rlx.report.run_report import final_rows
from rlx.train import processes
from rlx.train.checkpoint import Checkpoints
from rlx.train.kept import kept_reward_model
from rlx.train.loop import Row
from rlx.train.loop import evaluate as average
from rlx.train.programs import as_read, standing, total_of
from rlx.train.restore import Restored, open_run
from rlx.train.sharding import put_batch, share
from rlx.train.step import make_eval_step
from rlx.train.trainer import programs_of
from rlx.train.workdir import CHECKPOINTS

USAGE = f"""python -m rlx.evaluate --checkpoint=DIR [--data=FILE]
  {processes.OPTIONS}

Prints what the last checkpoint of a run directory (or the one named, DIR/checkpoints/00000120) scores on the examples
that its run held out, or on all rows of another FILE. Accuracies come with their 95 % Wilson interval.

{processes.ABOUT}"""


def evaluate(checkpoint: Restored, data: str | None = None) -> Row:
    """The metrics of a checkpoint, as the run's own evaluations compute them.

    Args:
      checkpoint: see :func:`rlx.train.restore.restore`.
      data: a file to evaluate on, all of it; the run's held-out examples unless given.

    Raises:
      UserError: nothing is held out, or the data does not fit.
    """
    run, stage, state = checkpoint.run, checkpoint.stage, checkpoint.state
    dataset = _dataset(checkpoint, data)
    if stage.rollout is not None:
        return _of_responses(checkpoint, dataset)
    beside, models = standing(stage, checkpoint.held, run)
    program = make_eval_step(
        run.model, stage.method, mesh=run.mesh, prompt_length=dataset.lengths.prompt, models=models
    )
    auxiliary = {**beside, **state.followers}
    batches: Iterable[dict[str, Any]] = dataset.batches(
        stage.settings.batch_size, mismatched=stage.mismatched, **share(run.mesh)
    )
    return average(
        lambda batch: program(
            state.params, state.method_state, put_batch(as_read(batch, stage.method), run.mesh), auxiliary
        ),
        batches,
        partial(total_of, mesh=run.mesh),
    )


def _of_responses(checkpoint: Restored, dataset: pipeline.Dataset) -> Row:
    """What the likeliest responses to the prompts are worth, or the episodes of the likeliest actions."""
    checkpoints = Checkpoints(checkpoint.folder / CHECKPOINTS)
    judge = kept_reward_model(checkpoint.run, checkpoints, checkpoint.state.params["policy"])
    held, cache = checkpoint.held, checkpoint.folder / "cache"
    programs = programs_of(checkpoint.run, checkpoint.stage, dataset, dataset, held, judge, cache)
    return average(partial(programs.evaluate, checkpoint.state), programs.held_out())


def _dataset(checkpoint: Restored, data: str | None) -> pipeline.Dataset:
    run, stage = checkpoint.run, checkpoint.stage
    load = partial(
        pipeline.load, tokenizer=run.tokenizer, kind=stage.kind, seed=run.settings.seed, workdir=checkpoint.folder
    )
    if data is not None and run.settings.task:
        raise UserError(f"--data={data} is not used: the examples of the run are those of its config.task.")
    if data is not None:
        whole = {
            "source": "jsonl",
            "path": data,
            "eval_path": None,
            "eval_fraction": 0.0,
            "limit": None,
            "flip_rate": 0.0,
        }
        own = {key: value for key, value in stage.data.items() if key != "records"}
        return load({**own, **whole})[0]
    held_out = load(stage.data)[1]
    if not len(held_out):
        raise UserError(
            f"the run in {checkpoint.folder} held nothing out (data.eval_fraction=0): name a file, --data=FILE."
        )
    if stage.kind == "sft" and "environment" in run.settings.task:
        from rlx.train.episodes import Demonstrations  # it brings the environments along

        return Demonstrations(held_out, run.settings.task)
    return held_out


def cli(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        options, _ = configs.parse_options(argv, USAGE)
        with processes.started(processes.plan_of(options)) as group:
            checkpoint = open_run(options["checkpoint"])
            row = evaluate(checkpoint, options["data"])
            place = {"stage": checkpoint.stage.name, "step": checkpoint.step, "split": "eval"}
            title = f"{checkpoint.folder} on {options['data'] or 'its held-out examples'}"
            if group.leads:
                tables.show(final_rows([place | row]), title)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli(sys.argv[1:]))
