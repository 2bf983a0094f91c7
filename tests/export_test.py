"""``rlx.export``: what a run has learnt, as a Hugging Face folder; and a run that starts from one."""

import json

import jax
import numpy as np
import pytest

from rlx import export
from rlx.errors import UserError
from rlx.models import huggingface
from rlx.models.lora import merge
from rlx.train.main import train
from rlx.train.restore import restore


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


def test_a_run_is_written_and_read_back(finished, tmp_path, capsys):
    to = tmp_path / "model"
    assert export.cli([f"--checkpoint={finished}", f"--to={to}"]) == 0
    assert "a Hugging Face folder of" in capsys.readouterr().out
    same(huggingface.build(str(to)).pretrained(0), restore(finished).state.params["policy"])
    raw = json.loads((to / "config.json").read_text())
    assert raw["architectures"] == ["LlamaForCausalLM"] and raw["torch_dtype"] == "float32"
    assert (raw["bos_token_id"], raw["eos_token_id"], raw["max_position_embeddings"]) == (257, 258, 7)
    assert export.cli([f"--checkpoint={finished}", f"--to={to}"]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err


def test_half_of_the_bytes(finished, tmp_path):
    (tmp_path / "model").mkdir()
    assert export.cli([f"--checkpoint={finished}", f"--to={tmp_path / 'model'}", "--dtype=bfloat16"]) == 0
    found = huggingface.build(str(tmp_path / "model"), param_dtype="bfloat16").pretrained(0)
    same(found, jax.tree.map(lambda leaf: leaf.astype("bfloat16"), restore(finished).state.params["policy"]))
    with pytest.raises(UserError, match="dtype='int8' is none of"):
        export.export(restore(finished), str(tmp_path / "other"), dtype="int8")


def test_a_run_starts_from_a_folder_and_its_adapters_are_merged(finished, tiny, tmp_path):
    base, to = tmp_path / "base", tmp_path / "model"
    assert export.cli([f"--checkpoint={finished}", f"--to={base}"]) == 0
    raw = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**raw, "rope_theta": 1e4, "custom": "kept"}))
    (base / "generation_config.json").write_text("{}")
    model = {"name": "hf", "path": str(base), "lora": {"rank": 2}}
    blocks = {"sft": {**tiny()["sft"], "steps": 1}, "preference": {**tiny()["preference"], "steps": 0}}
    train(tiny(model=model, reference="auto", **blocks), tmp_path / "run")
    checkpoint = restore(tmp_path / "run")
    policy = checkpoint.state.params["policy"]
    given = restore(finished).state.params["policy"]
    same(policy["embedding"], given["embedding"])
    query = policy["layers"]["0"]["attention"]["query"]
    same(query["kernel"], given["layers"]["0"]["attention"]["query"]["kernel"])
    assert np.asarray(query["lora"]["b"]).any()
    export.export(checkpoint, str(to), shard_bytes=10_000)
    same(huggingface.build(str(to)).pretrained(0), merge(checkpoint.run.model, policy))
    assert json.loads((to / "config.json").read_text())["custom"] == "kept"
    assert (to / "generation_config.json").read_text() == "{}" and (to / "model.safetensors.index.json").exists()
    alone = tmp_path / "adapter"
    assert export.cli([f"--checkpoint={tmp_path / 'run'}", f"--to={alone}", "--adapter"]) == 0
    assert json.loads((alone / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    same(huggingface.build(str(base), lora={"adapter": str(alone)}).pretrained(1), policy)


def test_adapters_that_there_are_none_of(finished, tmp_path, capsys):
    given = [f"--checkpoint={finished}", f"--to={tmp_path / 'adapter'}", "--adapter"]
    assert export.cli(given) == 2 and "this model has no adapters" in capsys.readouterr().err
    assert export.cli([*given, "--dtype=float16"]) == 2 and "--dtype=float16 is not used" in capsys.readouterr().err
