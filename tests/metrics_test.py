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
