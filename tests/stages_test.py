"""What a config may say of a stage, and what it is told when it says something else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, stages
from rlx.policy import importance, ratios, surrogates

ERRORS = {
    "unknown stage": (
        {"selct": "high_entropy"},
        r"grpo has no keyword 'selct'. Did you mean 'select'\? It takes: .*mask",
    ),
    "unknown part": ({"select": "high_entrpy(0.2)"}, "Unknown select 'high_entrpy'. Did you mean 'high_entropy'"),
    "part of another stage": ({"advantage": "high_entropy"}, "Unknown advantage 'high_entropy'"),
    "unknown argument": ({"select": "high_entropy(frac=0.2)"}, "got the argument 'frac'. Did you mean 'fraction'"),
    "too many": (
        {"select": "high_entropy(0.2, False, 1)"},
        "'high_entropy' got 3 arguments. It takes: fraction, exact",
    ),
    "twice": ({"select": "high_entropy(0.2, fraction=0.2)"}, "got the argument 'fraction' twice"),
    "unreadable": ({"select": "high_entropy(0.2"}, "Cannot read the part"),
    "unknown ratio": ({"ratio": "sequences"}, "Unknown ratio 'sequences'. Did you mean 'sequence'"),
    "ratio argument": ({"ratio": "sequence(bound=3)"}, "ratio 'sequence' got the argument 'bound'. It takes: maximum"),
    "unknown surrogate": ({"surrogate": "cispoo"}, "Unknown surrogate 'cispoo'. Did you mean 'cispo'"),
    "surrogate arguments": (
        {"surrogate": "clip(1, 2, 3, 4, 5)"},
        "'clip' got 5 arguments. It takes: low, high, dual, cap",
    ),
    "unknown weight": (
        {"surrogate": "red(weight='importanc')"},
        "Unknown weight 'importanc'. Did you mean 'importance'",
    ),
    "dual clip": ({"surrogate": "clip(dual=0.5)"}, "dual_clip .* above 1"),
    "kl strength": ({"kl": "k3"}, r"kl 'k3' has no strength: write 'k3\(0.04\)'"),
    "kl number": ({"kl": 0.04}, "Unknown kl '0.04'. Known: abs, k1"),
    "kl use": ({"kl": "k1(0.1)"}, "'k1' cannot be used as a loss"),
    "corrected old kl": ({"old_kl": "k2(0.1, corrected=True)"}, "got the argument 'corrected'. It takes: strength"),
    "entropy": ({"entropy": "bonus"}, "entropy is the strength of the bonus, a number, got 'bonus'"),
    "two estimators": ({"advantage": ["grpo", "rloo"]}, "takes one estimator"),
    "unknown array": ({"select": lambda surprises: None}, "needs 'surprises', which no stage and no batch gives"),
    "too early": ({"reward": lambda advantages: None}, "needs 'advantages', which only the stage advantage makes"),
    "bonus too early": ({"reward_bonus": lambda advantages: None}, "needs 'advantages'"),
    "aggregate": ({"aggregate": "constant"}, "Unknown aggregation 'constant'"),
}


@pytest.mark.parametrize(("config", "message"), ERRORS.values(), ids=ERRORS)
def test_a_wrong_config_is_told_so_when_it_is_built(config, message):
    with pytest.raises(errors.UserError, match=message):
        rlx.build({"name": "grpo", **config})


@pytest.mark.parametrize("stage", [stage for stage, kind in stages.STAGES.items() if kind])
def test_all_parts_of_the_catalogue_are_parts_of_their_stage(stage):
    known = stages.known(stage)
    kind = stages.STAGES[stage]
    assert {name for name, entry in rlx.catalog.CATALOG.items() if entry.kind == kind} <= set(known)
    for name in known:
        part = stages.find(stage, name)
        assert part.required and set(part.required) <= set(rlx.types.VOCABULARY)


def test_positional_arguments_pass_over_what_the_name_fixes():
    (part,) = stages.parts_of("advantage", "dr_grpo(singleton='zero')")
    assert part.keywords == {"scale": False, "singleton": "zero"}
    with pytest.raises(errors.UserError, match="got the argument 'scale'"):
        stages.parts_of("advantage", "dr_grpo(scale=True)")


def test_names_become_functions():
    assert stages.ratio_of("sequence") is ratios.sequence
    assert stages.ratio_of("token(3.0)").keywords == {"bound": 3.0}
    assert (
        stages.ratio_of(ratios.none) is ratios.none
        and stages.surrogate_of(surrogates.unclipped) is surrogates.unclipped
    )
    ratio, advantages, logprobs = jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0]), jnp.array([-1.0, -3.0])
    for text, expected in {
        "clip(0.1, high=0.3, dual=3.0)": surrogates.clip(0.1, 0.3, dual=3.0),
        "sapo": surrogates.soft(),
        "rec_two_side(0.5, 1.0, weight='exponential(2.0)')": surrogates.rec_two_side(
            0.5, 1.0, importance.exponential(2.0)
        ),
    }.items():
        actual = stages.surrogate_of(text)(ratio, advantages, logprobs)
        np.testing.assert_array_equal(actual, expected(ratio, advantages, logprobs))
    assert stages.penalty_of("kl", "k3_plus(0.1, corrected=True)").estimator.name == "k3+"


def run(spec, stage="select", **pool):
    """A part on a batch of one prompt, one response, two tokens."""
    where = jnp.ones((1, 1, 2), bool)
    return stages.Run(pool, where, None, None), stages.parts_of(stage, spec)[0]


def test_selections_are_boolean_and_results_are_of_tokens_or_responses():
    runner, part = run(lambda entropy: entropy, entropy=jnp.zeros((1, 1, 2)))
    with pytest.raises(
        errors.UserError, match="select '<lambda>' gives float32 numbers, no selection: use it as weight"
    ):
        runner.selected(part)
    runner, part = run(lambda entropy: entropy.sum() > 0, entropy=jnp.zeros((1, 1, 2)))
    with pytest.raises(errors.UserError, match="gives no array of tokens or responses"):
        runner.selected(part)
    runner, part = run(
        lambda entropy: entropy, stage="reward_bonus", rewards=jnp.ones((1, 1)), entropy=jnp.ones((1, 1, 2))
    )
    with pytest.raises(errors.UserError, match="numbers of tokens, not of responses: use it as reward"):
        runner.bonus(part, "rewards")
    runner, part = run(lambda rewards: rewards > 0, rewards=jnp.ones((1, 1)))
    assert runner.selected(part).shape == (1, 1, 1)
    runner, part = run("high_entropy", entropies=jnp.zeros((1, 1, 2)))
    with pytest.raises(errors.UserError, match="select 'high_entropy' needs 'entropy'.* Did you mean 'entropies'"):
        runner.selected(part)


def test_parts_that_draw_get_keys_of_their_own():
    def draw(entropy, *, key=None):
        return jax.random.uniform(key, entropy.shape)

    runner, part = run(draw, stage="weight", entropy=jnp.zeros((1, 1, 2)))
    keyed = stages.Run(runner.pool, runner.where, jax.random.key(0), None)
    first, second = keyed.tokens(part), keyed.tokens(part)
    np.testing.assert_array_equal(first, draw(jnp.zeros((1, 1, 2)), key=jax.random.key(0)))
    assert (first != second).all()
