r"""Supervised fine-tuning of a small byte-level transformer on a file of texts.

  python -m rlx.train --config=configs/sft.py --workdir=runs/sft --config.data.path=texts.jsonl
  python -m rlx.generate --checkpoint=runs/sft --prompt="Once"

A line of the file (gzip or not) is ``{"prompt": ..., "response": ...}``, ``{"text": ...}``, a conversation
``{"messages": [...]}``, or a preference pair, of which the chosen response is learned. The held-out ``loss`` is in nats
per byte, end of text included: log 259 = 5.56 before the first step, 2 to 3 after a few hundred on English.
``:smoke`` takes seconds and needs no data.
"""

from ml_collections import ConfigDict

from rlx.train.smoke import shrink


def get_config(arg=None):
    """``smoke`` shrinks the run to seconds, on generated data."""
    config = ConfigDict(
        {
            "seed": 0,
            "tokenizer": {"name": "byte"},
            "model": {"name": "transformer", "hidden_size": 128, "num_layers": 4, "num_heads": 4},
            "data": {
                "path": "",
                "format": "auto",
                "max_prompt_length": 128,
                "max_response_length": 256,
                "on_bad_row": "error",
                "eval_fraction": 0.05,
                "limit": None,
            },
            "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
            "stages": ("sft",),
            "sft": {
                "steps": 300,
                "batch_size": 16,
                "micro_batches": 1,
                "optimizer": {
                    "name": "adamw",
                    "learning_rate": 2e-3,
                    "schedule": "cosine",
                    "warmup_steps": 30,
                    "weight_decay": 0.01,
                    "clip_norm": 1.0,
                },
                "eval_every": 100,
                "checkpoint_every": 100,
                "log_every": 10,
            },
            "keep": 2,
            "loggers": (),
            "on_nan": "stop",
        }
    )
    return shrink(config, arg)
