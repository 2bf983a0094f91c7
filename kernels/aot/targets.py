"""The accelerators that programs are compiled for without having one, and the packages that this takes."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]


class Target(NamedTuple):
    """An accelerator: jax's name of its platform, the topology described, the body that is made for it."""

    name: str
    platform: str
    topology: str
    kernel: str

    @property
    def requirements(self) -> Path:
        """The list of packages that compile for this target."""
        return FOLDER / f"requirements-{'tpu' if self.platform == 'tpu' else 'gpu'}.txt"


TARGETS = {
    target.name: target
    for target in (
        Target("v5e", "tpu", "v5e:2x2", "tpu"),
        Target("v5p", "tpu", "v5p:2x2x1", "tpu"),
        Target("v6e", "tpu", "v6e:2x2", "tpu"),
        Target("h200", "cuda", "1x1x1", "hopper"),
    )
}


def required(target: Target) -> dict[str, str]:
    """Packages and versions of the target's list."""
    lines = target.requirements.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def installed(target: Target) -> dict[str, str | None]:
    """The versions of the target's packages in this environment, None for a package that is missing."""
    found: dict[str, str | None] = {}
    for name in required(target):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def missing(target: Target) -> str | None:
    """What to install before compiling for the target, as one line; None if everything is there."""
    absent = [name for name, version in installed(target).items() if version is None]
    if not absent:
        return None
    command = f"python -m pip install --no-deps -r {target.requirements.relative_to(ROOT)}"
    return f"{target.name}: {', '.join(absent)} not installed; in an environment of its own: {command}"


def environment(target: Target) -> dict[str, str]:
    """Environment variables of a process that compiles for the target."""
    paths = (ROOT, ROOT / "kernels", ROOT / "kernels" / "benchmarks")
    new = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    if target.platform == "tpu":  # no question to a metadata server, several processes on one machine
        new |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    else:
        nvcc = metadata.distribution("nvidia-cuda-nvcc-cu12").locate_file("nvidia/cuda_nvcc/bin")
        new |= {"PATH": f"{nvcc}{os.pathsep}{os.environ['PATH']}", "MOSAIC_GPU_DUMP_PTXAS": "1"}
    kept = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")}
    return kept | new


def device(target: Target) -> Any:
    """The description of one device of the target; only in a process with the target's environment."""
    from jax.experimental import topologies

    if target.platform == "tpu":
        return topologies.get_topology_desc(target.topology, platform="tpu").devices[0]
    config = (FOLDER / "h200.textproto").read_text(encoding="utf-8")
    described = topologies.get_topology_desc("", platform="cuda", topology=target.topology, target_config=config)
    return described.devices[0]
