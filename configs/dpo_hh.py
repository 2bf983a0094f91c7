r"""SFT, then DPO, on the harmless pairs of Anthropic's HH-RLHF: the whole way from a file of dialogues to a table.

  python -m rlx.train --config=configs/dpo_hh.py --workdir=runs/dpo_hh \
      --config.data.path=harmless_base_test_filtered.jsonl.gz --config.method.beta=0.2

The file holds lines with ``chosen`` and ``rejected``, whole dialogues each (github.com/anthropics/hh-rlhf; gzip or
not). With ``RLX_DATA_DIR`` set, ``$RLX_DATA_DIR/hh_rlhf/harmless_base_test_filtered.jsonl.gz`` is the default.

A byte-level transformer of about a million parameters first learns to write the chosen responses, then to prefer them.
This takes minutes on two cores and shows that every part works. It is far too small, and a few hundred pairs are far
too few, to say anything of alignment. Read in ``runs/dpo_hh/table.md``: the held-out ``loss`` of the stage sft (nats
per byte) falls well below log 259 = 5.56, and ``reward_accuracy`` of the stage preference, how often the implicit
reward ranks the chosen response first on held-out pairs, stands near 0.5 with an interval of about +-0.1.

Rafailov et al., *Direct Preference Optimization*, arXiv:2305.18290. ``:smoke`` takes seconds and needs no data.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from rlx.train.smoke import shrink

FILE = Path("hh_rlhf", "harmless_base_test_filtered.jsonl.gz")


def get_config(arg=None):
    """``smoke`` shrinks the run to seconds, on generated data."""
    folder = os.environ.get("RLX_DATA_DIR")
    optimizer = {"name": "adamw", "schedule": "cosine", "weight_decay": 0.01, "clip_norm": 1.0}
    config = ConfigDict(
        {
            "seed": 0,
            "start": None,
            "tokenizer": {"name": "byte"},
            "model": {"name": "transformer", "hidden_size": 128, "num_layers": 4, "num_heads": 4},
            "data": {
                "path": str(Path(folder) / FILE) if folder else "",
                "format": "auto",
                "max_prompt_length": 128,
                "max_response_length": 128,
                "on_bad_row": "error",
                "eval_fraction": 0.2,
                "limit": None,
            },
            "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
            "stages": ("sft", "preference"),
            "sft": {
                "steps": 100,
                "batch_size": 16,
                "micro_batches": 1,
                "optimizer": {**optimizer, "learning_rate": 2e-3, "warmup_steps": 10},
                "eval_every": 50,
                "checkpoint_every": 50,
                "log_every": 10,
            },
            "preference": {
                "steps": 100,
                "batch_size": 8,
                "micro_batches": 1,
                "optimizer": {**optimizer, "learning_rate": 1e-4, "warmup_steps": 10},
                "eval_every": 50,
                "checkpoint_every": 50,
                "log_every": 10,
            },
            "method": {"name": "dpo", "beta": 0.1},
            "reference": "auto",
            "keep": 2,
            "loggers": (),
            "on_nan": "stop",
        }
    )
    return shrink(config, arg)
