"""Adapters in the files of PEFT: what it has saved loads with its logits, ours have its names, the rest is refused."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlx import errors, models
from rlx.models import peft, peft_files
from tests.models import peft_llama
from tests.models.peft_llama import LORA, STORED


def model_of(**more):
    return models.build(peft_llama.config("llama", lora=LORA, **more))


def shaken(model):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), model.init(0))


def test_an_adapter_of_peft_gives_its_logits():
    expected = np.array(json.loads((STORED / "logits.json").read_text()))
    np.testing.assert_allclose(peft_llama.ours("llama", STORED), expected, atol=1e-5)


def test_what_the_settings_leave_out_is_as_the_adapter_has_it():
    found = models.build(peft_llama.config("llama", lora={"adapter": str(STORED)})).lora
    assert (found.targets, found.rank, found.rank_of("down")) == (("query", "value", "down"), 2, 3)
    assert (found.scale_of("query"), found.scale_of("down")) == (3.0, 4 / 3)


def test_names_and_shapes_are_those_of_peft(tmp_path):
    model = model_of()
    peft.save_adapter(tmp_path, model, shaken(model), base="tiny")
    ours, theirs = (load_file(folder / peft.WEIGHTS) for folder in (tmp_path, STORED))
    assert {name: (x.shape, x.dtype) for name, x in ours.items()} == {
        name: (x.shape, x.dtype) for name, x in theirs.items()
    }
    saved, stored = (json.loads((folder / peft.CONFIG).read_text()) for folder in (tmp_path, STORED))
    assert saved.pop("base_model_name_or_path") == "tiny" and saved == {key: stored[key] for key in saved}


@pytest.mark.parametrize("scan", [False, True])
def test_round_trip(tmp_path, scan):
    """To the bit, from a list of layers and from stacked ones to both."""
    model, other = model_of(scan_layers=scan), model_of(scan_layers=not scan)
    params = shaken(model)
    peft.save_adapter(tmp_path, model, params)
    again = peft.load_adapter(tmp_path, model, {**model.init(1), "embedding": params["embedding"]})
    for path, leaf in jax.tree_util.tree_leaves_with_path(again):
        if "lora" in jax.tree_util.keystr(path):
            np.testing.assert_array_equal(leaf, dict(jax.tree_util.tree_leaves_with_path(params))[path])
    peft.save_adapter(tmp_path / "again", other, peft.load_adapter(tmp_path, other, other.init(0)))
    assert (tmp_path / peft.WEIGHTS).read_bytes() == (tmp_path / "again" / peft.WEIGHTS).read_bytes()


def test_half_precision_is_read_into_the_types_of_the_model(tmp_path):
    tensors = {name: x.astype(ml_dtypes.bfloat16) for name, x in load_file(STORED / peft.WEIGHTS).items()}
    save_file(tensors, tmp_path / peft.WEIGHTS)
    shutil.copy(STORED / peft.CONFIG, tmp_path)
    query = model_of().init(0), peft.load_adapter(tmp_path, model_of(), model_of().init(0))
    a = query[1]["layers"]["0"]["attention"]["query"]["lora"]["a"]
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, tensors[name].astype(np.float32).T)


def broken(folder: Path, *, config=None, tensors=None) -> Path:
    """The stored adapter with some entries changed, or gone where they are None."""
    found = json.loads((STORED / peft.CONFIG).read_text()) | (config or {})
    (folder / peft.CONFIG).write_text(json.dumps(found))
    arrays = load_file(STORED / peft.WEIGHTS) | (tensors or {})
    save_file({name: x for name, x in arrays.items() if x is not None}, folder / peft.WEIGHTS)
    return folder


AT = "base_model.model.model.layers"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": {f"{AT}.1.self_attn.v_proj.lora_B.weight": None}}, "has no base_model.*1.self_attn.v_proj.lora_B"),
        ({"tensors": {f"{AT}.2.mlp.down_proj.lora_A.weight": np.ones((3, 12), "f")}}, "no place for .*layers.2.mlp"),
        (
            {"tensors": {f"{AT}.0.mlp.down_proj.lora_A.weight": np.ones((3, 11), "f")}},
            r"of shape \[3, 11\], and \[3, 12\]",
        ),
        ({"tensors": {f"{AT}.0.mlp.down_proj.lora_A.weight": np.ones((2, 12), "f")}}, "is not that of other layers"),
        ({"tensors": {"base_model.model.lm_head.lora_A.weight": np.ones((2, 8), "f")}}, "lm_head.* is no adapter of"),
        ({"tensors": {f"{AT}.0.mlp.down_proj.lora_A.weight": np.ones(3, "f")}}, "a tensor that is no matrix"),
        ({"tensors": dict.fromkeys(load_file(STORED / peft.WEIGHTS))}, "has no tensor"),
        ({"config": {"use_dora": True}}, "use_dora=True is not supported"),
        ({"config": {"modules_to_save": ["lm_head"]}}, "modules_to_save=.'lm_head'. is not supported"),
        ({"config": {"bias": "all"}}, "bias='all' is not supported"),
        ({"config": {"init_lora_weights": "pissa"}}, "init_lora_weights='pissa' is not supported"),
        ({"config": {"peft_type": "IA3"}}, "peft_type is 'IA3'; only LORA"),
        ({"config": {"lora_alpha": "9"}}, "must be numbers above 0"),
        ({"config": {"alpha_pattern": {"(a+)+b": 3}}}, "is an expression; name modules"),
        ({"config": {"alpha_pattern": {"layers.0.self_attn.q_proj": 3}}}, "another alpha in other layers"),
        ({"config": {"lora_alpha": 9}}, r"scales query by 4.5 \(alpha / r\), and config.model.lora by 3"),
        ({"config": {"use_rslora": True}}, "scales query by"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    model = model_of()
    with pytest.raises(errors.UserError, match=message):
        peft.load_adapter(broken(tmp_path, **change), model, model.init(0))


def test_another_rank_is_named(tmp_path):
    model = models.build(peft_llama.config("llama", lora=LORA | {"rank": 4}))
    with pytest.raises(errors.UserError, match="has rank 2 for query, and config.model.lora 4"):
        peft.load_adapter(STORED, model, model.init(0))


def test_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(errors.UserError, match="adapter_config.json cannot be read"):
        peft.read_settings(tmp_path)
    (tmp_path / peft.CONFIG).write_text("[" * 10**5)
    with pytest.raises(errors.UserError, match="adapter_config.json cannot be read"):
        peft.read_settings(tmp_path)
    shutil.copy(STORED / peft.CONFIG, tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(errors.UserError, match=r"has no adapter_model.safetensors \(adapter_model.bin is a pickle"):
        peft.read_settings(tmp_path)
    (tmp_path / peft.WEIGHTS).write_bytes((STORED / peft.WEIGHTS).read_bytes()[:-7])
    with pytest.raises(errors.UserError, match="adapter_model.safetensors is truncated"):
        peft.read_settings(tmp_path)
    (tmp_path / peft.WEIGHTS).write_bytes((STORED / peft.WEIGHTS).read_bytes().replace(b'"F32"', b'"F{2"'))
    with pytest.raises(errors.UserError, match="a tensor of type F{2; read are F64, F32, F16, BF16"):
        peft_files.read_tensors(tmp_path)
    with pytest.raises(errors.UserError, match="this model has no adapters"):
        peft.load_adapter(STORED, models.build(peft_llama.config("llama")), {})


@pytest.mark.parametrize("family", peft_llama.FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_peft_itself_reads_and_writes_the_same_adapters(tmp_path, family):
    torch_peft = pytest.importorskip("peft")
    expected = peft_llama.train_with_peft(family, tmp_path / "theirs")
    np.testing.assert_allclose(peft_llama.ours(family, tmp_path / "theirs"), expected, atol=1e-4)
    peft_llama.transformers_model(family).save_pretrained(str(tmp_path / "base"))
    folder = models.build({"name": "hf", "path": str(tmp_path / "base"), "lora": {"adapter": str(tmp_path / "theirs")}})
    hidden, unembedding = folder.apply(folder.pretrained(0), peft_llama.TOKENS)
    np.testing.assert_allclose(np.asarray(hidden @ unembedding), expected, atol=1e-4)
    model = models.build(peft_llama.config(family, lora=LORA | {"targets": "all-linear", "use_rslora": True}))
    params = peft_llama.on_base(model, family)
    rng = np.random.default_rng(2)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: rng.standard_normal(x.shape).astype("f") / 4 if path[-1].key == "b" else x, params
    )
    peft.save_adapter(tmp_path / "ours", model, params)
    loaded = torch_peft.PeftModel.from_pretrained(peft_llama.transformers_model(family), str(tmp_path / "ours"))
    hidden, unembedding = model.apply(params, peft_llama.TOKENS)
    np.testing.assert_allclose(peft_llama.logits_of(loaded), np.asarray(hidden @ unembedding), atol=1e-4)
    moved = np.abs(peft_llama.logits_of(loaded) - peft_llama.logits_of(peft_llama.transformers_model(family)))
    assert moved.max() > 0.05
