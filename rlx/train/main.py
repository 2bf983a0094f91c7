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
from rlx.train.assemble import assemble
from rlx.train.interrupts import Interrupts, Stopped
from rlx.train.log import say
from rlx.train.recovery import carry_on
from rlx.train.trainer import Stop, Trainer
from rlx.train.workdir import CACHE, Workdir, use_compilation_cache

USAGE = """python -m rlx.train --config=FILE.py[:ARG] --workdir=DIR [--config.KEY.KEY=VALUE ...] [--force]

Trains what get_config(ARG) of the config file describes, stage by stage, and writes config.json, metrics.jsonl,
table.md, table.csv, plot.png, result.json and checkpoints/ into DIR. The same command goes on where an interrupted
run stopped; SIGTERM and Ctrl-C save first. --force goes on with a config that differs from the one in DIR.
"""


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
      Stopped: SIGTERM, Ctrl-C or ``stop``; the same call goes on.
    """
    run = assemble(config)
    with Workdir(workdir) as folder:
        folder.claim(run.config, force=force)
        finished = folder.result()
        if finished is not None:
            return finished["metrics"]
        with Interrupts() as interrupts:
            return carry_on(lambda: Trainer(run, folder, interrupts, stop))


def cli(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        config, options = configs.parse_argv(argv, USAGE)
        use_compilation_cache(Path(options["workdir"]).absolute() / CACHE)
        train(config, options["workdir"], force=options["force"])
        tables.show(
            fitting(final_rows(read_run(options["workdir"]))), f"{options['workdir']}: last rows of metrics.jsonl"
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        say(str(stopped))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from the last checkpoint")
        return 130
    return 0
