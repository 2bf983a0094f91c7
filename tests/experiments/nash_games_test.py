"""Self-play on random games end to end: files, resuming, measures, and verdicts that follow the rows."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import frame, nash_games, nash_games_claims, nash_games_methods, nash_games_play
from rlx.errors import UserError
from rlx.game import win_rate

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png"}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_smoke_runs_all_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame.run(nash_games.FRAME, ["--smoke", f"--workdir={tmp_path}"])
    assert {file.name for file in tmp_path.iterdir()} == FILES
    rows = rows_of(tmp_path)
    assert len(rows) == 10 == len({tuple(row[key] for key in nash_games.KEYS) for row in rows})
    assert all(0 < row["gap"] < 1 and len(row["curve"]) == len(row["curve_steps"]) == 5 for row in rows)
    assert all(row["twin_error"] < 1e-12 for row in rows if "twin_error" in row)
    assert "verdict" not in capsys.readouterr().out


def test_only_missing_games_are_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[int]]] = []

    def fake(cells: Any, game: Any) -> list[dict[str, Any]]:
        asked.append((cells[0]["method"], [cell["seed"] for cell in cells]))
        return [dict.fromkeys(nash_games.METRICS, 0.5) | {"curve_steps": [0, 1], "curve": [1.0, 0.1]} for _ in cells]

    monkeypatch.setattr(nash_games_play, "rows", fake)
    argv = ["--smoke", f"--workdir={tmp_path}"]
    frame.run(nash_games.FRAME, argv)
    assert len(asked) == 5 and all(seeds == [1000, 1001] for _, seeds in asked)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]))
    frame.run(nash_games.FRAME, argv)
    assert asked[5:] == [("mnpo, last 2 as 2:1", [1001])] and len(rows_of(tmp_path)) == 10


@pytest.mark.parametrize("method", ["inpo", "mnpo, last 2 as 2:1", "mnpo, last 3", "onpo"])
def test_the_minimum_of_a_loss_is_a_minimum(method: str, float64: Any) -> None:
    """Nothing nearby is better on a fresh draw of pairs: the update is where the expected loss is flat."""

    def check() -> None:
        preferences, reference = nash_games_methods.draw(0, 4)
        game = nash_games_methods.Game(jnp.asarray(preferences), jnp.asarray(reference), jnp.asarray(0.2))
        step = nash_games_methods.Step(jnp.asarray(0.5), jax.random.key(0), 0)
        history = jax.nn.log_softmax(jnp.asarray(np.random.default_rng(1).normal(size=(3, 4))))
        played = nash_games_methods.Played(history, history[1])
        found: list[Any] = []

        def spy(loss: Any, start: Any, game: Any, sampled: Any) -> Any:
            """Stands in the place of ``minimum`` and keeps what it was asked."""
            result = minimum(loss, start, game, sampled)
            found.append(jnp.abs(minimum(loss, result, game, sampled) - result).max())
            return result

        minimum = nash_games_methods.minimum
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nash_games_methods, "minimum", spy)
            moved = nash_games_methods.EXACT[method](game, step, played)
        assert found and max(found) < 1e-12 and jnp.abs(moved - history[0]).max() > 1e-2

    float64(check)


@pytest.mark.parametrize("method", list(nash_games_methods.SAMPLED))
def test_samples_are_right_on_average(method: str) -> None:
    """The step on very many samples is the exact step."""
    preferences, reference = nash_games_methods.draw(3, 4)
    game = nash_games_methods.Game(*(jnp.asarray(x, jnp.float32) for x in (preferences, reference, 0.2)))
    step = nash_games_methods.Step(jnp.asarray(0.1), jax.random.key(0), 20_000)
    played = nash_games_methods.Played(jnp.tile(jax.nn.log_softmax(game.reference) * 0.5, (3, 1)), game.reference)
    tables = nash_games_methods.EXACT, nash_games_methods.SAMPLED
    exact, sampled = jax.jit(lambda: [table[method](game, step, played) for table in tables])()
    start = played.policies[0]
    np.testing.assert_allclose(sampled - start, exact - start, atol=0.05 * float(jnp.abs(exact - start).max()))


def test_games_are_games_of_their_seed() -> None:
    preferences, reference = nash_games_methods.draw(5, 6)
    np.testing.assert_allclose(preferences + preferences.T, 1)
    np.testing.assert_array_equal(np.diag(preferences), 0.5)
    again = nash_games_methods.draw(5, 6)
    assert (again[0] == preferences).all() and (again[1] == reference).all()
    assert (nash_games_methods.draw(6, 6)[0] != preferences).any()


def test_decay_is_read_until_it_is_small() -> None:
    gaps = np.maximum(np.exp(-0.5 * np.arange(100)), 1e-12)
    found = nash_games_play.decay(gaps)
    assert found["rate"] == pytest.approx(0.5) and found["r2"] == pytest.approx(1)
    bent = nash_games_play.decay(np.exp(-np.sqrt(np.arange(100))))
    assert bent["r2"] < 0.98


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_games_were_not_tuned_on(size: str) -> None:
    cells = nash_games.cells(nash_games.get_config(size))
    assert len({tuple(cell[key] for key in nash_games.KEYS) for cell in cells}) == len(cells)
    assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def invented(good: bool) -> list[dict[str, Any]]:
    """Rows for which every claim holds, or none does."""
    rank = {"egpo": 1e-3, "online_ipo_omd": 1e-2, "nash_md": 1e-2, "sppo": 1.0}
    rows = []
    for cell in nash_games.cells(nash_games.get_config("default")):
        noise = 1 + cell["seed"] / 1e4
        gap = rank.get(cell["method"], 0.1) * noise
        values = {"gap": gap, "rate": 1 / gap, "r2": 0.99, "plain_average": 0.01, "plain_last": 0.1}
        values |= {"twin_error": 1e-8, "distance": 1e-8, "floor": gap}
        if not good:
            values = {"gap": 1 / gap, "rate": gap, "r2": 0.9, "plain_average": 0.1, "plain_last": 0.01}
            values |= {"twin_error": 1e-3, "distance": 1e-3, "floor": 1 / gap * (5 if cell["part"] == "sampled" else 1)}
        rows.append({**cell, **values})
    return rows


@pytest.mark.parametrize(("good", "verdict"), [(True, "reproduced"), (False, "not reproduced")])
def test_verdicts_follow_the_rows(good: bool, verdict: str) -> None:
    config = nash_games.get_config("default")
    settings = [nash_games.named(part) for part in (config.settings.exact, config.settings.sampled)]
    tested = nash_games_claims.tested(*settings, invented(good))
    assert {claim.verdict for claim, _ in tested} == {verdict} and len(tested) == 35
    assert all(source for _, source in tested)


def test_an_equilibrium_that_is_not_found_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = nash_games_play.rlx.nash_equilibrium
    monkeypatch.setattr(nash_games_play.rlx, "nash_equilibrium", lambda *a, **k: solve(*a, **k | {"max_steps": 1}))
    with pytest.raises(UserError, match=r"equilibrium at beta 0\.3 was not found"):
        nash_games_play.games.__wrapped__((1,), 3, 0.3)


def test_gap_is_the_metric_of_the_paper_halved() -> None:
    preferences, reference = nash_games_methods.draw(1, 5)
    gap = win_rate.exploitability(preferences, np.zeros(5), reference, beta=0.1)
    assert win_rate.duality_gap(preferences, np.zeros(5), reference, beta=0.1) == 2 * gap
