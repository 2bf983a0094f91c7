"""The ahead-of-time compilation without its packages: what it reads, tells and refuses."""

import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "kernels" / "aot"


def load(name):
    """A module of the folder, which is a place of scripts and no package."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


aot, targets = load("compile"), load("targets")

PRINTED = """I0000 a line of the compiler
@begin
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'sweep' for 'sm_90a'
ptxas info    : Function properties for sweep
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 138 registers, used 2 barriers
ptxas info    : Compiling entry function 'product' for 'sm_90a'
    96 bytes stack frame, 96 bytes spill stores, 68 bytes spill loads
ptxas info    : Used 255 registers, used 2 barriers
@end {"target": "h200"}
@begin
@end {"target": "h200", "error": "no"}
@begin
the process dies here
"""


def program(target="h200", op="head", form="kernel", passed="forward", temp_mib=10.0, kernels=1, assembled=()):
    row = {"target": target, "op": op, "form": form, "pass": passed, "temp_mib": temp_mib}
    return row | {"kernels": kernels, "assembled": list(assembled), "seconds": 1.5}


def test_registers_and_spills_are_read_beside_their_program():
    first, second = aot.read(PRINTED)
    assert first["assembled"] == [
        {"kernel": "sweep", "registers": 138, "spill_bytes": 0},
        {"kernel": "product", "registers": 255, "spill_bytes": 164},
    ]
    assert second == {"target": "h200", "error": "no", "assembled": []}


def test_the_table_shows_memory_beside_the_naive_form():
    kernel = program(assembled=[{"kernel": "sweep", "registers": 138, "spill_bytes": 0}])
    rows = aot.with_shares([kernel, program(form="naive", temp_mib=80.0, kernels=0)])
    lines = aot.table(rows).splitlines()
    assert lines[2] == "| h200 | head | kernel | forward | 10.0 | 12.5 % | 1.5 | 138 (0) |"
    assert lines[3] == "| h200 | head | naive | forward | 80.0 | 100.0 % | 1.5 |  |"
    assert not aot.faults(rows)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (program() | {"error": "ValueError: refused"}, "h200, head, kernel, forward: ValueError: refused"),
        (program(kernels=0), "no kernel"),
        (program("v5e", temp_mib=33.0), "33.0 MiB of temporary memory, more than 32"),
        (program(form="xla", temp_mib=16.0), "0.16 of the naive form's"),
        (program(assembled=[{"kernel": "sweep", "registers": 255, "spill_bytes": 96}]), "sweep spills 96 bytes"),
    ],
)
def test_what_is_not_as_it_must_be_is_named(row, fault):
    naive = program(row["target"], form="naive", temp_mib=100.0, kernels=0)
    (found,) = aot.faults(aot.with_shares([row, naive]))
    assert fault in found


def test_shares_need_a_naive_form():
    (fault,) = aot.faults(aot.with_shares([program(form="xla")]))
    assert "None of the naive form's" in fault


def test_a_missing_package_fails_and_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    absent = {"jax": "0.10.2", "libtpu": None}
    monkeypatch.setattr(targets, "installed", lambda target: absent)
    assert aot.main(["--target", "v5e", "--json", str(tmp_path / "out.json")]) == 1
    assert capsys.readouterr().err == (
        "error: v5e: libtpu not installed; in an environment of its own:"
        " python -m pip install --no-deps -r kernels/aot/requirements-tpu.txt\n"
    )
    assert json.loads((tmp_path / "out.json").read_text())["versions"] == absent


def test_a_process_that_dies_fails(monkeypatch):
    target = targets.TARGETS["v5e"]
    monkeypatch.setattr(targets, "environment", lambda target: {"PYTHONPATH": "", "PATH": ""})
    monkeypatch.setattr(targets, "FOLDER", FOLDER / "nowhere")
    (row,) = aot.compile_for(target, [])
    assert "ended with 2 after 0 programs" in row["error"]
    assert aot.faults(aot.with_shares([row]))


def test_every_target_pins_what_it_needs():
    for target in targets.TARGETS.values():
        pinned = targets.required(target)
        assert pinned["jax"] == pinned["jaxlib"] == "0.10.2"
        assert ("libtpu" in pinned) == (target.platform == "tpu")
    assert "NVIDIA H200" in (FOLDER / "h200.textproto").read_text()


def test_every_program_is_compiled_in_every_form(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent / "benchmarks"))
    worker = load("worker")
    import jax

    found = list(worker.programs(targets.TARGETS["h200"], jax.devices()[0], (8, 16, 32)))
    names = [tuple(name[key] for key in aot.NAME[1:]) for name, *_ in found]
    assert len(set(names)) == 12
    for name, function, arguments in found:
        if name["form"] == "naive":
            result = worker.compile_program(jax.devices()[0], function, arguments)
            assert result["kernels"] == 0 and result["temp_mib"] >= 0
