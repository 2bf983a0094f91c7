"""Methods: lifting a function, what couples a batch, and the errors of a wrong name, keyword or batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import aggregate, errors, method, numerics


def centred(policy_logps, *, scale=1.0, centre=None, where=None, reduce=aggregate.mean, axis_name=None):
    """A toy loss that is coupled through its batch mean."""
    centre = batch_mean(policy_logps, where=where, axis_name=axis_name) if centre is None else centre
    return aggregate.finish(jnp.square(scale * (policy_logps - centre)), where, reduce)


def batch_mean(policy_logps, *, where=None, axis_name=None):
    return jax.lax.stop_gradient(numerics.mean(policy_logps, where=where, axis_name=axis_name))


COUPLED = {"centre": method.Coupled(batch_mean)}
BATCH = {"policy_logps": jnp.arange(6.0), "where": jnp.arange(6) != 3}


def test_prepare_makes_a_coupled_loss_splittable():
    lifted = method.stateless(centred, keywords={"scale": 2.0}, coupled=COUPLED, coupling="batch")
    constants, _ = lifted.prepare(BATCH, {}, {}, None)
    parts = [{k: v[i : i + 2] for k, v in BATCH.items()} for i in (0, 2, 4)]
    terms = [lifted.aggregate.terms(*lifted.apply(constants, part, {})) for part in parts]
    split = lifted.aggregate.divide(sum(t[0] for t in terms), sum(t[1] for t in terms))
    np.testing.assert_allclose(split, centred(BATCH["policy_logps"], scale=2.0, where=BATCH["where"]), rtol=1e-6)
    np.testing.assert_allclose(split, method.loss(lifted, BATCH), rtol=1e-6)
    assert lifted.splittable and lifted.prepare_needs == ("policy_logps",)


def test_a_batch_coupling_without_prepare_cannot_be_split():
    assert not method.stateless(centred, coupling="batch").splittable


def test_units_constants_are_cut_with_the_batch():
    rank = method.Coupled(lambda policy_logps: policy_logps - policy_logps.mean(), per_unit=True)
    lifted = method.stateless(centred, coupled={"centre": rank}, coupling="batch")
    constants, _ = lifted.prepare(BATCH, {}, {}, None)
    assert constants.units["centre"].shape == (6,) and not constants.shared


def test_a_missing_array_is_named_with_close_matches():
    lifted = method.stateless(centred)
    with pytest.raises(errors.UserError, match="centred needs 'policy_logps', which the batch does not have. Did you"):
        lifted.apply(method.Constants({}, {}), {"policy_logp": jnp.zeros(2)}, {})


@pytest.mark.parametrize(
    "config, message",
    [
        ({"name": "rdp"}, "Unknown method 'rdp'. Did you mean 'rdpo'"),
        ({"name": "rdpo", "epsilom": 0.1}, "rdpo has no keyword 'epsilom'. Did you mean 'epsilon'"),
        ({"beta": 0.1}, "has no 'name'"),
        ({"name": "grpo_advantage"}, "'grpo_advantage' is of kind advantage, not a loss: call rlx.grpo_advantage"),
        ({"name": "dpo", "aggregate": "men"}, "Unknown aggregation 'men'. Did you mean 'mean'"),
    ],
)
def test_build_errors(config, message):
    with pytest.raises(errors.UserError, match=message):
        rlx.build(config)


def test_build_from_a_name_or_a_config():
    assert rlx.build("dpo").name == "dpo"
    built = rlx.build({"name": "rdpo", "epsilon": 0.2, "beta": 0.5})
    batch = {"policy_logps": jnp.array([[-1.0, -2.0]]), "reference_logps": jnp.array([[-1.0, -1.5]])}
    expected = rlx.rdpo(batch["policy_logps"], batch["reference_logps"], beta=0.5, epsilon=0.2)
    np.testing.assert_allclose(method.loss(built, batch), expected)
    assert built.hyperparameters["epsilon"] == 0.2


def test_names_resolve_on_the_package():
    assert rlx.dpo is rlx.catalog.CATALOG["dpo"].function
    assert "rdpo" in dir(rlx)
    preset = next((name for name, entry in rlx.catalog.CATALOG.items() if entry.preset), None)
    assert preset is None or getattr(rlx, preset).keywords == rlx.catalog.CATALOG[preset].preset
    with pytest.raises(AttributeError, match="no attribute 'rdppo'. Did you mean 'rdpo'"):
        _ = rlx.rdppo


def test_every_entry_is_consistent():
    for name, entry in rlx.catalog.CATALOG.items():
        assert entry.kind in ("loss", "advantage", "weights", "statistic", "solver", "host"), name
        assert entry.coupling in ("example", "group", "batch"), name
        assert entry.provenance in ("official code", "peer library", "equation"), name
        known = method.keywords_of(entry.function)
        assert set(entry.preset) <= set(known) and set(entry.coupled) <= set(known), name
        free = entry.kind in ("solver", "host")  # their arrays are of no batch
        unknown = [needed for needed in entry.needs if not free and needed not in rlx.types.VOCABULARY]
        assert not unknown, f"{name} reads {unknown}, which the vocabulary does not have"
        assert entry.function.__doc__, name


def test_a_config_names_parts():
    batch = {"policy_logps": jnp.array([[-3.0, -2.0]]), "reference_logps": jnp.array([[-2.5, -2.5]])}
    for named, given in (("hinge", rlx.preference.links.hinge), ("squared(2.0)", rlx.preference.links.squared(2.0))):
        found, expected = (method.loss(rlx.build({"name": "dpo", "link": link}), batch) for link in (named, given))
        assert found == expected


@pytest.mark.parametrize(
    "link", ["hinje", "squared", "squared(x)", "squared(1.0, 2.0)", "hinge(1.0)", "__import__('os')"]
)
def test_unknown_parts_are_named(link):
    with pytest.raises(errors.UserError, match=r"Unknown link .* Known: logistic, sigmoid, hinge, squared\(target\)"):
        rlx.build({"name": "dpo", "link": link})
