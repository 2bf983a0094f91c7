r"""SFT, then GRPO, on the grade-school problems of GSM8K, read as bytes by a small transformer.

  RLX_DATA_DIR=/data python -m rlx.train --config=configs/rl_gsm8k.py --workdir=runs/gsm8k      # /data/gsm8k/*.jsonl.gz
  python -m rlx.train --config=configs/rl_gsm8k.py --workdir=runs/gsm8k --config.task.path=/data/gsm8k/train.jsonl.gz
  python -m rlx.train --config=configs/rl_gsm8k.py:smoke --workdir=runs/gsm8k_smoke

It shows that the whole way works on real problems: files, a verifier of final answers, a reward of two parts (a right
answer, and a tenth for giving any). It does not show that a million parameters that start from nothing can reason:
``accuracy``, on one percent of the problems, is about 0, and what GRPO learns is to end with ``#### x``. A checkpoint
that can is a matter of ``config.model`` and ``config.tokenizer``. ``:smoke`` takes seconds, on made-up stories.
"""

from ml_collections import ConfigDict

from rlx.train.smoke import shrink

REWARD = {"components": {"correct": "gsm8k", "form": {"verifier": "has_answer", "weight": 0.1}}}
STORIES = {"name": "rlx.rollout.tasks.stories:stories"}


def get_config(arg=None):
    """``smoke`` shrinks the run to seconds."""
    prompt, response = (320, 256) if arg is None else (96, 48)
    optimizer = {"name": "adamw", "schedule": "constant", "warmup_steps": 10, "clip_norm": 1.0}
    config = ConfigDict(
        {
            "seed": 0,
            "start": None,
            "tokenizer": {"name": "byte"},
            "model": {"name": "transformer", "hidden_size": 128, "num_layers": 4, "num_heads": 4, "init_std": 0.05},
            "task": {"name": "gsm8k", "path": ""} if arg is None else STORIES,
            "data": {"max_prompt_length": prompt, "max_response_length": response, "eval_fraction": 0.01},
            "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
            "stages": ("sft", "rl"),
            "sft": {
                "steps": 600,
                "batch_size": 16,
                "micro_batches": 1,
                "optimizer": {**optimizer, "learning_rate": 2e-3},
                "eval_every": 200,
                "checkpoint_every": 100,
                "log_every": 10,
            },
            "rl": {
                "steps": 60,
                "batch_size": 8,
                "micro_batches": 1,
                "optimizer": {**optimizer, "learning_rate": 3e-4},
                "rollout": {"group": 8, "max_new_tokens": response, "temperature": 1.0, "reward": REWARD},
                "eval_every": 30,
                "checkpoint_every": 10,
                "log_every": 5,
            },
            "method": {"name": "grpo"},
            "keep": 2,
        }
    )
    return shrink(config, arg)
