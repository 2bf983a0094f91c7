"""Metrics: mergeable over any split, with the same names for paired and unpaired candidates."""

import jax.numpy as jnp
import numpy as np

from rlx import metrics

BATCH = {
    "policy_logps": jnp.array([[-1.0, -3.0], [-2.0, -1.0], [-4.0, -4.0], [-9.0, -1.0]]),
    "reference_logps": jnp.array([[-1.0, -1.0], [-1.0, -1.0], [-2.0, -2.0], [0.0, 0.0]]),
    "where": jnp.array([[True, True], [True, True], [True, True], [False, True]]),
}


def test_preference_metrics_count_ties_as_wrong_and_leave_masked_pairs_out():
    values = metrics.values(metrics.preference(BATCH, beta=0.5))
    assert np.isclose(values["reward_accuracy"], 1 / 3)
    assert np.isclose(values["reward_margin"], 0.5 * (2 - 1 + 0) / 3)
    assert np.isclose(values["chosen_logps"], -7 / 3)


def test_metrics_merge_over_parts():
    whole = metrics.preference(BATCH)
    halves = [metrics.preference({k: v[part] for k, v in BATCH.items()}) for part in (slice(0, 1), slice(1, 4))]
    merged = metrics.merge(*halves)
    assert metrics.values(merged) == metrics.values(whole)
    assert metrics.merge({}, whole).keys() == whole.keys()


def test_unpaired_candidates_report_by_label():
    batch = {"policy_logps": jnp.array([[-1.0], [-3.0]]), "labels": jnp.array([[1.0], [0.0]])}
    values = metrics.values(metrics.preference(batch))
    assert values["chosen_logps"] == -1 and values["rejected_logps"] == -3
    assert "reward_accuracy" not in values


def test_token_metrics_estimate_the_kl_three_ways():
    logprobs, reference = jnp.log(jnp.array([[0.5, 0.2]])), jnp.log(jnp.array([[0.25, 0.2]]))
    values = metrics.values(metrics.tokens({"logprobs": logprobs, "reference_logprobs": reference}))
    assert np.isclose(values["reference_kl_k1"], np.log(2) / 2)
    assert np.isclose(values["reference_kl_k2"], np.log(2) ** 2 / 4)
    assert np.isclose(values["reference_kl_k3"], (np.log(2) - 0.5) / 2)


POLICY = {
    "logprobs": jnp.log(jnp.array([[0.5, 0.2, 0.4, 0.9], [0.1, 0.3, 0.3, 0.9]])),
    "old_logprobs": jnp.log(jnp.array([[0.25, 0.2, 0.4, 0.1], [0.2, 0.3, 0.2, 0.1]])),
    "where": jnp.array([[True, True, True, False], [True, True, True, False]]),
}
ADVANTAGES = jnp.array([[1.0], [-1.0]])


def test_policy_metrics_count_both_sides_of_the_clip_and_the_extremes():
    found = metrics.values(metrics.policy_gradient(POLICY, ADVANTAGES, POLICY["logprobs"] > jnp.log(0.25)))
    assert np.isclose(found["log_ratio_min"], np.log(0.5)) and np.isclose(found["log_ratio_max"], np.log(2))
    assert np.isclose(found["clip_share_high"], 1 / 6) and np.isclose(found["clip_share_low"], 1 / 6)
    assert np.isclose(found["selected"], 4 / 6) and found["advantage_size"] == 1
    logprobs = np.asarray(POLICY["logprobs"])[:, :3]
    expected = np.cov(logprobs.ravel(), np.repeat([1.0, -1.0], 3), bias=True)[0, 1]
    assert np.isclose(found["covariance"], expected)


def test_policy_metrics_of_parts_merge_to_those_of_the_whole():
    whole = metrics.policy_gradient(POLICY, ADVANTAGES)
    halves = [
        metrics.policy_gradient({k: v[part] for k, v in POLICY.items()}, ADVANTAGES[part])
        for part in (slice(0, 1), slice(1, 2))
    ]
    merged = metrics.merge(metrics.merge(metrics.nothing(whole), halves[0]), halves[1])
    for name, value in metrics.values(whole).items():
        assert np.isclose(metrics.values(merged)[name], value), name
