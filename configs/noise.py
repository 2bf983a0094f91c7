r"""Which loss survives wrong labels: DPO, conservative DPO and robust DPO on pairs of which some are flipped.

  python -m rlx.sweep --config=configs/noise.py --workdir=runs/noise            # 3 methods x 3 rates x 3 seeds
  python -m rlx.train --config=configs/noise.py --workdir=runs/one --config.data.flip_rate=0.2

The pairs are generated: of two random strings the one with more a's is better, so the true preference is known.
Training labels are flipped with rate 0, 0.2 or 0.4, held-out labels never. cdpo and rdpo are told the rate. Read
``reward_accuracy`` (held out, clean) in ``runs/noise/table.md``: near 1 without flips; the rows of rate 0.4 differ.

Chowdhury et al., *Provably Robust DPO*, arXiv:2403.00409. ``:smoke`` takes seconds.
"""

from ml_collections import ConfigDict

from rlx import sweep as sweeps
from rlx.data.letters import letter_pairs
from rlx.train.smoke import shrink

RATES = (0.0, 0.2, 0.4)


def get_config(arg=None):
    """``smoke`` shrinks the run to seconds."""
    optimizer = {"name": "adamw", "learning_rate": 2e-3, "schedule": "constant", "warmup_steps": 5, "clip_norm": 1.0}
    stage = {"batch_size": 32, "optimizer": optimizer, "eval_every": 50, "checkpoint_every": 0, "log_every": 10}
    config = ConfigDict(
        {
            "seed": 0,
            "tokenizer": {"name": "byte"},
            "model": {"name": "transformer", "hidden_size": 32, "num_layers": 2, "num_heads": 2},
            "data": {
                "source": "memory",
                "records": letter_pairs(512, seed=0, prompts="a"),
                "max_prompt_length": 3,
                "max_response_length": 7,
                "eval_fraction": 0.5,
                "flip_rate": 0.2,
            },
            "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
            "stages": ("sft", "preference"),
            "sft": {"steps": 100, **stage},
            "preference": {"steps": 100, **stage},
            "method": {"name": "rdpo", "beta": 0.1, "epsilon": 0.2},
            "reference": "auto",
            "keep": 1,
            "loggers": (),
            "on_nan": "stop",
        }
    )
    return shrink(config, arg)


def get_sweep(sweep=None):
    """``methods`` (or nothing): method x flip rate x 3 seeds; ``smoke``: two runs."""
    if sweep == "smoke":
        return sweeps.zip_(seed=[0, 1], **{"data.flip_rate": [0.0, 0.25]})
    cells = [
        {"method": {"name": name, "beta": 0.1} | epsilon, "data.flip_rate": rate}
        for rate in RATES
        for name, epsilon in (("dpo", {}), ("cdpo", {"epsilon": rate}), ("rdpo", {"epsilon": rate}))
    ]
    return sweeps.cross(cells, sweeps.seeds(3))
