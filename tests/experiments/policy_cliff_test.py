"""Cliffs and groups end to end at smoke size, the problems themselves, and the claims on made-up rows."""

from pathlib import Path

import numpy as np
import pytest

from experiments import parts, policy_cliff, policy_cliff_groups, policy_cliff_map
from rlx.errors import UserError

PARTS = {"cliff": policy_cliff_map, "groups": policy_cliff_groups}


def test_smoke_runs_both_parts_and_runs_them_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--smoke", f"--workdir={tmp_path}"]
    parts.run(policy_cliff.EXPERIMENT, argv)
    first = (tmp_path / "metrics.jsonl").read_text()
    assert "verdict" not in capsys.readouterr().out and (tmp_path / "plot.png").stat().st_size > 0
    parts.run(policy_cliff.EXPERIMENT, argv)
    assert (tmp_path / "metrics.jsonl").read_text() == first


def test_one_part_only_and_a_wrong_one(tmp_path: Path) -> None:
    parts.run(policy_cliff.EXPERIMENT, ["--smoke", "--part=cliff", f"--workdir={tmp_path}"])
    assert '"groups"' not in (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match="--part=clif does not exist: there are cliff, groups"):
        parts.run(policy_cliff.EXPERIMENT, ["--part=clif", f"--workdir={tmp_path}"])


def test_policies_by_hand() -> None:
    rewards = np.array([[1.0, 1.0, 0.0], [np.log(3.0), 0.0, -np.inf]])
    np.testing.assert_array_equal(policy_cliff_map.policies(rewards, 0.0), [[0.5, 0.5, 0], [1, 0, 0]])
    np.testing.assert_allclose(policy_cliff_map.policies(rewards, 1.0)[1], [0.75, 0.25, 0])
    assert policy_cliff_map.total_variation(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == 0.5


def test_the_best_two_actions_tie_before_the_noise() -> None:
    config = policy_cliff_map.get_config("default")
    tv, _ = policy_cliff_map.noise({"seed": 1000, "change": 1e-4, "alpha": 0.0}, config)
    np.testing.assert_array_equal(tv, 0.5)


def test_rewards_have_the_correlation_that_is_asked_for() -> None:
    config = policy_cliff_groups.get_config("default")
    rewards = policy_cliff_groups.group_rewards(1000, config)
    np.testing.assert_allclose(np.corrcoef(rewards)[0, 1], -0.6)
    np.testing.assert_allclose(rewards.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(rewards.var(-1), 1)


def test_users_prefer_by_the_reward_of_their_group() -> None:
    config = policy_cliff_groups.get_config("default")
    judged = policy_cliff_groups.comparisons(1000, 0.8, config)
    groups = policy_cliff_groups.groups_of(0.8, config)
    assert judged.shape == (250, 20, 2) and (judged[..., 0] != judged[..., 1]).all() and groups.sum() == 50
    rewards = policy_cliff_groups.group_rewards(1000, config)
    margins = rewards[:, judged[..., 0]] - rewards[:, judged[..., 1]]
    assert margins[0, groups == 0].mean() > 0.5 and margins[1, groups == 1].mean() > 0.5
    assert margins[1, groups == 0].mean() < 0


def test_measures_by_hand() -> None:
    rewards = np.array([[1.0, 0.0], [0.0, 0.0]])
    found = policy_cliff_groups.measures(np.array([1.0, 0.0]), np.array([0.0, 1.0]), rewards, share=0.75)
    likely = 1 / (1 + np.exp(-1))
    wanted = {
        "majority": 1,
        "minority": 0,
        "worst": 0,
        "minority_win_rate": 0.5,
        "group_win_rate": (likely + 0.5) / 2,
        "kl": np.log(2),
    }
    assert found == pytest.approx({**wanted, "user_win_rate": 0.75 * likely + 0.25 * 0.5})


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(size: str) -> None:
    for name, module in PARTS.items():
        cells = parts.cells(name, module.PART, module.get_config(size))
        keys = [tuple(cell.get(key) for key in policy_cliff.EXPERIMENT.keys) for cell in cells]
        assert len(set(keys)) == len(keys) > 0
        assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def cliff(cell: dict, smooth: bool) -> dict[str, float | None]:
    """A reward whose policies move in proportion with entropy and jump without, or the other way round."""
    jumps = (cell["alpha"] == 0) == smooth
    tv = 1.0 if jumps else 0.1 * cell["change"] / (cell["alpha"] or 1)
    return {"tv": tv, "largest_tv": tv, "of_bound": tv * cell["alpha"] / cell["change"] if cell["alpha"] else None}


def test_claims_on_the_cliff_follow_the_rows() -> None:
    config = policy_cliff_map.get_config("default")
    for smooth, verdict in ((True, "reproduced"), (False, "not reproduced")):
        rows = [{**cell, **cliff(cell, smooth)} for cell in policy_cliff_map.cells(config)]
        assert {claim.verdict for claim, _ in policy_cliff_map.tested(config, rows)} == {verdict}


def test_claims_on_groups_follow_the_rows() -> None:
    config = policy_cliff_groups.get_config("default")
    for sign, verdict in ((1, "reproduced"), (-1, "not reproduced")):
        rows = []
        for cell in policy_cliff_groups.cells(config):
            noise, fair = cell["seed"] / 1e6, sign * ("maxmin" in cell["method"])
            other = 0.0 if sign > 0 else cell["share"]  # a policy that depends on the shares
            rates = {f"{of}_win_rate": 0.5 + 0.1 * sign + noise for of in policy_cliff_groups.WHOM}
            rows.append({**cell, **rates, "worst": fair + other + noise, "found": 0.8 + 0.1 * sign + 2 * noise})
        assert {claim.verdict for claim, _ in policy_cliff_groups.tested(config, rows)} == {verdict}
