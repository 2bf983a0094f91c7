"""``train(config, workdir)``, and the command line around it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rlx import config as configs
from rlx.errors import UserError
from rlx.report import tables
from rlx.report.run_report import final_rows, fitting, read_run
from rlx.train import processes
from rlx.train.assemble import assemble
from rlx.train.interrupts import STOP, Interrupts, Stopped
from rlx.train.log import say
from rlx.train.recovery import carry_on
from rlx.train.trainer import Stop, Trainer
from rlx.train.workdir import CACHE, Workdir, use_compilation_cache, versions

USAGE = f"""python -m rlx.train --config=FILE.py[:ARG] --workdir=DIR [--config.KEY.KEY=VALUE ...] [--force]
  [--check-resume] [--steps=4]
  {processes.OPTIONS}

Trains what get_config(ARG) of the config file describes, stage by stage, and writes config.json, metrics.jsonl,
table.md, table.csv, plot.png, result.json and checkpoints/ into DIR. The same command goes on where an interrupted
run stopped; SIGTERM, SIGUSR1, Ctrl-C and a file DIR/STOP make it save first. --force goes on with a config that
differs from the one in DIR.

--check-resume proves, on --steps steps of each stage and beside DIR, that an interrupted run ends with the same bits,
prints what differs, and exits with 1 where anything does.

{processes.ABOUT}"""


def train(
    config: Mapping[str, Any] | ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    stop: Stop | None = None,
    force: bool = False,
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
      UserError: a mistake in the config, the data or the work directory, a loss that is not finite, or a disk
        that refuses (:class:`rlx.train.storage.StorageError`).
      Stopped: SIGTERM, SIGUSR1, Ctrl-C, a file ``STOP`` in the run directory, or ``stop``; the same call goes on.
    """
    run = assemble(config)
    processes.check_started()
    processes.check_same(processes.group(), run.config | {"versions": versions()})
    with Workdir(workdir) as folder:
        folder.claim(run.config, force=force)
        finished = folder.result()
        if finished is not None:
            return finished["metrics"]
        with Interrupts(folder.path / STOP if processes.group().leads else None) as interrupts:
            return carry_on(lambda: Trainer(run, folder, interrupts, stop))


def cli(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    code = 0
    try:
        options, overrides = configs.parse_options(argv, USAGE)
        with processes.started(processes.plan_of(options)) as group:
            config = configs.override(configs.load(options["config"]), overrides, parse=True)
            code = run(config, options)
            if group.leads and not options["check_resume"]:
                show(options["workdir"])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        say(str(stopped))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from the last checkpoint")
        return 130
    return code


def run(config: ConfigDict, options: Mapping[str, Any]) -> int:
    """Trains, or checks that it would resume, as the options of the command line say; returns the exit code."""
    workdir, steps = options["workdir"], options["steps"]
    if options["check_resume"]:
        from rlx.train.check_resume import check_resume

        if not str(steps or 4).isdigit():
            raise UserError(f"--steps takes a whole number, not {steps!r}.")
        return 0 if check_resume(config, workdir, int(steps or 4)) else 1
    if steps is not None:
        raise UserError("--steps is not used: it goes with --check-resume.")
    use_compilation_cache(Path(workdir).absolute() / CACHE)
    train(config, workdir, force=options["force"])
    return 0


def show(workdir: str) -> None:
    """Prints the last rows of a run."""
    tables.show(fitting(final_rows(read_run(workdir))), f"{workdir}: last rows of metrics.jsonl")
