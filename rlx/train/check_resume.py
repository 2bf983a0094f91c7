"""Proves on a config of the user's own that a run which is interrupted and goes on ends with the same bits.

The first steps of every stage are trained three times: straight, straight again, and interrupted in the middle of every
stage, from where a new trainer goes on through the checkpoint. What the first two differ in is no matter of resuming:
the device, or a function of the config, does not give the same twice.
"""

from __future__ import annotations

import copy
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from rlx.errors import UserError
from rlx.report import tables
from rlx.train import processes
from rlx.train.assemble import Run, assemble
from rlx.train.compare import differing
from rlx.train.interrupts import Interrupts, Stopped
from rlx.train.log import say
from rlx.train.recovery import carry_on
from rlx.train.settings import STAGES
from rlx.train.trainer import Stop, Trainer
from rlx.train.watch import Watching
from rlx.train.workdir import Workdir, use_compilation_cache

RUNS = ("straight", "again", "resumed")
COMPILED = "compiled"
PARTS = ("data order", "batches", "metrics of a step")

Place = tuple[str, int]
"""Stage and step."""


class Seen(NamedTuple):
    """What a step has read and reported."""

    index: list[int]
    batch: int
    metrics: dict[str, list[float]]


class Recorder:
    """A watch that keeps what every step has read and reported."""

    def __init__(self, watch: Watching, seen: dict[Place, Seen]):
        self.watch, self.seen = watch, seen

    def __call__(self, stage: str, step: int, found: Mapping[str, Any], batch: Mapping[str, np.ndarray]) -> None:
        """As :class:`Watching` says."""
        content = 0
        for name in sorted(batch):
            array = np.ascontiguousarray(batch[name])
            content = zlib.crc32(array.tobytes(), zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), content))
        values = {name: [float(part) for part in metric] for name, metric in found.items()}
        self.seen[stage, step] = Seen(np.asarray(batch["index"]).tolist(), content, values)
        self.watch(stage, step, found, batch)


def check_resume(config: Mapping[str, Any] | ConfigDict, workdir: str | Path, steps: int = 4) -> bool:
    """Trains three times, prints what differs, and returns whether nothing does.

    Args:
      config: of the run, nested dicts.
      workdir: of the run, which is left alone: the three runs are beside it, and are removed unless they differ.
      steps: of each stage.

    Raises:
      UserError: as of a run, or the folder beside ``workdir`` holds something else.
    """
    if type(steps) is not int or steps < 2:
        raise UserError(f"--steps={steps} must be a whole number of at least 2: what is interrupted has a middle.")
    run, folder = assemble(shortened(config, steps)), beside(workdir)
    processes.group().lead(lambda: _clear(folder))
    use_compilation_cache(folder / COMPILED)
    seen: dict[str, dict[Place, Seen]] = {name: {} for name in RUNS}
    for name in RUNS:
        say(f"check-resume: the run {name!r}")
        for stage in run.stages if name == "resumed" else ():
            middle = (stage.name, (stage.settings.steps + 1) // 2)
            _train(run, folder / name, seen[name], lambda *place, at=middle: place == at)
        _train(run, folder / name, seen[name])
    again, resumed = ({**_compare(seen, name), **_files(folder, name)} for name in RUNS[1:])
    if processes.group().leads:
        _show(again, resumed, folder)
    same = not any(again.values()) and not any(resumed.values())
    processes.group().lead(lambda: shutil.rmtree(folder) if same else None)
    return same


def beside(workdir: str | Path) -> Path:
    """The folder of the check of a run directory."""
    folder = Path(workdir).absolute()
    return folder.with_name(f"{folder.name}.check_resume")


def shortened(config: Mapping[str, Any] | ConfigDict, steps: int) -> dict[str, Any]:
    """The config with few steps in every stage, a row for each, and no other outlet than files.

    >>> block = {"steps": 90, "optimizer": {"name": "adamw", "warmup_steps": 10}}
    >>> shortened({"sft": block, "loggers": ("wandb",)}, 4)["sft"]["optimizer"]
    {'name': 'adamw', 'warmup_steps': 4}
    """
    plain = copy.deepcopy(config.to_dict() if isinstance(config, ConfigDict) else dict(config))
    for name in STAGES:
        if name not in plain:
            continue
        block = plain[name] = dict(plain[name])
        block |= {"steps": min(block["steps"], steps), "log_every": 1, "eval_every": 0, "checkpoint_every": 0}
        optimizer = block.get("optimizer", {})
        if "warmup_steps" in optimizer:
            block["optimizer"] = {**optimizer, "warmup_steps": min(optimizer["warmup_steps"], block["steps"])}
    return plain | {"loggers": ()}


def _clear(folder: Path) -> None:
    """Removes what an earlier check has left, and nothing else."""
    other = sorted({path.name for path in folder.glob("*")} - {*RUNS, COMPILED})
    if other:
        raise UserError(f"{folder} holds {other[0]}, which is of no check: move it, or name another --workdir.")
    shutil.rmtree(folder, ignore_errors=True)


def _train(run: Run, folder: Path, seen: dict[Place, Seen], stop: Stop | None = None) -> None:
    """Trains to the end, or to where ``stop`` says."""
    with Workdir(folder) as workdir:
        workdir.claim(run.config)
        with Interrupts() as interrupts:

            def make() -> Trainer:
                trainer = Trainer(run, workdir, interrupts, stop)
                trainer.watch = Recorder(trainer.watch, seen)
                return trainer

            try:
                carry_on(make)
            except Stopped:
                if interrupts.requested:
                    raise


def _compare(seen: Mapping[str, Mapping[Place, Seen]], name: str) -> dict[str, list[str]]:
    """Part of what steps have read and reported -> where it is another one than in the straight run."""
    straight, other = seen["straight"], seen[name]
    places = [*straight, *(place for place in other if place not in straight)]
    found: dict[str, list[str]] = {}
    for number, part in enumerate(PARTS):
        wrong = [p for p in places if p not in straight or p not in other or straight[p][number] != other[p][number]]
        found[part] = [f"{stage} {step}" for stage, step in wrong]
    return found


def _files(folder: Path, name: str) -> dict[str, list[str]]:
    wrong = differing(folder / name, folder / "straight")
    return {
        "files": [path for path in wrong if "." in path[1:]],
        "state": [path for path in wrong if "." not in path[1:]],
    }


def _show(again: Mapping[str, list[str]], resumed: Mapping[str, list[str]], folder: Path) -> None:
    def told(wrong: list[str]) -> str:
        return f"{len(wrong)} differ, {wrong[0]} first" if wrong else "the same bits"

    rows = [{"": part, "straight twice": told(again[part]), "interrupted": told(resumed[part])} for part in again]
    tables.show(rows, "a run, once more, and interrupted and gone on with")
    for part, places in resumed.items():
        for place in places:
            print(f"{part}: {place} differs between {folder}/straight and {folder}/resumed")
    if any(again.values()):
        print("Two straight runs differ: the device or a function of the config is not deterministic (see the README).")
    elif any(resumed.values()):
        print("Two straight runs are the same, and the interrupted one is not: it does not resume to the same bits.")
    else:
        print("An interrupted run ends with the same bits.")
