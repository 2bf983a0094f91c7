"""Other libraries' names and arguments give the same method as the names here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import method
from rlx.errors import UserError
from rlx.migrate import TRL, VERL, from_trl, from_verl

BATCH = {
    "policy_logps": jnp.array([[-3.0, -2.0], [-1.0, -4.0]]),
    "reference_logps": jnp.array([[-2.5, -2.5], [-2.0, -3.0]]),
    "lengths": jnp.array([[3, 2], [1, 4]]),
}


def loss(built):
    return method.loss(built, BATCH, *built.init(jax.random.PRNGKey(0), method.Shapes(num_examples=2)))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (from_trl("sigmoid"), rlx.build({"name": "dpo", "beta": 0.1})),
        (from_trl("sigmoid", label_smoothing=0.1), rlx.build({"name": "cdpo", "epsilon": 0.1})),
        (from_trl("sigmoid", reference_free=True), rlx.build({"name": "dpo_reference_free", "beta": 0.1})),
        (from_trl("robust", beta=0.3, label_smoothing=0.2), rlx.build({"name": "rdpo", "beta": 0.3, "epsilon": 0.2})),
        (from_trl("robust"), rlx.build({"name": "dpo", "beta": 0.1})),
        (from_trl("ipo", beta=0.2), rlx.build({"name": "ipo", "tau": 0.2, "length_normalize": True})),
        (from_trl("hinge"), rlx.build({"name": "dpo", "beta": 0.1, "link": "hinge"})),
        (from_trl("nca_pair"), rlx.build({"name": "nca_pair", "beta": 0.1})),
        (from_trl("bco_pair"), rlx.build({"name": "bco_pair", "beta": 0.1, "delta": 0.0})),
        (from_trl("sppo_hard", beta=0.5), rlx.build({"name": "sppo_hard", "beta": 0.5})),
        (from_trl("aot_unpaired"), rlx.build({"name": "aot", "paired": False})),
        (from_trl("discopop", beta=0.2, discopop_tau=0.1), rlx.build({"name": "discopop", "beta": 0.2, "tau": 0.1})),
        (from_trl("sigmoid", f_divergence_type="reverse_kl"), rlx.build("dpo")),
        (
            from_trl("sigmoid", f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.25),
            rlx.build({"name": "fdpo", "divergence": "alpha", "alpha": 0.75}),
        ),
        (from_trl("sigmoid", trainer="cpo", cpo_alpha=0.0), rlx.build("dpo_reference_free")),
        (from_trl("simpo", trainer="cpo"), rlx.build({"name": "simpo", "beta": 0.1, "gamma": 0.5})),
    ],
)
def test_the_same_loss(theirs, ours):
    np.testing.assert_allclose(loss(theirs), loss(ours), rtol=1e-6)


def test_every_rule_builds_with_its_own_defaults():
    for rules in (rules for losses in TRL.values() for rules in losses.values()):
        for rule in rules:
            assert rlx.catalog.lookup(rule.name) is not None
    for losses, trainer in ((losses, trainer) for trainer, losses in TRL.items()):
        for name in losses:
            assert from_trl(name, trainer=trainer).hyperparameters is not None
    for name in VERL:
        fixed = VERL[name].fixed.get("aggregate")
        built = from_verl(name, loss_agg_mode="seq-mean-token-sum")
        assert built.aggregate == (fixed or rlx.aggregate.sequence_sum)


def test_policy_losses_of_trl_have_its_constants():
    rng = np.random.default_rng(0)
    batch = {name: jnp.asarray(-rng.random((2, 2, 3))) for name in ("logprobs", "old_logprobs", "reference_logprobs")}
    batch |= {"advantages": jnp.asarray(rng.normal(size=(2, 2, 1))), "where": jnp.arange(12).reshape(2, 2, 3) < 9}

    def value(built):
        return method.loss(built, batch)

    clip = from_trl("dapo", trainer="grpo", epsilon=0.1, epsilon_high=0.3)
    assert (clip.hyperparameters["clip_low"], clip.hyperparameters["clip_high"]) == (0.1, 0.3)
    assert from_trl("dapo", trainer="grpo", epsilon=0.1).hyperparameters["clip_high"] == 0.1
    ours = rlx.build({"name": "ppo_clip_loss", "clip_low": 0.1, "clip_high": 0.3})
    np.testing.assert_allclose(value(clip), value(ours), rtol=1e-6)
    doubled = [value(from_trl("dr_grpo", trainer="grpo", max_completion_length=length)) for length in (8, 16)]
    np.testing.assert_allclose(doubled[0], 2 * doubled[1], rtol=1e-6)
    sequence = from_trl("grpo", trainer="grpo", importance_sampling_level="sequence", beta=0.1)
    np.testing.assert_allclose(value(sequence), value(rlx.build({"name": "trl_gspo_loss", "beta": 0.1})), rtol=1e-6)
    cap = from_trl("cispo", trainer="grpo", epsilon_high=5.0)
    np.testing.assert_allclose(value(cap), value(rlx.build({"name": "cispo_loss", "clip_high": 4.0})), rtol=1e-6)


def test_one_bound_for_both_sides():
    assert from_verl("vanilla", clip_ratio=0.3).hyperparameters["clip_low"] == 0.3
    assert from_verl("vanilla", clip_ratio=0.3, clip_ratio_high=0.5).hyperparameters["clip_high"] == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: from_trl("sigmoidd"), "Unknown loss_type of TRL's dpo trainer: 'sigmoidd'. Did you mean 'sigmoid'"),
        (lambda: from_trl("simpo", trainer="cop"), "Unknown TRL trainer: 'cop'. Did you mean 'cpo'"),
        (
            lambda: from_trl("sigmoid", f_divergence_type="js_divergense"),
            "Unknown f_divergence_type: 'js_divergense'. Did you mean 'js_divergence'",
        ),
        (lambda: from_trl("robust", bta=0.1), "TRL's 'robust' has no argument 'bta'. Did you mean 'beta'"),
        (lambda: from_trl("dapo", trainer="grpo", epsilon_hgh=0.3), "TRL's 'dapo' has no argument 'epsilon_hgh'"),
        (
            lambda: from_trl("dapo", trainer="grpo", importance_sampling_level="tokens"),
            "Unknown importance_sampling_level: 'tokens'. Did you mean 'token'",
        ),
        (lambda: from_verl("vanila"), "Unknown loss_mode of verl: 'vanila'. Did you mean 'vanilla'"),
        (lambda: from_verl("gspo", clip_ratio_c=3.0), "verl's 'gspo' has no argument 'clip_ratio_c'"),
        (lambda: from_verl("gspo", loss_agg_mode="token_mean"), "Unknown loss_agg_mode of verl: 'token_mean'"),
    ],
)
def test_what_is_unknown_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
