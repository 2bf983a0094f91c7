"""What the package says about itself agrees, installs whole, and imports light."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import rlx
from experiments import import_cost

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = ("rlx", "kernels/rlx_kernels")
HEAVY = ("flax", "optax", "orbax", "grain", "matplotlib", "tensorflow_datasets", "tensorflow", "chex", "rich")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def find(pattern, text):
    match = re.search(pattern, text, re.MULTILINE)
    assert match, pattern
    return match.group(1)


def test_version_is_the_same_everywhere():
    version = find(r'version="([^"]+)"', read("setup.py"))
    assert find(r"^## (\S+)", read("CHANGELOG.md")) == version
    assert find(r"^version: (\S+)", read("CITATION.cff")) == version
    assert rlx.__version__ == version


def test_license_is_the_same_everywhere():
    assert "Apache License" in read("LICENSE")
    assert find(r'license="([^"]+)"', read("setup.py")) == "Apache-2.0"
    assert find(r"^license: (\S+)", read("CITATION.cff")) == "Apache-2.0"


@pytest.mark.parametrize("target", ["quickstart", "test"])
def test_make_targets_of_the_readme_exist(target):
    assert re.search(rf"^make {target}\b", read("README.md"), re.MULTILINE)
    assert re.search(rf"^{target}:", read("Makefile"), re.MULTILINE)


def test_make_installs_as_the_readme_says():
    commands = re.findall(r"^(python -m pip install -e [^#\n]+)", read("README.md"), re.MULTILINE)
    assert commands
    for command in commands:
        extras = find(r"-e (\S+)", command)
        assert f"-m pip install -e {extras}\n" in read("Makefile"), command


def test_extras_of_the_readme_exist():
    extras = re.findall(r'-e "\.\[(\w+)\]"', read("README.md"))
    assert extras
    for extra in extras:
        assert re.search(rf'^    "{extra}": ', read("setup.py"), re.MULTILINE), extra


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py")}
    assert folders
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_import_loads_nothing_heavy():
    script = f"import rlx, sys; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_import_cost_measures_both_modules():
    cost = import_cost.measure(repeats=1)
    assert cost["ratio"] == pytest.approx(cost["rlx_s"] / cost["jax_s"])
    assert min(cost.values()) > 0
