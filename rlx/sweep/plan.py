"""What a sweep consists of: its runs with stable ids, checked as a whole, and recorded in the work directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rlx import bounds
from rlx import config as configs
from rlx.build import build
from rlx.errors import UserError
from rlx.report.rows import write_atomically
from rlx.report.sweep_report import is_seed

MANIFEST, RESULT, ERROR = "sweep.json", "result.json", "error.txt"


class Run(NamedTuple):
    """One run: its place in the list, its directory's name, its overrides, and the config that they give."""

    index: int
    id: str
    overrides: dict[str, Any]
    config: ConfigDict


class Plan(NamedTuple):
    """A sweep: the file it comes from, the base config with the command line's overrides, and the runs."""

    spec: str
    sweep: str | None
    base: ConfigDict
    runs: tuple[Run, ...]


def make_plan(spec: str, sweep: str | None = None, base_overrides: Mapping[str, str] | None = None) -> Plan:
    """Expands ``get_sweep(sweep)`` of a config file and checks every run before any of them starts.

    Args:
      spec: ``path.py[:arg]`` of the config file.
      sweep: the argument of `get_sweep`; called without one if None.
      base_overrides: overrides of the base config as text (``{"method.beta": "0.2"}``).

    Raises:
      UserError: the file has no `get_sweep`, two runs are the same, or a run's overrides do not fit the config
        or the method; the message names the run.
    """
    module = configs.load_module(spec)
    base = configs.override(configs.config_of(module, spec), base_overrides or {}, parse=True)
    runs: list[Run] = []
    seen: dict[str, int] = {}
    for index, overrides in enumerate(_expanded(module, spec, sweep)):
        try:
            config = configs.override(base, overrides)
            _check_method(config)
        except UserError as error:
            raise UserError(f"run {index} of the sweep, {overrides}: {error}") from None
        digest = configs.config_hash(config)[:8]
        if digest in seen:
            raise UserError(f"runs {seen[digest]} and {index} of the sweep are the same: {overrides}.")
        seen[digest] = index
        runs.append(Run(index, f"{index:03d}-{digest}", dict(overrides), config))
    return Plan(spec, sweep, base, tuple(runs))


def _expanded(module: ModuleType, spec: str, sweep: str | None) -> list[dict[str, Any]]:
    path, _ = configs.split_spec(spec)
    function = getattr(module, "get_sweep", None)
    if not callable(function):
        raise UserError(f"{path} defines no get_sweep(sweep=None), which returns the list of the runs' overrides.")
    overrides = function() if sweep is None else function(sweep)
    if not isinstance(overrides, list | tuple) or not all(isinstance(run, Mapping) for run in overrides):
        raise UserError(f"get_sweep of {path} must return a list of dicts, not {type(overrides).__name__}.")
    if not overrides:
        raise UserError(f"get_sweep of {path} returned no runs.")
    return [dict(run) for run in overrides]


def _check_method(config: ConfigDict) -> None:
    """A misspelt method or keyword must not surface after hours, in the last run."""
    block = config.get("method")
    if isinstance(block, ConfigDict) and "name" in block:
        build(block.to_dict())


def program_key(run: Run) -> str:
    """Runs of one key are expected to compile to the same programs: they differ in seeds and floats alone."""
    values = configs.flatten(json.loads(configs.to_json(run.config)))
    kept = {key: value for key, value in values.items() if not is_seed(key) and not isinstance(value, float)}
    return configs.config_hash(kept)


def status(run: Run, workdir: Path) -> str:
    """What the run's directory says: finished, failed, started or new."""
    folder = workdir / run.id
    if (folder / RESULT).exists():
        return "finished"
    if (folder / ERROR).exists():
        return "failed"
    return "started" if folder.exists() else "new"


def write_error(folder: Path, problem: str) -> None:
    """Marks a run as failed."""
    write_atomically(folder / ERROR, problem + "\n")


def record(plan: Plan, workdir: Path, extend: bool = False) -> None:
    """Writes the sweep's definition into `workdir`, or checks that it is the one that stands there.

    With `extend` another definition takes its place: new runs are added, and those that are no longer part of the
    sweep stay on disk but leave the table. A run's directory is never reused for another config, because its name
    holds a hash of the config.

    Raises:
      UserError: the directory holds another sweep.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / MANIFEST
    if path.exists() and not extend:
        _refuse_change(plan, read_manifest(path), workdir)
        return
    runs = [{"id": run.id, "overrides": run.overrides} for run in plan.runs]
    base = json.loads(configs.to_json(plan.base))
    manifest = {"config": plan.spec, "sweep": plan.sweep, "base": base, "runs": runs}
    text = json.dumps(manifest, indent=1) + "\n"
    if extend:
        write_atomically(path, text)
        return
    temporary = workdir / f".{MANIFEST}.{os.getpid()}"
    temporary.write_text(text, encoding="utf-8")
    try:
        os.link(temporary, path)  # fails where another process of the same array was first
    except FileExistsError:
        _refuse_change(plan, read_manifest(path), workdir)
    finally:
        temporary.unlink()


def read_manifest(path: Path) -> dict[str, Any]:
    """The definition of a sweep that :func:`record` wrote.

    Raises:
      UserError: it is damaged.
    """
    found = bounds.read_object(path)
    runs = found.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, dict) and isinstance(run.get("id"), str) for run in runs):
        raise UserError(f"{path} is damaged: it lists no runs. Name another --workdir.")
    if not isinstance(found.get("base"), dict):
        raise UserError(f"{path} is damaged: it has no config. Name another --workdir.")
    return found


def _refuse_change(plan: Plan, manifest: Mapping[str, Any], workdir: Path) -> None:
    old, new = [run["id"] for run in manifest["runs"]], [run.id for run in plan.runs]
    if old == new:
        return
    changes = configs.diff(manifest["base"], plan.base)
    if changes:
        what = f"the config has changed ({configs.describe(changes)})"
    else:
        known, wanted = set(old), set(new)
        what = f"{len(wanted - known)} runs are new and {len(known - wanted)} are gone"
    raise UserError(
        f"{workdir} holds another sweep: {what}. Use another --workdir, or --extend to run what is new beside what "
        "is there (nothing is overwritten; runs that are gone leave the table)."
    )


def find_run(plan: Plan, index: str) -> Run:
    """The run of ``--index=i``."""
    try:
        number = int(index)
    except ValueError:
        raise UserError(f"--index takes an int, not {index!r}.") from None
    if not 0 <= number < len(plan.runs):
        raise UserError(f"--index={number}: the sweep has the runs 0 to {len(plan.runs) - 1}.")
    return plan.runs[number]


def listing(runs: Sequence[Run], workdir: Path) -> list[dict[str, Any]]:
    """The rows that ``--list`` prints."""
    return [
        {"index": run.index, "run": run.id, "status": status(run, workdir), **configs.flatten(run.overrides)}
        for run in runs
    ]
