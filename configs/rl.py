r"""SFT, then any policy-gradient method of the catalogue, on a task whose answers can be verified.

  python -m rlx.train --config=configs/rl.py:grpo --workdir=runs/grpo
  python -m rlx.train --config=configs/rl.py:clip_cov --workdir=runs/clip_cov --config.rl.rollout.minibatches=2
  python -m rlx.train --config=configs/rl.py:grpo --workdir=runs/countdown --config.task.name=countdown
  python -m rlx.train --config=configs/rl.py:spo_tree --workdir=runs/spo_tree
  python -m rlx.train --config=configs/rl.py:grpo,smoke --workdir=runs/rl_smoke
  python -m rlx.sweep --config=configs/rl.py --workdir=runs/rl_methods      # 12 methods, one table

METHODS.md lists the names; ``grpo`` is the default. The task is addition modulo 100: ``27+81=`` -> ``08``. A small
transformer first learns from written answers, far from perfectly; then it draws eight responses to each of 64 prompts,
which the verifier rewards, and the method moves it. Each step of the stage ``rl`` is one such batch. The table in the
run directory has the ``accuracy`` on held-out prompts; ``metrics.jsonl`` the reward, entropy, length and the rest of
every step. Methods that read ``advantages`` get those of ``rl.rollout.advantage``; recipes bring their own estimator.
Those that read ``values`` have a value head, trained along; ``multi_objective_grpo_loss`` has a second objective;
``eggroll_update`` takes no gradients, and tries sixteen perturbed policies on every batch instead; ``spo_tree`` and
``mc_tree`` draw the eight responses as leaves of a tree that branches after every token, and value what stands there.
``:smoke`` (or ``:<name>,smoke``) takes seconds.
"""

from ml_collections import ConfigDict

from rlx import catalog
from rlx import sweep as sweeps
from rlx.build import build
from rlx.errors import UserError, close_matches
from rlx.train.lessons import OF_RESPONSES
from rlx.train.smoke import shrink

OF_THE_POLICY = ("logprobs", "reference_logprobs", "entropy", "renyi2", "top_p_entropy", "expected_discriminator")
"""What the forward passes give."""
OBJECTIVES = {
    "components": {
        "correct": "exact",
        "form": {"verifier": "matches", "options": {"pattern": "[0-9]{2}"}, "weight": 0.1},
    }
}
"""What a method of several objectives weighs: whether the answer is right, and whether it has two digits."""
FAMILIES = ("policy", "discriminative", "entropy", "advantages")


EVOLUTION = "eggroll_update"
TREES = {"spo_tree": {"name": "spo", "advantage": "spo_tree"}, "mc_tree": {"name": "dapo", "advantage": "mc_tree"}}
"""Name -> method of what learns from trees of segments: SPO's (arXiv:2505.23564), and Monte Carlo values of steps."""


def reads(name):
    """The arrays that a method reads; evolution has no loss, and reads none."""
    if name == EVOLUTION:
        return set()
    method = build(TREES.get(name) or name)
    return {*method.needs, *method.prepare_needs}


def trains(name):
    """Whether responses and forward passes give all that a method reads."""
    return "logprobs" in build(name).needs and reads(name) <= {"advantages", *OF_RESPONSES, *OF_THE_POLICY}


NAMES = [
    name
    for family in FAMILIES
    for name, entry in catalog.FAMILIES[family].items()
    if entry.kind == "loss" and trains(name)
]


def get_config(arg=None):
    """``<name>``, ``smoke``, or ``<name>,smoke``."""
    name, _, size = (arg or "grpo").partition(",")
    if name == "smoke":
        name, size = "grpo", "smoke"
    known = (*NAMES, EVOLUTION, *TREES)
    if name not in known:
        raise UserError(f"unknown method {name!r}.{close_matches(name, known)} Known here: {', '.join(known)}.")
    optimizer = {"name": "adamw", "schedule": "constant", "warmup_steps": 5, "clip_norm": 1.0}
    config = ConfigDict(
        {
            "seed": 0,
            "start": None,
            "tokenizer": {"name": "byte"},
            "model": {
                "name": "transformer",
                "hidden_size": 64,
                "num_layers": 2,
                "num_heads": 4,
                "init_std": 0.1,
                **({"head": "scalar"} if "values" in reads(name) else {}),
            },
            "task": {"name": "modadd"},
            "data": {"max_prompt_length": 8, "max_response_length": 4, "eval_fraction": 0.05},
            "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
            "stages": ("sft", "rl"),
            "sft": {
                "steps": 600,
                "until_loss": 0.8,
                "batch_size": 256,
                "optimizer": {**optimizer, "learning_rate": 3e-3},
                "log_every": 5,
            },
            "rl": {
                "steps": 300,
                "batch_size": 64,
                "micro_batches": 1,
                "optimizer": {**optimizer, "learning_rate": 1e-3},
                "rollout": {
                    "group": 8,
                    "max_new_tokens": 3,
                    "temperature": 1.0,
                    "epochs": 1,
                    "minibatches": 1,
                    **({"critic": {"coefficient": 0.5}} if "values" in reads(name) else {}),
                    **({"reward": OBJECTIVES} if "objective_rewards" in reads(name) else {}),
                    **({"evolution": {"members": 16, "sigma": 0.02}} if name == EVOLUTION else {}),
                    **({"segments": {"length": 1, "branching": (2, 2, 2)}} if name in TREES else {}),
                },
                "eval_every": 100,
                "checkpoint_every": 100,
                "log_every": 10,
            },
            "method": TREES.get(name, {"name": name}),
            "keep": 2,
        }
    )
    return shrink(config, size or None)


SWEPT = (
    "grpo", "dr_grpo", "dapo", "rloo", "opo", "gpg", "gspo", "gmpo", "cispo", "sapo", "clip_cov", "kl_cov"
)  # fmt: skip


def get_sweep(sweep=None):
    """``methods`` (or nothing): twelve, two updates on every batch; ``seeds``: these three times; ``smoke``: two."""
    if sweep == "smoke":
        return sweeps.product(**{"method.name": ["grpo", "rloo"]})
    options = ("methods", "seeds", "smoke")
    if sweep not in (None, *options):
        raise UserError(f"unknown sweep {sweep!r}.{close_matches(sweep, options)} Known: {', '.join(options)}.")
    cells = [{"method.name": name, "rl.rollout.minibatches": 2} for name in SWEPT]
    return sweeps.cross(cells, sweeps.seeds(3)) if sweep == "seeds" else cells
