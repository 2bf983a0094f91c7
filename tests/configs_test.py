"""Every config of the repository: its smoke run trains, its real size is checked, its sweep expands."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from rlx import config as configs
from rlx.errors import UserError
from rlx.sweep.plan import make_plan
from rlx.train import assemble
from rlx.train.main import train
from rlx.train.smoke import shrink

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.glob("*.py"))


@functools.cache
def module(path):
    return configs.load_module(str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_smoke_trains(path, tmp_path):
    config = configs.load(f"{path}:smoke")
    metrics = train(config, tmp_path / "run")
    assert np.isfinite(metrics["accuracy" if config.stages[-1] == "rl" else "loss"]) and metrics["examples"] > 0
    if config.stages[-1] != "sft":
        assert np.isfinite(metrics["sft/loss"])


def hugging_face_folder(folder):
    """A tiny Llama with a tokenizer of a few words: what the argument of a config may name."""
    shape = {
        "vocab_size": 8,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **shape}))
    words = {word: i for i, word in enumerate(("<pad>", "<s>", "</s>", "a", "b", "c"))}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>")).save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_real_size_is_a_valid_config(path, tmp_path):
    config = configs.load(str(path))
    if config.model.get("name") == "hf":
        config = configs.override(config, {"model.path": hugging_face_folder(tmp_path)})
    if config.data.get("source") != "memory" and not config.get("task"):
        (tmp_path / "data.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
        config = configs.override(config, {"data.path": str(tmp_path / "data.jsonl")})
    if "path" in config.get("task", {}):
        (tmp_path / "task.jsonl").write_text('{"question": "1 and 1?", "answer": "1+1=2\\n#### 2"}\n')
        config = configs.override(config, {"task.path": str(tmp_path / "task.jsonl")})
    assert len(assemble.assemble(config).stages) == len(config.stages)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_says_how_it_is_run(path):
    text = module(path).__doc__
    assert f"--config=configs/{path.name}" in text and "--workdir=runs/" in text and ":smoke" in text


def test_data_that_is_not_named_is_asked_for(monkeypatch):
    monkeypatch.delenv("RLX_DATA_DIR", raising=False)
    with pytest.raises(UserError, match=r"data\.path is missing"):
        assemble.assemble(configs.load(str(FOLDER / "dpo_hh.py")))


def test_data_has_a_default_where_the_environment_names_it(monkeypatch, tmp_path):
    monkeypatch.setenv("RLX_DATA_DIR", str(tmp_path))
    assert configs.load(str(FOLDER / "dpo_hh.py")).data.path.startswith(str(tmp_path))


@pytest.mark.parametrize(
    "path", [path for path in FILES if "get_sweep" in path.read_text()], ids=lambda path: path.stem
)
def test_sweeps_expand(path):
    plan = make_plan(f"{path}:smoke")
    assert len({run.id for run in plan.runs}) == len(plan.runs) > 1


def test_the_noise_sweep_tells_each_method_the_rate():
    runs = make_plan(str(FOLDER / "noise.py")).runs
    assert len(runs) == 27
    told = {(run.config.method.get("epsilon"), run.config.data.flip_rate) for run in runs}
    assert all(epsilon in (None, rate) for epsilon, rate in told)


def test_unknown_arguments_are_named():
    with pytest.raises(UserError, match=r"'smok'\. Did you mean 'smoke'"):
        shrink(configs.load(str(FOLDER / "sft.py")), "smok")
