"""Tiny models of ``transformers`` with the weights of ours, and adapters that PEFT has trained and saved.

``python -m tests.models.peft_llama`` makes the stored adapter anew (with torch, transformers and peft).
"""

import json
from pathlib import Path

import numpy as np

from rlx import models

STORED = Path(__file__).parent / "peft_adapter"
SIZE = {"vocab_size": 16, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 12}
FAMILIES = {"llama": {"tie_embeddings": False}, "qwen2": {"tie_embeddings": True, "qkv_bias": True}}
TARGETS = {"query": "q_proj", "value": "v_proj", "down": "down_proj"}
LORA = {"rank": 2, "alpha": 6, "targets": tuple(TARGETS), "modules": {"down": {"rank": 3, "alpha": 4}}}
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])


def config(family: str, **more) -> dict:
    return {"name": "transformer", **SIZE, **FAMILIES[family], "init_std": 0.3, **more}


def base(family: str) -> dict:
    """Weights with biases and norms that do something."""
    rng, params = np.random.default_rng(1), models.build(config(family)).init(0)
    for block in params["layers"].values():
        for linear in (*block["attention"].values(), *block["mlp"].values()):
            if "bias" in linear:
                linear["bias"] = rng.standard_normal(linear["bias"].shape).astype(np.float32) / 4
    params["final_norm"]["scale"] += rng.standard_normal(8).astype(np.float32) / 8
    return params


def on_base(model, family: str) -> dict:
    """Parameters of a model with adapters, on the weights of :func:`base`."""

    def put(node, weights):
        inner = {key: put(x, weights[key]) if key in weights else x for key, x in node.items() if isinstance(x, dict)}
        return {key: inner[key] if key in inner else weights[key] for key in node}

    return put(model.init(0), base(family))


def ours(family: str, folder: Path) -> np.ndarray:
    """Logits of our model with the adapter of a folder."""
    model = models.build(config(family, lora={"adapter": str(folder)}))
    hidden, unembedding = model.apply(on_base(model, family), TOKENS)
    return np.asarray(hidden @ unembedding)


def transformers_model(family: str):
    """The same model of ``transformers``."""
    import torch
    import transformers as hf

    own = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape = {**own, "num_key_value_heads": 1, "vocab_size": 16, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0}
    tied = FAMILIES[family]["tie_embeddings"]
    kinds = {"llama": (hf.LlamaConfig, hf.LlamaForCausalLM), "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM)}
    made, build = kinds[family]
    model = build(made(**shape, tie_word_embeddings=tied, attn_implementation="eager")).eval()
    params = base(family)
    state = {"model.embed_tokens.weight": params["embedding"], "model.norm.weight": params["final_norm"]["scale"]}
    state["lm_head.weight"] = params["embedding"] if tied else params["unembedding"].T
    names = {"query": "q", "key": "k", "value": "v", "output": "o", "gate": "gate", "up": "up", "down": "down"}
    for i, block in params["layers"].items():
        at = f"model.layers.{i}"
        state[f"{at}.input_layernorm.weight"] = block["attention_norm"]["scale"]
        state[f"{at}.post_attention_layernorm.weight"] = block["mlp_norm"]["scale"]
        for part, linears in (("self_attn", block["attention"]), ("mlp", block["mlp"])):
            for name, linear in linears.items():
                state[f"{at}.{part}.{names[name]}_proj.weight"] = linear["kernel"].T
                if "bias" in linear:
                    state[f"{at}.{part}.{names[name]}_proj.bias"] = linear["bias"]
    tensors = {name: torch.tensor(np.ascontiguousarray(array)) for name, array in state.items()}
    missing, extra = model.load_state_dict(tensors, strict=False)
    assert not missing and not extra
    return model


def train_with_peft(family: str, folder: Path):
    """Trains an adapter for three steps with PEFT and saves it; returns the logits."""
    import peft
    import torch

    torch.manual_seed(0)
    down = LORA["modules"]["down"]
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=LORA["rank"],
        lora_alpha=LORA["alpha"],
        target_modules=list(TARGETS.values()),
        rank_pattern={"down_proj": down["rank"]},
        alpha_pattern={"down_proj": down["alpha"]},
    )
    model = peft.get_peft_model(transformers_model(family), settings)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.1)
    tokens = torch.tensor(TOKENS)
    for _ in range(3):
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(str(folder))
    return logits_of(model)


def logits_of(model) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(TOKENS)).logits.numpy()


def main() -> None:
    logits = train_with_peft("llama", STORED)
    (STORED / "README.md").unlink(missing_ok=True)  # a template of a model card
    (STORED / "logits.json").write_text(json.dumps(np.round(logits, 6).tolist()) + "\n")


if __name__ == "__main__":
    main()
