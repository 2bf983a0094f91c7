"""Mistakes in a config, each one clear line before any work starts."""

import pytest

from rlx.errors import UserError
from rlx.train import settings
from rlx.train.assemble import assemble


def changed(config, key, value):
    """The config with one dotted key set, or removed for ``None``."""
    *parents, last = key.split(".")
    block = config
    for parent in parents:
        block[parent] = block = dict(block[parent])
    if value is None:
        del block[last]
    else:
        block[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("betta", 0.1, r"config has an unknown key 'betta'"),
        ("sead", 1, r"unknown key 'sead'\. Did you mean 'seed'"),
        ("sft.stepps", 3, r"config\.sft has an unknown key 'stepps'\. Did you mean 'steps'\?"),
        ("sft.steps", None, r"config\.sft lacks the key 'steps'"),
        ("sft.steps", -1, r"config\.sft\.steps must be a whole number of at least 0, not -1"),
        ("sft.until_loss", "low", r"config\.sft\.until_loss must be a number or None, not 'low'"),
        ("sft.kind", "pair", r"config\.sft\.kind: unknown 'pair'\. Did you mean 'pairs'"),
        ("stages", ("sft", "preferences"), r"unknown 'preferences'\. Did you mean 'preference'"),
        ("stages", ("preference", "sft"), r"in the order sft, reward, preference"),
        ("stages", (), r"must name stages"),
        (
            "stages",
            ("sft", "reward", "preference"),
            r"config\.stages names 'reward', but there is no block config\.reward",
        ),
        ("preference.method", "dpo", r"config\.preference\.method is not used.* is config\.method"),
        ("sft.method", "dpo", r"config\.sft\.method is not used.*its loss is 'sft'"),
        ("sft.rollout", {"group": 2}, r"config\.sft\.rollout is not used"),
        ("stages", ("preference",), r"config\.sft is not used.*config\.sft\.steps=0"),
        ("preference", None, r"no block config\.preference"),
        ("method", None, r"no block 'method'"),
        ("reference", "cache", r"config\.reference: unknown 'cache'\. Did you mean 'cached'"),
        ("keep", 0, r"config\.keep must be a whole number of at least 1"),
        ("seed", 0.5, r"config\.seed must be a whole number"),
        ("sft", 3, r"config\.sft must be a block"),
    ],
)
def test_a_mistake_is_named(tiny, key, value, message):
    with pytest.raises(UserError, match=message):
        settings.check(changed(tiny(), key, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method.betta", 0.1, r"dpo has no keyword 'betta'\. Did you mean 'beta'"),
        ("method.name", "dpoo", r"Unknown method 'dpoo'\. Did you mean 'dpo'"),
        ("method.name", "grpo_advantage", r"not a loss"),
        ("model.hiden_size", 8, r"no option 'hiden_size'\. Did you mean 'hidden_size'"),
        ("model.vocab_size", 100, r"config\.model\.vocab_size=100 is smaller than the tokenizer's 259"),
        ("tokenizer.name", "bytes", r"tokenizer\.name 'bytes'.*Did you mean 'byte'"),
        ("mesh.dta", 2, r"no axis 'dta'\. Did you mean 'data'"),
        ("data.max_promt_length", 3, r"data\.max_promt_length.*Did you mean .*max_prompt_length"),
        ("data", {"path": "none.jsonl", "max_prompt_length": 3, "max_response_length": 4}, r"none\.jsonl"),
        ("sft.optimizer.learning_rat", 0.1, r"config\.sft\.optimizer has no key .*Did you mean 'learning_rate'"),
        ("sft.micro_batches", 3, r"config\.sft\.batch_size=4 must be a multiple"),
        ("method", {"name": "bradley_terry_rm"}, r"set config\.model\.head='scalar'"),
        ("method", {"name": "simpo"}, r"config\.reference='on_the_fly' is not used: simpo reads no reference"),
    ],
)
def test_a_mistake_in_a_block_is_named(tiny, key, value, message):
    with pytest.raises(UserError, match=message):
        assemble(changed(tiny(), key, value))


def test_a_stage_is_left_out_with_zero_steps(tiny):
    assert [stage.name for stage in assemble(changed(tiny(), "sft.steps", 0)).stages] == ["preference"]


def test_every_stage_left_out_is_an_error(tiny):
    config = changed(changed(tiny(), "sft.steps", 0), "preference.steps", 0)
    with pytest.raises(UserError, match="nothing to train"):
        assemble(config)


def test_kinds_of_data_follow_from_the_method(tiny):
    kinds = {
        name: assemble(tiny(method={"name": name}, reference="auto")).stages[-1].kind
        for name in ("dpo", "simpo", "kto", "adpo_listwise")
    }
    assert kinds == {"dpo": "pairs", "simpo": "pairs", "kto": "unpaired", "adpo_listwise": "lists"}
