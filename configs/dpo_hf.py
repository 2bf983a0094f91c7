r"""SFT, then DPO, of a Hugging Face model: Llama 3, Qwen 2.5 or 3, Gemma 2 or 3, Mistral, from its folder to a new one.

  python -m rlx.train --config=configs/dpo_hf.py:Qwen2.5-0.5B --workdir=runs/dpo_hf --config.data.path=pairs.jsonl
  python -m rlx.export --checkpoint=runs/dpo_hf --to=Qwen2.5-0.5B-dpo

The argument is a folder with config.json, safetensors files and tokenizer.json, as one downloads it;
``--config.model.path`` is another way to name it. Weights go from the files straight into the shards of
``config.mesh``: say ``--config.mesh.fsdp=8`` on 8 devices. Parameters and optimiser state are float32, products
bfloat16; ``--config.model.param_dtype=bfloat16`` halves the memory, ``--config.model.lora.rank=16`` trains adapters
alone.

Rafailov et al., *Direct Preference Optimization*, arXiv:2305.18290. ``:smoke`` takes seconds and downloads nothing: it
writes a tiny Qwen3 of random numbers into the folder for temporary files first.
"""

import os
import tempfile
from pathlib import Path

from ml_collections import ConfigDict, FieldReference

from rlx.errors import UserError
from rlx.train.smoke import shrink


def get_config(arg=None):
    """The folder of a model; ``smoke`` shrinks the run to seconds, on generated data and weights."""
    smoke = arg == "smoke"
    path = FieldReference(tiny_folder() if smoke else arg or "")  # one for model and tokenizer
    optimizer = {"name": "adamw", "schedule": "cosine", "weight_decay": 0.0, "clip_norm": 1.0}
    config = ConfigDict(
        {
            "seed": 0,
            "start": None,
            "tokenizer": {"name": "byte"} if smoke else {"name": "hf", "path": path},
            "model": {
                "name": "hf",
                "path": path,
                "dtype": "float32" if smoke else "bfloat16",
                "param_dtype": "",
                "remat": "full",
                "scan_layers": True,
            },
            "data": {
                "path": "",
                "format": "auto",
                "max_prompt_length": 512,
                "max_response_length": 512,
                "on_bad_row": "error",
                "eval_fraction": 0.05,
                "limit": None,
            },
            "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
            "stages": ("sft", "preference"),
            "sft": {
                "steps": 200,
                "batch_size": 32,
                "micro_batches": 4,
                "optimizer": {**optimizer, "learning_rate": 1e-5, "warmup_steps": 20},
                "eval_every": 100,
                "checkpoint_every": 100,
                "log_every": 10,
            },
            "preference": {
                "steps": 200,
                "batch_size": 32,
                "micro_batches": 4,
                "optimizer": {**optimizer, "learning_rate": 5e-7, "warmup_steps": 20},
                "eval_every": 100,
                "checkpoint_every": 100,
                "log_every": 10,
            },
            "method": {"name": "dpo", "beta": 0.1},
            "reference": "auto",
            "keep": 2,
            "loggers": (),
            "on_nan": "stop",
        }
    )
    return shrink(config, "smoke" if smoke else None)


def tiny_folder() -> str:
    """A Qwen3 with bytes as tokens and random weights; the same folder every time."""
    from rlx.models import huggingface, transformer

    folder = Path(tempfile.gettempdir(), f"rlx-smoke-{os.getuid()}", "qwen3")
    if not (folder / "config.json").exists():
        config = transformer.Config(hidden_size=16, num_layers=2, num_heads=2, qk_norm=True)
        params = transformer.build(config).init(0)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            huggingface.save(folder, config, params, huggingface.describe(config))
        except UserError:
            if not (folder / "config.json").exists():  # else another process has just written it
                raise
    return str(folder)
