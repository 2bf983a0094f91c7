"""Group-relative REINFORCE on stale samples: files, gradients, sampling, and verdicts that follow the rows."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import off_policy_reinforce as experiment
from experiments import parts as frame

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png"}
PART = experiment.PART


def test_smoke_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame.run(experiment.EXPERIMENT, ["--smoke", f"--workdir={tmp_path}"])
    assert {file.name for file in tmp_path.iterdir()} == FILES
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    fresh = [row["curve"] for row in rows if row["stale"] == 1 and row["seed"] == 1000]
    np.testing.assert_allclose(fresh, np.broadcast_to(fresh[0], (2, 3)), rtol=1e-4)
    assert all(row["first_update"] < 1e-6 and 0 < row["final_reward"] <= row["peak_reward"] < 1 for row in rows)
    assert "verdict" not in capsys.readouterr().out


def test_the_gradient_is_that_of_reinforce_on_average() -> None:
    """With very many samples: the softmax policy gradient p (r - J) of the expected reward."""
    logits, right = jnp.array([[0.0, 1.0, -1.0]]), jnp.array([[True, False, False]])
    taken = experiment.sample(jax.random.key(0), logits, 100_000)
    found = experiment.gradient(experiment.VANILLA, logits, logits, taken, right)
    p = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(-found, p * (np.asarray(right) - p[0, 0]), atol=5e-3)


def test_only_the_clip_drops_what_moved_too_far() -> None:
    """A right action twice as likely as when it was sampled: 0.2 drops it, 2.0 and REINFORCE do not."""
    sampler, taken, right = jnp.zeros((1, 4)), jnp.array([[0, 1]]), jnp.array([[True, False, False, False]])
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125]]))
    rise = {
        method: -experiment.gradient(method, logits, sampler, taken, right)[0, 0]
        for method in (experiment.NARROW, experiment.WIDE, experiment.VANILLA)
    }
    assert rise[experiment.NARROW] < rise[experiment.WIDE] == rise[experiment.VANILLA]


def test_samples_have_their_probabilities() -> None:
    logits = jnp.log(jnp.array([[0.1, 0.2, 0.7], [0.98, 0.01, 0.01]]))
    taken = np.asarray(experiment.sample(jax.random.key(1), logits, 20_000))
    shares = [[(row == action).mean() for action in range(3)] for row in taken]
    np.testing.assert_allclose(shares, np.exp(logits), atol=0.015)


def test_one_to_three_actions_are_right() -> None:
    counts = experiment.draw(0, 200, 8).sum(-1)
    assert set(counts.tolist()) == {1, 2, 3}


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(size: str) -> None:
    cells = frame.cells("tabular", PART, PART.config(size))
    assert len({tuple(cell[key] for key in experiment.EXPERIMENT.keys) for cell in cells}) == len(cells)
    assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


@pytest.mark.parametrize(("good", "verdict"), [(True, "reproduced"), (False, "not reproduced")])
def test_verdicts_follow_the_rows(good: bool, verdict: str) -> None:
    rows: list[dict[str, Any]] = []
    for cell in PART.cells(PART.config("default")):
        better = {experiment.WIDE: 0.7, experiment.GRPO: 0.5 if good else 0.9}.get(cell["method"], 0.5)
        reward = (better if good or cell["method"] != experiment.WIDE else 0.3) + cell["seed"] / 1e4
        rows.append({**cell, "final_reward": reward, "first_update": 1e-8 if good else 1e-3})
    tested = PART.tested(PART.config("default"), rows)
    assert {claim.verdict for claim, _ in tested} == {verdict} and len(tested) == 8
    assert all(source for _, source in tested)
