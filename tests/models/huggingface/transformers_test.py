"""Where transformers is installed: it loads what rlx writes, and rlx what it writes, to equal logits."""

import jax
import numpy as np
import pytest

from rlx.models import huggingface
from rlx.models.base import capped
from tests.models.huggingface.tiny import RAW, texts, write_config


def logits(folder):
    """Of a folder, by rlx, at the real tokens."""
    model = huggingface.build(str(folder))
    tokens, valid = texts()

    def run(params):
        hidden, unembedding = model.apply(params, tokens, valid)
        return capped(hidden @ unembedding, model.softcap)

    return np.asarray(jax.jit(run)(model.pretrained(0)))[valid]


def transformers_logits(folder):
    """Of a folder, by transformers; saves the model again under ``again``."""
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    model, notes = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(notes[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model.save_pretrained(folder.parent / "again", max_shard_size="20KB")
    tokens, valid = (torch.from_numpy(x) for x in texts())
    positions = (valid.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        found = model(tokens.long(), attention_mask=valid.long(), position_ids=positions).logits
    return found.numpy()[texts()[1]]


@pytest.mark.parametrize("name", RAW)
def test_folders_go_both_ways(name, tmp_path):
    pytest.importorskip("transformers")
    write_config(tmp_path / "given", RAW[name])
    config, _ = huggingface.config_of({"name": "hf", "path": str(tmp_path / "given"), "init_std": 0.3})
    params = huggingface.build(str(tmp_path / "given"), init_std=0.3).init(0)
    huggingface.save(tmp_path / "model", config, params, huggingface.describe(config), shard_bytes=20_000)
    want = transformers_logits(tmp_path / "model")

    np.testing.assert_allclose(logits(tmp_path / "model"), want, atol=1e-4, rtol=0)
    again = huggingface.build(str(tmp_path / "again")).pretrained(0)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), again, params)
