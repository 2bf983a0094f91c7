r"""Any preference, reward-model or distillation loss of the catalogue, on data that fits it and needs no file.

  python -m rlx.train --config=configs/preference.py:dpo --workdir=runs/dpo
  python -m rlx.train --config=configs/preference.py:mnpo --workdir=runs/mnpo --config.policies.opponents.every=20
  python -m rlx.train --config=configs/preference.py:simpo,smoke --workdir=runs/simpo_smoke
  python -m rlx.sweep --config=configs/preference.py --workdir=runs/preference     # twelve losses x 3 seeds

METHODS.md lists the names; ``dpo`` is the default. The data is generated: a response is better the more often it
repeats the letter that its prompt names, so the true preference is known (:mod:`rlx.data.letters`). Each method gets
what it reads: pairs, lists of four, single responses with a label, or text; scores, win rates or probabilities from the
true rewards; a reference, anchor or teacher that is the policy at the start of the stage; an old policy or opponents
that are its snapshots. A reward model trains in the stage ``reward``. To train on your own file:
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
from rlx.train import forward, policies
from rlx.train.smoke import shrink

EXAMPLES = 512
OF_THE_MODEL = (*forward.HEAD, *forward.LAST)
"""What stands first in the signature of a reward model or a ranker: the stage is ``reward``."""
NOT_HERE = {
    "hypo": "needs samples of the policy in every step",
    "onereward_policy_loss": "differentiates a judge through a generated image",
    "diffusion_dro": "compares denoising errors of an image model",
    "spo_degree": "reads the logits of a head over degrees, which no paper text describes",
}
NAMES = [
    name
    for family in ("pairwise", "token_level", "listwise", "game", "reward")
    for name, entry in catalog.FAMILIES[family].items()
    if entry.kind == "loss" and name not in NOT_HERE
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
    if name in NOT_HERE:
        raise UserError(f"{name} does not train on texts: it {NOT_HERE[name]}. Call rlx.{name} on arrays.")
    if name not in NAMES:
        raise UserError(f"unknown method {name!r}.{close_matches(name, NAMES)} METHODS.md lists the names.")
    method = build(name)
    model_side = method.needs[0] in OF_THE_MODEL
    optimizer = {"name": "adamw", "learning_rate": 2e-3, "schedule": "constant", "warmup_steps": 5, "clip_norm": 1.0}
    stage = {"steps": 100, "batch_size": 32, "optimizer": optimizer, "eval_every": 50, "log_every": 10}
    head = {"head": "scalar"} if model_side else {}
    config = {
        "seed": 0,
        "start": None,
        "tokenizer": {"name": "byte"},
        "model": {"name": "transformer", "hidden_size": 32, "num_layers": 2, "num_heads": 2, **head},
        "data": data(method),
        "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
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
    if "rationale_logps" in method.needs:
        rows = [row | {"rationale": f"more {row['prompt'][0]}"} for row in rows]
    read = [name for name in (*method.needs[1:], *method.optional, *method.prepare_needs) if name in known[0]]
    arrays = sorted({*read} - {*rows[0]} - ({"labels"} if method.data == "unpaired" else set()))
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
    for role in {"old", "opponents"} & {*rules}:
        rules[role] = {"update": "snapshot", "every": 25, "count": 2 if role == "opponents" else 1}
    return rules


def get_sweep(sweep=None):
    """Twelve losses x 3 seeds; ``smoke``: two runs."""
    if sweep == "smoke":
        return sweeps.zip_(seed=[0, 1], method=["dpo", "ipo"])
    return sweeps.cross([{"method": {"name": name}} for name in SWEPT], sweeps.seeds(3))
