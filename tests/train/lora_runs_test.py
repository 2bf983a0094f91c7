"""Runs with adapters: the base keeps its bits and is kept once, runs go on to the bit, the sampler has the adapter."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import rl
from rlx import config as configs
from rlx import models
from rlx.errors import UserError
from rlx.evaluate import evaluate
from rlx.models import peft
from rlx.models.lora import merge
from rlx.models.moving import join, moving, staying
from rlx.report.rows import read_rows
from rlx.train import trainer
from rlx.train.assemble import assemble
from rlx.train.interrupts import Stopped
from rlx.train.main import train
from rlx.train.restore import restore, starting_policy
from rlx.train.step import make_score
from tests.tiny_run import tiny_config

pytestmark = pytest.mark.usefixtures("one_model")
LORA = {"rank": 2, "targets": "all-linear"}
FACTORS = 7 * 2  # A and B of every linear map of a layer


def settings(**changes):
    found = tiny_config(**changes)
    return found | {"model": found["model"] | {"lora": LORA, "init_std": 0.2}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(settings(), folder)
    return folder


def same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_base_keeps_its_bits_through_two_stages(whole):
    found = restore(whole)
    policy, model = found.state.params["policy"], found.run.model
    first = model.init(found.run.settings.seed)
    same(staying(model, policy), staying(model, first))
    moved = zip(jax.tree.leaves(moving(model, policy)), jax.tree.leaves(moving(model, first)), strict=True)
    assert all((a != b).any() for a, b in moved)


def test_optimiser_state_and_checkpoints_hold_the_adapters_alone(whole):
    found = restore(whole)
    policy, model = found.state.params["policy"], found.run.model
    of_adapters = sum(x.nbytes for x in jax.tree.leaves(moving(model, policy)))
    scalars = 64  # counts of steps
    assert sum(x.nbytes for x in jax.tree.leaves(found.state.opt_state)) <= 2 * of_adapters + scalars
    assert of_adapters < sum(x.nbytes for x in jax.tree.leaves(policy)) / 4
    folder = whole / "checkpoints"

    def leaves(name):
        return [name for name, _, _ in json.loads((folder / name / "notes" / "metadata").read_text())["leaves"]]

    assert {path.name for path in folder.iterdir()} == {"base", "reference", "00000005", "00000006"}
    assert len(leaves("reference")) == FACTORS and all("lora" in name for name in leaves("reference"))
    of_policy = [name for name in leaves("00000006") if name.startswith("params/policy")]
    assert len(of_policy) == FACTORS and all("lora" in name for name in of_policy)
    assert len(leaves("base")) == len(jax.tree.leaves(policy)) - FACTORS


@pytest.mark.parametrize("moment", [("sft", 2), ("preference", 1)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, whole, moment):
    with pytest.raises(Stopped):
        train(settings(), tmp_path, stop=lambda stage, step: (stage, step) == moment)
    train(settings(), tmp_path)
    assert read_rows(tmp_path / "metrics.jsonl") == read_rows(whole / "metrics.jsonl")
    same(restore(tmp_path).state, restore(whole).state)


def test_a_lost_base_is_named(tmp_path):
    with pytest.raises(Stopped):
        train(settings(), tmp_path, stop=lambda stage, step: step == 2)
    shutil.rmtree(tmp_path / "checkpoints" / "base")
    for go_on in (lambda: train(settings(), tmp_path), lambda: restore(tmp_path)):
        with pytest.raises(UserError, match=r"checkpoints/base is gone, the parameters that no stage moves"):
            go_on()


def test_the_reference_is_the_base(tmp_path):
    """At the start of a stage with new adapters: the same log-probabilities as the model without them, to the bit."""
    own = settings()
    own["sft"]["steps"], own["preference"]["steps"] = 0, 1
    train(own, tmp_path)
    found = restore(tmp_path)
    plain = models.build({key: x for key, x in found.run.model_config.items() if key != "lora"})
    dataset = trainer.load_data(found.run, found.stage, tmp_path)[0]
    batch = next(dataset.batches(4))
    options = {"mesh": found.run.mesh, "prompt_length": dataset.lengths.prompt}
    of_reference = make_score(found.run.model, **options)(found.held, batch)["logps"]
    of_base = make_score(plain, **options)(plain.init(0), batch)["logps"]
    np.testing.assert_array_equal(of_reference, of_base)
    of_policy = make_score(found.run.model, **options)(found.state.params["policy"], batch)["logps"]
    assert np.abs(np.asarray(of_policy - of_base)).max() > 1e-3
    kept = staying(found.run.model, found.held), staying(found.run.model, found.state.params["policy"])
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, kept), strict=True))  # not a second copy


def test_a_saved_adapter_starts_the_same_policy(tmp_path, whole):
    found = restore(whole)
    policy, model = found.state.params["policy"], found.run.model
    peft.save_adapter(tmp_path, model, policy)
    again = models.build(found.run.model_config | {"lora": {"adapter": str(tmp_path)}})
    same(moving(again, again.init(0)), moving(model, policy))
    same(join(moving(again, again.init(0)), policy), policy)


def test_a_run_with_adapters_starts_from_one_without_and_back(tmp_path, finished):
    """New adapters on the policy of a run; merged where the next run has none."""
    own = tiny_config(start=str(finished))
    own["sft"]["steps"], own["preference"]["steps"] = 0, 1
    train(own | {"model": own["model"] | {"lora": LORA}}, tmp_path / "adapters")
    found, before = restore(tmp_path / "adapters"), restore(finished)
    same(without(found.state.params["policy"]), before.state.params["policy"])
    after = assemble(own | {"start": str(tmp_path / "adapters")})
    same(starting_policy(after), merge(found.run.model, found.state.params["policy"]))


def without(node):
    return {key: without(x) for key, x in node.items() if key != "lora"} if isinstance(node, dict) else node


PAIRS = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": "?"} for a in range(4) for b in range(4)]


def reinforced(path):
    """SFT, a reward model, GRPO on its scores with a sampler that lags behind: all of it on one base."""
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    found = rl.get_config("grpo,smoke").to_dict() | {"stages": ("sft", "reward", "rl")}
    found["model"] |= {"head": "scalar", "lora": LORA, "init_std": 0.2}
    found["sft"]["steps"] = 2
    data = {"source": "jsonl", "path": str(path), "records": None}
    learns = {"steps": 2, "until_loss": None, "method": {"name": "bradley_terry_rm"}, "data": data}
    found["reward"] = {**found["sft"], **learns}
    learned = {"components": {"correct": "exact", "learned": {"model": "reward", "weight": 0.1}}}
    found["rl"]["rollout"] |= {"reward": learned, "sync_every": 2}
    found["rl"] |= {"steps": 3, "log_every": 1, "eval_every": 3, "checkpoint_every": 1}
    return found


def test_the_command_line_sets_the_block():
    given = {"model.lora.rank": "4", "model.lora.targets": "all-linear", "model.lora.modules.down.rank": "2"}
    found = configs.override(rl.get_config("grpo,smoke"), given, parse=True)
    model = assemble(found).model
    assert model.lora is not None and (model.lora.rank_of("up"), model.lora.rank_of("down")) == (4, 2)


def test_reinforcement_with_adapters(tmp_path):
    """The responses are drawn with the adapter, those of a stale sampler with the adapter of its time; it resumes."""
    settings, folder = reinforced(tmp_path / "pairs.jsonl"), tmp_path / "whole"
    train(settings, folder)
    found = [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "rl" and row["split"] == "train"]
    assert [row["staleness"] for row in found] == [0, 1, 0] and any(row["reward/learned"] for row in found)
    assert max(abs(found[i]["old_kl_k3"]) for i in (0, 2)) < 1e-6 < abs(found[1]["old_kl_k3"])
    end = restore(folder)
    same(staying(end.run.model, end.state.params["policy"]), staying(end.run.model, end.run.model.init(0)))
    assert all("lora" in name or "head" in name for name in names(end.state.followers["sampler"]))
    with pytest.raises(Stopped):
        train(settings, tmp_path / "other", stop=lambda stage, step: (stage, step) == ("rl", 2))
    train(settings, tmp_path / "other")
    same(restore(tmp_path / "other").state, end.state)
    assert evaluate(end).keys() >= {"accuracy", "reward"}


def varied(response, example):
    """A reward that differs between any two members."""
    return sum(map(ord, response)) % 7 / 7


def test_evolution_perturbs_the_adapters_alone(tmp_path):
    own = rl.get_config("eggroll_update,smoke").to_dict()
    own["model"] |= {"lora": {"rank": 2}}
    own["sft"]["steps"], own["rl"]["steps"] = 0, 1
    own["rl"]["rollout"]["evolution"] |= {"members": 2}
    own["rl"]["rollout"]["verifier"] = "tests.train.lora_runs_test:varied"
    train(own, tmp_path)
    end = restore(tmp_path)
    first, policy, model = end.run.model.init(0), end.state.params["policy"], end.run.model
    same(staying(model, policy), staying(model, first))
    moved = zip(*(jax.tree.leaves(moving(model, tree)) for tree in (policy, first)), strict=True)
    assert all((a != b).any() for a, b in moved)


def names(tree):
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
