r"""Any preference, reward-model or distillation loss of the catalogue, on data that fits it and needs no file.

  python -m rlx.train --config=configs/preference.py:dpo --workdir=runs/dpo
  python -m rlx.train --config=configs/preference.py:mnpo --workdir=runs/mnpo --config.policies.opponents.every=20
  python -m rlx.train --config=configs/preference.py:simpo,smoke --workdir=runs/simpo_smoke
  python -m rlx.sweep --config=configs/preference.py --workdir=runs/preference     # twelve losses x 3 seeds

METHODS.md lists the names; ``dpo`` is the default. The data is generated: a response is better the more often it
repeats the letter that its prompt names, so the true preference is known (:mod:`rlx.data.letters`). Each method gets
what it reads: pairs, lists of four, single responses with a label, or text; scores, win rates or probabilities from the
true rewards; a reference, anchor or teacher that is the policy at the start of the stage, opponents that are its
snapshots. A reward model trains in the stage ``reward``. To train on your own file:
``--config.data.source=jsonl --config.data.path=FILE`` (and ``--config.data.arrays`` for what it holds beside texts).

A teacher worth the name is another run: ``--config.policies.teacher.run=runs/teacher``. Methods that their papers run
on samples of the policy (Nash-MD, online IPO, XPO, ...) take the responses of the data as those samples here.
``:smoke`` (or ``:<name>,smoke``) takes seconds.
"""

from ml_collections import ConfigDict

from rlx import catalog
from rlx import sweep as sweeps
from rlx.build import build
from rlx.data import letters
from rlx.errors import UserError, close_matches
from rlx.train import policies
from rlx.train.smoke import shrink

EXAMPLES = 512
OF_THE_MODEL = ("rewards", "scores", "hidden", "values")
"""What stands first in the signature of a reward model or a ranker: the stage is ``reward``."""
NAMES = [
    name
    for family in ("pairwise", "token_level", "listwise", "game", "reward")
    for name, entry in catalog.FAMILIES[family].items()
    if entry.kind == "loss"
]
SWEPT = (
    "dpo",
    "cdpo",
    "rdpo",
    "ipo",
    "simpo",
    "dpo_hinge",
    "exo_pair",
    "nca_pair",
    "apo_zero",
    "sppo_hard",
    "cpo",
    "power",
)


def get_config(arg=None):
    """``<name>``, ``smoke``, or ``<name>,smoke``."""
    name, _, size = (arg or "dpo").partition(",")
    if name == "smoke":
        name, size = "dpo", "smoke"
    if name not in NAMES:
        raise UserError(f"unknown method {name!r}.{close_matches(name, NAMES)} METHODS.md lists the names.")
    method = build(name)
    model_side = method.needs[0] in OF_THE_MODEL
    optimizer = {"name": "adamw", "learning_rate": 2e-3, "schedule": "constant", "warmup_steps": 5, "clip_norm": 1.0}
    stage = {"steps": 100, "batch_size": 32, "optimizer": optimizer, "eval_every": 50, "log_every": 10}
    head = {"head": "scalar"} if model_side else {}
    config = {
        "seed": 0,
        "tokenizer": {"name": "byte"},
        "model": {"name": "transformer", "hidden_size": 32, "num_layers": 2, "num_heads": 2, **head},
        "data": data(method),
        "mesh": {"data": 1, "fsdp": 1, "model": 1},
        "stages": ("reward",) if model_side else ("sft",) if name == "sft" else ("sft", "preference"),
        "reference": "auto",
        "keep": 1,
        "loggers": (),
        "on_nan": "stop",
    }
    config |= {name: dict(stage) for name in config["stages"]}
    if name != "sft":
        config |= {"method": {"name": name}, "policies": beside(method)}
    return shrink(ConfigDict(config), size or None)


def data(method):
    """Generated examples of the kind that a method trains on, with the arrays that it reads of them."""
    make = letters.letter_lists if method.data == "lists" else letters.letter_pairs
    rows = make(EXAMPLES, seed=0)
    known = [letters.known(row) for row in rows]
    read = [name for name in (*method.needs[1:], *method.optional, *method.prepare_needs) if name in known[0]]
    arrays = (
        [] if method.data in ("unpaired", "sft") else sorted({*read} - ({"scores"} if "scores" in rows[0] else set()))
    )
    return {
        "source": "memory",
        "records": [
            row | {f"true_{name}": found[name] for name in arrays} for row, found in zip(rows, known, strict=True)
        ],
        "arrays": {name: f"true_{name}" for name in arrays},
        "max_prompt_length": 4,
        "max_response_length": 8,
        "eval_fraction": 0.5,
    }


def beside(method):
    """The policies that a method reads: opponents are the last two snapshots, all others the policy at the start."""
    rules = {role: {"update": "fixed"} for role in policies.roles_of(method)}
    if "opponents" in rules:
        rules["opponents"] = {"update": "snapshot", "every": 25, "count": 2}
    return rules


def get_sweep(sweep=None):
    """Twelve losses x 3 seeds; ``smoke``: two runs."""
    if sweep == "smoke":
        return sweeps.zip_(seed=[0, 1], method=["dpo", "ipo"])
    return sweeps.cross([{"method": {"name": name}} for name in SWEPT], sweeps.seeds(3))
