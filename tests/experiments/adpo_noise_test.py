"""The noisy bandits of ADPO: corruptions, losses, files, resuming, and claims that follow the rows."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import adpo_noise, adpo_noise_bandit, adpo_noise_claims, adpo_noise_policy, frame
from experiments.adpo_noise_policy import LEARNERS, Lists
from rlx.errors import UserError

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png"}
SIZES = {"dimension": 3, "units": 4, "contexts": 400, "held_out": 50}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_smoke_writes_all_files_without_a_verdict_and_computes_only_missing_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--smoke", f"--workdir={tmp_path}"]
    frame.run(adpo_noise.FRAME, argv)
    assert {file.name for file in tmp_path.iterdir()} == FILES
    rows = rows_of(tmp_path)
    assert len(rows) == 12 * len(LEARNERS) * 2
    assert all(0 <= row[name] <= 1 for row in rows for name in ("win_mass", "accuracy", "calibration_error"))
    printed = capsys.readouterr().out
    assert "Ours, since the paper's are not known" in printed and "reproduced" not in printed
    table = (tmp_path / "table.csv").read_text()
    assert table.count("\n") == 1 + 12 * len(LEARNERS) and "win_mass_low" in table

    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-20]) + '{"method": "dp')  # as after a kill: a scenario's second half is lost
    frame.run(adpo_noise.FRAME, argv)
    again = rows_of(tmp_path)
    assert again[:-20] == rows[:-20] and len(again) == len(rows)
    for old, new in zip(sorted(rows, key=repr), sorted(again, key=repr), strict=True):
        assert new == {**old, **{name: pytest.approx(old[name], abs=1e-5) for name in ("win_mass", "accuracy")}}


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_a_smoke_run_uses_other_seeds(size: str) -> None:
    cells = adpo_noise.cells(adpo_noise.get_config(size))
    keys = [tuple(cell[key] for key in adpo_noise.KEYS) for cell in cells]
    assert len(set(keys)) == len(keys) > 0
    assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def test_unknown_option() -> None:
    with pytest.raises(UserError, match="Did you mean '--smoke'"):
        frame.run(adpo_noise.FRAME, ["--smok"])


def test_corruptions_do_what_they_say() -> None:
    problem = adpo_noise_bandit.bandit(0, 8, **SIZES)
    clean_contexts, clean = adpo_noise_bandit.observe(problem)
    np.testing.assert_allclose(clean, adpo_noise_bandit.standardise(problem.rewards(clean_contexts)), rtol=1e-5)
    shifted, _ = adpo_noise_bandit.observe(problem, shift=2.0)
    np.testing.assert_allclose(shifted - clean_contexts, 2.0, rtol=1e-5)

    def agreement(**keywords: float) -> float:
        scores = adpo_noise_bandit.observe(problem, **keywords)[1]
        return float(np.mean(scores.argmax(-1) == problem.best(problem.contexts)))

    assert agreement() == 1.0 and agreement(flips=1.0) == 0.0
    assert agreement(flips=0.3) == pytest.approx(0.7, abs=0.08)
    assert agreement(outliers=0.1) == pytest.approx(0.7, abs=0.08)  # (1 - 0.05)^8: no candidate is lifted
    assert 1.0 > agreement(cauchy=0.2) > agreement(cauchy=1.0) and agreement(noise=0.5) > agreement(noise=2.0)


def test_fewer_candidates_are_the_first_of_more() -> None:
    few, many = (adpo_noise_bandit.bandit(3, count, **SIZES) for count in (4, 8))
    np.testing.assert_array_equal(few.contexts, many.contexts)
    ratio = many.rewards(few.contexts)[:, :4] / few.rewards(few.contexts)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)


def lists(candidates: int, seed: int = 0) -> Lists:
    rng = np.random.default_rng(seed)
    policy, reference, old, scores, smoothed = (rng.standard_normal((5, candidates)) for _ in range(5))
    logps = [np.array(jax.nn.log_softmax(jnp.asarray(x), -1)) for x in (policy, reference, old)]
    return Lists(*map(jnp.asarray, (*logps, scores, smoothed)), jnp.zeros(5, jnp.int32))


def value(x: Lists, method: str, pairs: str = "") -> float:
    losses = dict(zip(LEARNERS, adpo_noise_policy.losses(1.0, 0.2), strict=True))
    return float(losses[method, pairs](x, jnp.asarray(0.5)))


def test_at_two_candidates_a_list_is_a_soft_pair_and_the_only_pair() -> None:
    x = lists(2)
    assert value(x, "soft", "all") == pytest.approx(value(x, "list_raw"), rel=1e-5)
    for method in adpo_noise_policy.PAIRWISE:
        assert value(x, method, "all") == pytest.approx(value(x, method, "one"), rel=1e-6)


def test_all_pairs_are_the_mean_over_each_pair() -> None:
    x = lists(3)
    each = [value(x._replace(pair=jnp.full(5, i, jnp.int32)), "dpo", "one") for i in range(3)]
    assert value(x, "dpo", "all") == pytest.approx(np.mean(each), rel=1e-5)


def test_list_raw_and_trpo_share_their_optimum() -> None:
    """reference x exp(scores / temperature): neither loss has a gradient there."""
    x = lists(4)
    losses = dict(zip(LEARNERS, adpo_noise_policy.losses(1.0, 0.2), strict=True))
    optimum = x.reference + x.scores / 0.5
    for method in ("list_raw", "trpo"):

        def loss(logits: jax.Array, method: str = method) -> jax.Array:
            return losses[method, ""](x._replace(policy=jax.nn.log_softmax(logits, -1)), jnp.asarray(0.5))

        np.testing.assert_allclose(jax.grad(loss)(optimum), 0.0, atol=1e-6)
        assert np.abs(jax.grad(loss)(x.policy)).max() > 1e-2


def test_ppo_is_the_expected_advantage_until_clipped() -> None:
    x = lists(4)
    near = x._replace(policy=x.old)
    assert value(near, "ppo") == pytest.approx(0.0, abs=1e-6)  # an advantage has mean 0 under the old policy
    ratio, old = np.exp(x.policy - x.old), np.exp(x.old)
    advantage = np.asarray(x.scores - (old * x.scores).sum(-1, keepdims=True))
    gain = np.where(advantage > 0, np.minimum(ratio, 1.2), np.maximum(ratio, 0.8)) * advantage
    assert value(x, "ppo") == pytest.approx(-np.mean((old * gain).sum(-1)), rel=1e-5)


def made_up_rows(worth: dict[str, float]) -> list[dict[str, Any]]:
    config = adpo_noise.get_config()
    cells = (cell for cell in adpo_noise.cells(config) if cell["seed"] < 3)
    return [
        {**cell, "win_mass": worth[cell["method"]] + cell["seed"] / 1e4, "calibration_error": worth[cell["method"]]}
        for cell in cells
    ]


def test_claims_follow_the_rows() -> None:
    """Rows made up so that the paper is right, then so that it is wrong."""
    config = adpo_noise.get_config()
    names = ("dpo_noanchor", "soft", "dpo", "ppo", "list_raw", "list_kde", "trpo")
    for order, verdict in ((names, "reproduced"), (names[::-1], "not reproduced")):
        rows = made_up_rows({name: 0.1 * (i + 1) for i, name in enumerate(order)})
        view = adpo_noise_claims.views(config.settings)[0]
        found = {
            s.claim.claim: s.claim.verdict for s in adpo_noise_claims.tested(config, adpo_noise_claims.seen(rows, view))
        }
        assert found["(a) anchored dpo > dpo_noanchor"] == verdict
        assert found["(b) a listwise loss has the highest mean of the preference losses"] == verdict
        assert found["(d) trpo has the highest mean of all"] == verdict
        assert found["heavy: hard dpo > soft"] == verdict
        assert found["(c) heavy noise: list_raw - dpo at hidden 256 less that at 64"] == "reproduced"  # no size differs


def test_a_gain_that_shrinks_with_size_is_not_reproduced() -> None:
    config, rows = adpo_noise.get_config(), made_up_rows(dict.fromkeys(adpo_noise_policy.METHODS, 0.5))
    for row in rows:
        row["win_mass"] += 0.1 * (row["method"] == "list_raw") * 64 / row["hidden"]
    view = adpo_noise_claims.views(config.settings)[0]
    found = {
        s.claim.claim: s.claim.verdict for s in adpo_noise_claims.tested(config, adpo_noise_claims.seen(rows, view))
    }
    assert found["(c) mean of corruptions: list_raw - dpo at hidden 256 less that at 64"] == "not reproduced"
    assert found["(c) mean of corruptions: list_kde - dpo at hidden 256 less that at 64"] == "reproduced"


def test_every_statement_names_the_same_claims_in_every_view() -> None:
    config, rows = adpo_noise.get_config(), made_up_rows(dict.fromkeys(adpo_noise_policy.METHODS, 0.5))
    views = adpo_noise_claims.views(config.settings)
    claims = [[s.claim.claim for s in adpo_noise_claims.tested(config, adpo_noise_claims.seen(rows, v))] for v in views]
    assert len(claims) == 4 and all(names == claims[0] for names in claims)
    assert len(set(claims[0])) >= 20


def test_learners_without_pairs_belong_to_both_views() -> None:
    rows = made_up_rows(dict.fromkeys(adpo_noise_policy.METHODS, 0.5))
    for pairs in ("all", "one"):
        methods = {row["method"] for row in adpo_noise_claims.seen(rows, (8, 0.2, pairs))}
        assert methods == set(adpo_noise_policy.METHODS)
