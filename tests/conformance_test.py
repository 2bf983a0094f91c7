"""Every vector file of ``--vectors DIR`` through its adapter: all outputs and gradients, in float64.

The format is described by the files themselves: ``cases`` of ``hyperparameters``, ``inputs``, ``expected`` outputs and
``gradients`` of the loss with respect to inputs. A number may be null or a string such as "nan", "inf" or "-inf".
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import adapters

RELATIVE, FLOOR = 1e-9, 1e-15
SPECIAL = {"nan": np.nan, "inf": np.inf, "+inf": np.inf, "-inf": -np.inf, "infinity": np.inf, "-infinity": -np.inf}
VALUE = re.compile(r"nan|[+-]?inf(inity)?", re.IGNORECASE)


def numbers(value: Any) -> Any:
    """Nested lists with null and "inf" made numbers; what is not made of numbers stays as it is."""
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if value is None:
        return np.nan
    return SPECIAL[value.lower()] if isinstance(value, str) and VALUE.fullmatch(value) else value


def to_array(value: Any) -> Any:
    """A jax array of a nested list of numbers; strings, dictionaries and ragged lists stay as they are."""
    if value is None:
        return None
    try:
        array = np.asarray(numbers(value))
    except ValueError:
        return value
    return jnp.asarray(array) if array.dtype.kind in "biuf" else value


def adapter_of(method: str) -> adapters.Adapter:
    """The adapter of a method; a file without one is a failure, never a skip."""
    if method not in adapters.ADAPTERS:
        pytest.fail(
            f"no adapter for method {method!r}: add one to ADAPTERS in tests/adapters/preference.py, policy.py or a "
            "module of its own beside them.",
            pytrace=False,
        )
    return adapters.ADAPTERS[method]


def declared(table: dict[str, Any], method: str, name: str, default: Any) -> Any:
    """What the adapters declare of an array of a method, or of the method."""
    return table.get(f"{method}/{name}", table.get(method, default))


def is_ragged(value: Any) -> bool:
    """Whether nested lists make no array: rows of different lengths."""
    try:
        return np.asarray(value).dtype == object
    except ValueError:
        return True


def difference(method: str, name: str, actual: Any, expected: Any) -> str | None:
    """None when an array agrees with the vector, elementwise; else what is wrong with it, in a line."""
    if isinstance(expected, dict):
        if actual.keys() != expected.keys():
            return f"{name}: got the keys {sorted(actual)}, want {sorted(expected)}"
        found = [difference(method, f"{name}.{key}", actual[key], value) for key, value in expected.items()]
        return "; ".join(filter(None, found)) or None
    expected = numbers(expected)
    if is_ragged(expected):
        if len(actual) != len(expected):
            return f"{name}: got {len(actual)} rows, want {len(expected)}"
        rows = (difference(method, f"{name}[{i}]", *pair) for i, pair in enumerate(zip(actual, expected, strict=True)))
        return next(filter(None, rows), None)
    if np.asarray(expected).dtype.kind not in "biuf":
        return None if actual == expected else f"{name}: got {actual!r}, want {expected!r}"
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        return f"{name}: got shape {actual.shape}, want {expected.shape}"
    expected = np.where(np.isnan(expected), declared(adapters.INSTEAD_OF_NAN, method, name, np.nan), expected)
    relative, floor, _ = declared(adapters.TOLERANCES, method, name, (RELATIVE, FLOOR, ""))
    finite = np.isfinite(expected)
    distance = np.abs(np.where(finite, actual, 0) - np.where(finite, expected, 0))
    allowed = np.maximum(floor, relative * np.abs(np.where(finite, expected, 0)))
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    wrong = np.where(finite, ~(distance <= allowed), ~same)
    if not wrong.any():
        return None
    worst = np.unravel_index(np.argmax(np.where(wrong, np.nan_to_num(distance / allowed, nan=np.inf), -1)), wrong.shape)
    where = f"{name}{list(map(int, worst))}" if worst else name
    return f"{where}: got {actual[worst]!r}, want {expected[worst]!r} ({wrong.sum()} of {wrong.size} differ)"


def evaluate(method: str, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs of the adapter and gradients with respect to the inputs the case names."""
    adapter, hyper = adapter_of(method), case.get("hyperparameters", {})
    inputs = {name: to_array(value) for name, value in case["inputs"].items()}
    wanted = case.get("gradients") or {}
    if not wanted:
        return adapter(hyper, inputs), {}
    key = adapters.GRADIENT_OF.get(method, "loss")

    traceable = getattr(adapter, "traceable", None)

    def loss(differentiated: dict[str, jax.Array], rest: dict[str, Any]) -> tuple[jax.Array, dict[str, Any]]:
        outputs = (traceable or adapter)(hyper, rest | differentiated)
        return outputs[key], outputs

    derivative = jax.grad(loss, has_aux=True)
    chosen = {name: inputs[name].astype(jnp.float64) for name in wanted}
    rest = {name: value for name, value in inputs.items() if name not in chosen}
    return (jax.jit(derivative) if traceable else derivative)(chosen, rest)[::-1]


def problems(method: str, case: dict[str, Any]) -> list[str]:
    """What of a case disagrees, a line each; empty when it passes."""
    with jax.enable_x64(True):
        outputs, gradients = evaluate(method, case)
        outputs, gradients = jax.device_get((outputs, gradients))
    found = []
    for name, expected in case["expected"].items():
        if name in outputs and (judge := adapters.JUDGED.get(f"{method}/{name}")):
            found.append(None if judge(outputs, expected) else f"{name}: {expected!r} does not fit the other outputs")
        elif name in outputs:
            found.append(difference(method, name, outputs[name], expected))
        else:
            found.append(f"{name}: the adapter does not produce it (it produces: {', '.join(sorted(outputs))})")
    for name, expected in (case.get("gradients") or {}).items():
        found.append(difference(method, f"gradient of {name}", gradients[name], expected))
    return [line for line in found if line]


def cases_of(folder: Path) -> list[Any]:
    """One parameter per case of every file; a file that cannot be read is one that fails."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            vector = json.loads(path.read_text())
            for i, case in enumerate(vector["cases"]):
                found.append(pytest.param(vector["method"], case, id=f"{path.stem}-{case.get('name', i)}"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found.append(pytest.param(f"unreadable file {path.name}", {"error": repr(error)}, id=path.stem))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per file and case."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize(("method", "case"), cases_of(metafunc.config.getoption("--vectors")))


def test_vector(method: str, case: dict[str, Any]) -> None:
    """Outputs and gradients agree with the reference."""
    if "error" in case:
        pytest.fail(f"{method}: {case['error']}", pytrace=False)
    found = problems(method, case)
    if found:
        pytest.fail(f"{method}, case {case.get('name')}:\n  " + "\n  ".join(found), pytrace=False)


def test_folder_has_vectors(vectors: Path) -> None:
    """A wrong path must not pass for want of anything to check."""
    assert cases_of(vectors), f"no vector files (*.json) in {vectors}"


def test_tolerances_state_their_reason() -> None:
    """Anything looser than the default says why."""
    assert all(reason for _, _, reason in adapters.TOLERANCES.values())


def _example() -> dict[str, Any]:
    """DPO of one pair, by hand: the margin is 1 - 0, so the loss is log(1 + e^-1) with slope sigma(-1)."""
    loss, slope = float(np.log1p(np.exp(-1.0))), float(1 / (1 + np.exp(1.0)))
    inputs = {"policy_chosen_logps": [-1.0], "policy_rejected_logps": [-2.0]}
    inputs |= {"reference_chosen_logps": [-1.0], "reference_rejected_logps": [-1.0]}
    return {
        "name": "by_hand",
        "hyperparameters": {"beta": 1.0},
        "inputs": inputs,
        "expected": {"loss": loss, "per_example": [loss], "chosen_rewards": [0.0], "rejected_rewards": [-1.0]},
        "gradients": {"policy_chosen_logps": [-slope], "policy_rejected_logps": [slope]},
    }


def test_a_case_by_hand_passes() -> None:
    assert problems("dpo", _example()) == []


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("expected", "loss", 0.31, r"loss: got .*, want .*0\.31"),
        ("expected", "per_example", [[0.5]], r"per_example: got shape \(1,\), want \(1, 1\)"),
        ("expected", "per_example", [None], r"per_example\[0\]: got .*, want .*nan"),
        ("expected", "per_example", ["-inf"], r"per_example\[0\]: got .*, want .*-inf"),
        ("expected", "surprise", [1.0], r"surprise: the adapter does not produce it"),
        ("gradients", "policy_rejected_logps", [0.2689], r"gradient of policy_rejected_logps\[0\]"),
    ],
)
def test_a_wrong_case_fails(part: str, name: str, value: Any, message: str) -> None:
    case = _example()
    case[part] = case[part] | {name: value}
    (found,) = problems("dpo", case)
    assert re.search(message, found), found


def test_numbers_that_json_lacks() -> None:
    np.testing.assert_array_equal(to_array([None, "inf", "-inf", 1.0]), [np.nan, np.inf, -np.inf, 1.0])
    assert to_array(["a", "b"]) == ["a", "b"] and to_array([[1], [1, 2]]) == [[1], [1, 2]]
    assert difference("dpo", "x", [np.nan, np.inf], [None, "inf"]) is None
    assert difference("dpo", "x", [np.inf, np.inf], [None, "inf"]) is not None


def test_rows_of_different_lengths():
    rows = [[1.0], [1.0, 2.0]]
    assert difference("dpo", "x", [np.array(row) for row in rows], rows) is None
    assert difference("dpo", "x", [[1.0], [1.0, 3.0]], rows).startswith("x[1][1]: got")
    assert difference("dpo", "x", [[1.0]], rows) == "x: got 1 rows, want 2"


def test_a_folder_fails_by_file(tmp_path: Path) -> None:
    """The command a user types: a file of an unknown method fails with the remedy, and so does a broken file."""
    wrong = _example()
    wrong["expected"] = {"loss": 0.5}
    files = {"good": ("dpo", _example()), "wrong": ("dpo", wrong), "unknown": ("no_such_method", _example())}
    for stem, (method, case) in files.items():
        (tmp_path / f"{stem}.json").write_text(json.dumps({"method": method, "cases": [case]}))
    (tmp_path / "broken.json").write_text("{")
    options = ["-q", "-p", "no:cacheprovider", "-k", "test_vector", f"--vectors={tmp_path}"]
    command = [sys.executable, "-m", "pytest", str(Path(__file__)), *options]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "3 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "no adapter for method 'no_such_method': add one to ADAPTERS in tests/adapters/" in done.stdout
    assert "loss: got" in done.stdout and "unreadable file broken.json" in done.stdout
