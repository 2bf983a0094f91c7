"""Cycles end to end at smoke size, the exact embedding of any skew-symmetric matrix, and the claims on made-up rows."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import gpm_cycles, gpm_cycles_items, gpm_cycles_prompts, parts

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png"}
PARTS = {"items": gpm_cycles_items, "prompts": gpm_cycles_prompts}


def test_smoke_runs_both_parts_and_runs_them_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--smoke", f"--workdir={tmp_path}"]
    parts.run(gpm_cycles.EXPERIMENT, argv)
    assert {file.name for file in tmp_path.iterdir()} == FILES
    first = (tmp_path / "metrics.jsonl").read_text()
    printed = capsys.readouterr().out
    assert "verdict" not in printed and "any skew" in (tmp_path / "table.csv").read_text()
    parts.run(gpm_cycles.EXPERIMENT, argv)
    assert (tmp_path / "metrics.jsonl").read_text() == first


@pytest.mark.parametrize("items", [2, 5, 10])
def test_eigenvectors_embed_any_skew_symmetric_matrix(items: int) -> None:
    matrix, pairs = gpm_cycles_items.logits(gpm_cycles_items.SKEW, items, 0.9, seed=0)
    embeddings = jnp.asarray(gpm_cycles_items.skew_embedding(matrix), jnp.float32)
    assert embeddings.shape == (items, 2 * (items // 2))
    score = gpm_cycles_items.scores("gpm", embeddings, pairs)
    np.testing.assert_allclose(score, matrix[pairs[:, 0], pairs[:, 1]], atol=1e-5)


def test_the_truth_of_prompts_is_a_cycle_and_an_order() -> None:
    cycle, order = gpm_cycles_prompts.truth(9, seed=3)
    for beats in (cycle, order):
        np.testing.assert_array_equal(beats, -beats.T)
    np.testing.assert_array_equal((cycle > 0).sum(1), 4)
    assert sorted((order > 0).sum(1)) == list(range(9))


def test_winners_win_as_often_as_said() -> None:
    config = gpm_cycles_prompts.get_config("default")
    beats = gpm_cycles_prompts.truth(9, seed=0)
    counts = gpm_cycles_prompts.observed(beats, config, seed=0)
    assert counts.sum() == 4000 and counts[:, range(9), range(9)].sum() == 0
    np.testing.assert_allclose(counts[beats > 0].sum() / 4000, 0.9, atol=0.02)


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(size: str) -> None:
    for name, module in PARTS.items():
        cells = parts.cells(name, module.PART, module.get_config(size))
        keys = [tuple(cell.get(key) for key in gpm_cycles.EXPERIMENT.keys) for cell in cells]
        assert len(set(keys)) == len(keys) > 0
        assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def test_claims_follow_the_rows() -> None:
    """GPM all right and Bradley-Terry a coin, then the other way round."""
    for good, bad, verdict in ((1.0, 0.5, "reproduced"), (0.5, 1.0, "not reproduced")):
        for module in PARTS.values():
            config = module.get_config("default")
            rows = []
            for cell in module.PART.cells(config):
                value = (bad if cell["method"] == "bradley_terry_rm" else good) + cell["seed"] / 1e5 * (good < 1)
                error = {"largest_error": 1 - good}
                rows.append({**cell, **error, "accuracy": value, "accuracy_cycle": value, "accuracy_order": value})
            tested = module.tested(config, rows)
            same = ("dimensions >= that in", "with an order")
            kept = [claim for claim, _ in tested if verdict == "reproduced" or not any(x in claim.claim for x in same)]
            assert kept and {claim.verdict for claim in kept} == {verdict}
