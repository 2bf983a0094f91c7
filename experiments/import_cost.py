r"""What `import rlx` costs beside `import jax`: processor seconds, each in fresh processes.

The two imports alternate, so that a busy machine slows both; the medians and their ratio are printed as one JSON line.

  python -m experiments.import_cost --repeats=11
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

MODULES = ("jax", "rlx")


def processor_seconds(module: str) -> float:
    """Returns user and system seconds of a fresh interpreter that imports ``module`` and ends."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def measure(repeats: int) -> dict[str, float]:
    """Returns the median seconds of each module and the ratio rlx / jax; one run of each warms the disk cache."""
    for module in MODULES:
        processor_seconds(module)
    rounds = [[processor_seconds(module) for module in MODULES] for _ in range(repeats)]
    jax_seconds, rlx_seconds = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {"jax_s": jax_seconds, "rlx_s": rlx_seconds, "ratio": rlx_seconds / jax_seconds}


def main() -> None:
    """Prints the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="fresh processes per module (default 7)")
    cost = measure(parser.parse_args().repeats)
    print(json.dumps({name: round(value, 3) for name, value in cost.items()}))


if __name__ == "__main__":
    main()
