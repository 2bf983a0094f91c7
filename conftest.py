"""The process that tests run in: virtual devices, a compilation cache, and the names that docstring examples use."""

import ctypes
import gc
import itertools
import os
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent
DEVICES = "--xla_force_host_platform_device_count"
# thousands of tiny programs run once or twice each: most of the time goes into compiling them
QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)
if metadata.version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
    QUICK += ("--xla_cpu_use_fusion_emitters=false",)


def _set_environment() -> None:
    """Must run before jax is imported; what the user has set stays, and subprocesses of tests inherit it."""
    flags = os.environ.get("XLA_FLAGS", "")
    wanted = [f"{DEVICES}=8", *QUICK]
    new = [flag for flag in wanted if flag.partition("=")[0] not in flags]
    os.environ["XLA_FLAGS"] = " ".join([*flags.split(), *new])
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    cache = os.environ.get("RLX_TEST_CACHE", str(ROOT / ".cache" / "jax"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    os.environ.setdefault("MPLBACKEND", "agg")


_set_environment()
# tracing makes many objects that live on; looking through them as often as Python does takes a tenth of the time
gc.set_threshold(100_000, 20, 10)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import rlx  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--vectors``, which test modules read with ``config.getoption("--vectors")``."""
    vectors = ROOT / "tests" / "vectors"
    parser.addoption(
        "--vectors", type=Path, default=vectors, metavar="DIR", help=f"conformance vectors (default: {vectors})"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All properties of a method in a row, after everything else: neighbours share compiled programs."""
    items.sort(key=lambda item: item.callspec.params["name"] if item.get_closest_marker("property") else "")


TESTS_RUN = itertools.count(1)


def pytest_runtest_teardown() -> None:
    """Forgets compiled programs now and then: those of thousands of tests fill gigabytes, and slow each new one."""
    if next(TESTS_RUN) % 150:
        return
    jax.clear_caches()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # else glibc keeps what is freed, four gigabytes in the end


@pytest.fixture(autouse=True)
def docstring_names(doctest_namespace: dict) -> None:
    """The names every example may use without importing them."""
    doctest_namespace.update(jax=jax, jnp=jnp, np=np, rlx=rlx)
