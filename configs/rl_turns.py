r"""SFT on an expert's episodes, then methods of steps and turns on an environment of several turns.

  python -m rlx.train --config=configs/rl_turns.py:gigpo --workdir=runs/gigpo
  python -m rlx.train --config=configs/rl_turns.py:matchtir --workdir=runs/matchtir --config.rl.rollout.matching=greedy
  python -m rlx.train --config=configs/rl_turns.py:spo_tree,smoke --workdir=runs/rl_turns_smoke

A walk on a graph, one node at a time (``a>bc b>d ... a:d=`` asks for a way from a to d): equal nodes are anchor states,
equal beginnings are branches of a tree, steps are edges. Or a calculator: ``calc: 12+7`` is answered by its value,
``answer: 84`` ends. A step of the stage ``rl`` lets the policy play eight episodes from each of 32 prompts. The table
in the run directory has the ``accuracy`` of the likeliest actions on held-out prompts. The default is ``gigpo``;
``METHODS`` below lists the names; ``:smoke`` (or ``:<name>,smoke``) takes seconds.
"""

from ml_collections import ConfigDict

from rlx.errors import UserError, close_matches
from rlx.train.smoke import shrink

WALK = {"environment": "graph_walk", "size": 2048, "turns": 6, "towards": 0.1, "options": {"nodes": 8, "longest": 4}}
TOOL = {
    "environment": "calculator",
    "size": 2048,
    "turns": 4,
    "call_reward": 0.1,
    "options": {"counts": (3,), "largest": 9},
}
METHODS = {
    "grpo": (WALK, {"name": "grpo"}),
    "gigpo": (WALK, {"name": "grpo", "advantage": "gigpo"}),
    "spo_tree": (WALK, {"name": "grpo", "advantage": "spo_tree"}),
    "graph_grpo_edge": (WALK, {"name": "grpo", "advantage": "graph_grpo_edge"}),
    "process_grpo": (WALK, {"name": "process_grpo"}),
    "empg_grpo": (WALK, {"name": "empg_grpo"}),
    "epo": (WALK, {"name": "epo", "steps": 6}),
    "matchtir": (TOOL, {"name": "matchtir"}),
    "comam": (TOOL, {"name": "grpo", "advantage": "comam_credit"}),
    "ares": (TOOL, {"name": "grpo", "reward_bonus": "ares_entropy_reward"}),
}
"""Name -> environment and method."""
BOUNDS = {"graph_walk": (72, 1, 10), "calculator": (24, 20, 10)}
"""Environment -> tokens of a prompt, an action and an observation."""


def get_config(arg=None):
    """``<name>``, ``smoke``, or ``<name>,smoke``."""
    name, _, size = (arg or "gigpo").partition(",")
    if name == "smoke":
        name, size = "gigpo", "smoke"
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}.{close_matches(name, METHODS)} Known here: {', '.join(METHODS)}.")
    task, method = METHODS[name]
    prompt, action, observation = BOUNDS[task["environment"]]
    rollout = {"group": 8, "max_new_tokens": action, "observation_tokens": observation, "temperature": 1.0}
    optimizer = {"name": "adamw", "schedule": "constant", "warmup_steps": 5, "clip_norm": 1.0}
    stage = {"eval_every": 50, "checkpoint_every": 50, "log_every": 10}
    config = ConfigDict(
        {
            "seed": 0,
            "start": None,
            "tokenizer": {"name": "byte"},
            "model": {"name": "transformer", "hidden_size": 64, "num_layers": 2, "num_heads": 4, "init_std": 0.1},
            "task": task,
            "data": {"max_prompt_length": prompt, "eval_fraction": 0.05},
            "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
            "stages": ("sft", "rl"),
            "sft": {"steps": 200, "batch_size": 128, "optimizer": {**optimizer, "learning_rate": 3e-3}, **stage},
            "rl": {
                "steps": 150,
                "batch_size": 32,
                "optimizer": {**optimizer, "learning_rate": 5e-4},
                "rollout": {**rollout, **({"matching": "optimal"} if name == "matchtir" else {})},
                **stage,
            },
            "method": method,
            "keep": 2,
        }
    )
    return shrink(config, size or None)
