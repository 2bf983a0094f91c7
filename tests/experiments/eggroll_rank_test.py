"""The rank of the noise of evolution strategies: files, theory, tasks, and verdicts that follow the rows."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import eggroll_rank, eggroll_rank_control, eggroll_rank_speed, eggroll_rank_tasks, eggroll_rank_update
from experiments import parts as frame
from experiments.eggroll_rank_update import FULL

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png"}
PARTS = eggroll_rank.EXPERIMENT.parts


def test_smoke_runs_all_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame.run(eggroll_rank.EXPERIMENT, ["--smoke", f"--workdir={tmp_path}"])
    assert {file.name for file in tmp_path.iterdir()} == FILES
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["part"] for row in rows} == set(PARTS)
    numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert np.isfinite(numbers).all() and all(row["forward_ms"] > 0 for row in rows if row["part"] == "speed")
    assert "verdict" not in capsys.readouterr().out


def test_theory_of_the_specification() -> None:
    """0.3333 and 0.3243 for 512 pairs at 64 x 64."""
    assert eggroll_rank_update.theory((64, 64), 1024, FULL) == pytest.approx(0.3333, abs=5e-5)
    assert eggroll_rank_update.theory((64, 64), 1024, 1) == pytest.approx(0.3243, abs=5e-5)
    assert eggroll_rank_update.theory((64, 64), 1024, 4) is None


def test_the_update_of_very_many_members_is_the_gradient() -> None:
    found = eggroll_rank_update.cosine(jax.random.key(0), 0.1, shape=(3, 2), members=4096, rank=1)
    assert found > 0.98


def walk(task: eggroll_rank_tasks.Task, state: Any, actions: list[int]) -> tuple[Any, float, bool]:
    """Total reward and whether the episode ended."""
    total, done = 0.0, False
    for action in actions:
        state, reward, done = task.step(state, jnp.array(action))
        total += float(reward)
    return state, total, bool(done)


def test_gridworld_by_hand() -> None:
    task = eggroll_rank_tasks.gridworld(size=3, horizon=10)
    state = {"at": jnp.array([0, 0]), "goal": jnp.array([1, 1]), "time": jnp.array(0.0)}
    _, reward, done = walk(task, state, [1, 0, 2])  # the first step runs into the wall
    assert reward == pytest.approx(1 - 0.9 * 3 / 10) and done


def test_starts_of_the_gridworld_are_not_the_goal() -> None:
    start = eggroll_rank_tasks.gridworld(size=3).start(jax.random.key(0), (200,))
    assert (start["at"] != start["goal"]).any(-1).all() and start["at"].max() == start["goal"].max() == 2


def test_the_pole_falls_to_the_side_it_leans_to() -> None:
    task = eggroll_rank_tasks.cartpole()
    pushed, total, done = walk(task, jnp.zeros(4), [1] * 12)
    assert done and total == 12 and pushed[2] < 0 < pushed[0]
    mirrored, *_ = walk(task, jnp.zeros(4), [0] * 12)
    np.testing.assert_allclose(mirrored, -pushed, rtol=1e-5)


def test_an_episode_counts_until_it_ends() -> None:
    task = eggroll_rank_tasks.cartpole(horizon=60)
    right = eggroll_rank_tasks.returns(task, jnp.zeros((1, 4)), (1,), lambda x: jnp.array([[0.0, 1.0]]))
    ends = [walk(task, jnp.zeros(4), [1] * steps)[2] for steps in (8, 9)]
    assert ends == [False, True] and right == 9  # the step on which the pole falls is the last one that counts


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
@pytest.mark.parametrize("part", list(PARTS))
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(part: str, size: str) -> None:
    cells = frame.cells(part, PARTS[part], PARTS[part].config(size))
    keys = eggroll_rank.EXPERIMENT.keys
    assert len({tuple(cell.get(key) for key in keys) for cell in cells}) == len(cells)
    assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def invented(part: str, good: bool) -> list[dict[str, Any]]:
    """Rows for which every claim holds, or none does."""
    rows = []
    for cell in PARTS[part].cells(PARTS[part].config("default")):
        noise = 1 + cell["seed"] / 1e4
        low = cell["rank"] != FULL
        value = noise if good or not low else 2 * noise
        row = {"final_return": value, "mean_return": value, "forward_ms": (1 if low or not good else 9) * noise}
        if part == "update":
            expected = eggroll_rank_update.theory((64, 64), cell["members"], cell["rank"] and 1) or math.nan
            ours = {1: 0.5, FULL: 2.0}.get(cell["rank"], 0.4)
            row = {"cosine": expected * (noise if good else ours * noise), "kurtosis": 6 / (cell["rank"] or 1) * value}
        rows.append({**cell, **row})
    return rows


@pytest.mark.parametrize(("good", "verdict"), [(True, "reproduced"), (False, "not reproduced")])
@pytest.mark.parametrize("part", list(PARTS))
def test_verdicts_follow_the_rows(part: str, good: bool, verdict: str) -> None:
    tested = PARTS[part].tested(PARTS[part].config("default"), invented(part, good))
    assert {claim.verdict for claim, _ in tested} == {verdict}
    assert len(tested) == {"update": 22, "control": 8, "speed": 1}[part] and all(source for _, source in tested)


def test_a_policy_is_the_mean_of_its_population_at_no_noise() -> None:
    parameters = eggroll_rank_control.create(0, (4, 3, 2))
    noise = [jnp.ones((5, *matrix.shape)) for matrix in parameters]
    x = jnp.ones((5, 1, 4))
    found = eggroll_rank_control.scores(parameters, noise, x, sigma=0.0)
    hidden = np.tanh(np.asarray(parameters[0]) @ np.ones(5))
    np.testing.assert_allclose(found[3, 0], np.asarray(parameters[1]) @ np.append(hidden, 1), rtol=1e-5)


def test_timing_takes_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.001, 0.0, 0.5, 0.0, 0.002])
    monkeypatch.setattr(eggroll_rank_speed.time, "perf_counter", lambda: next(clock))
    assert eggroll_rank_speed.milliseconds(lambda: None, 3) == pytest.approx(2.0)
