r"""Rewarding the Unlikely (arXiv:2506.02355) with shared parameters: which right samples does an update lift?

The paper proves theorems: GRPO lifts those right samples that were likely anyway (its rank bias), so that a problem is
solved with fewer samples, but fewer problems are solved at all; a reward that is lower for likely samples mends it, and
so does a second update on each batch. Here a small transformer solves ``countdown``, whose prompts have many right
answers.

  python -m experiments.unlikely_samples [--full] [--smoke] [--workdir=DIR]

  (nothing)  3 seeds: written answers once, then 3 methods; half an hour of processor time
  --full     10 seeds
  --smoke    one run of a tiny model in seconds, without a verdict

writes metrics.jsonl (a row per seed and method), table.md, table.csv and plot.png, and what the written answers have
taught under ``runs``; a second call computes only what is missing.

A step draws 32 answers to each of 16 prompts and learns from the groups that have right and wrong ones, with a KL
penalty of 0.1: all as in the authors' script, as are the penalty of the rank and its two epochs. Model, task, steps
and learning rate are ours. Of the tasks with several right answers this one was taken because 400 steps of written
answers, two or three minutes, bring it to a fifth right (seeds from 1000 on); ``graphpath`` with 8 nodes, whose prompts
are three times as long, takes several times as long for a step.

What 3 seeds show, too few for many of the claims: GRPO sharpens as it does in the paper, pass@1 rises and pass@64 falls
below that of the start. With one update on a batch rare samples are lifted less often (on each seed, but the interval
has 0 in it), with two no longer; the reward does not flatten the slope but turns it, and wins a part of pass@64 back.
No method comes up to the start at 64 samples: perhaps because answers written at random leave it so diverse that 64
samples solve 94 % of the prompts, and there is more to lose than to gain.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import frame, unlikely_samples_plot
from experiments import unlikely_samples_claims as claims
from experiments import unlikely_samples_learn as lessons
from experiments.frame import Frame
from experiments.ledger import Ledger
from experiments.parts import Row
from rlx.config import config_hash
from rlx.report import tables
from rlx.report.rows import write_atomically
from rlx.train.workdir import CACHE, use_compilation_cache

TITLE, USAGE = "Which right samples does an update lift?", __doc__.split("\n\n", 2)[2]
KL = "k3(0.1)"
METHODS: dict[str, dict[str, Any]] = {
    claims.START: {},
    claims.ONCE: {"epochs": 1, "method": {"name": "grpo", "kl": KL}},
    claims.GRPO: {"epochs": 2, "method": {"name": "grpo", "kl": KL}},
    claims.UNLIKELY: {"epochs": 2, "method": {"name": "grpo", "kl": KL, "advantage": "unlikeliness(beta=0.25)"}},
}
"""Updates on a batch, and the loss; the penalty of the rank, epochs and KL are the authors'."""
PASSES, LIFTS = ("pass@1", "pass@4", "pass@16", "pass@64", "distinct"), ("risen", "slope", "risen_all", "slope_all")
NOTE = (
    "A transformer of two layers; *start*: after written answers. *pass@k*: on held-out prompts, from 64 samples each; "
    "*distinct*: different right answers among them. *risen*: share of right samples of a batch that are likelier "
    "after the updates on it, in groups that have wrong ones too; *slope*: of that share over the rank of a sample in "
    "its group, by log-probability of a token: from the likeliest (0) to the rarest (1). *_all*: the same for samples "
    "of the start to held-out prompts, over all of training. Beside it, from the notebook of the authors, on problems "
    "that a language model was trained on: pass@1 and pass@64 0.52 and 0.81 at the start, 0.71 and 0.80 after GRPO, "
    "0.68 and 0.83 with more KL alone, 0.65 and 0.87 with the unlikeliness reward and two epochs."
)


def get_config(size: str) -> ConfigDict:
    """Seeds, methods, task and what of configs/rl.py is set anew."""
    config = ConfigDict(
        {
            "seeds": tuple(range(10 if size == "full" else 3)),
            "methods": tuple(METHODS),
            "base": "grpo",
            "task": {"name": "countdown", "counts": (3, 4), "largest": 20, "target": 50},
            "size": {"train": 16384, "test": 256},
            "lengths": {"max_prompt_length": 16, "max_response_length": 14},
            "sft": {"steps": 400, "until_loss": None, "batch_size": 256},
            "rl": {"steps": 120, "batch_size": 16, "optimizer": {"learning_rate": 3e-4}},
            "rollout": {"group": 32, "max_new_tokens": 14},
        }
    )
    if size == "smoke":
        config.update({"seeds": (1000,), "methods": (claims.UNLIKELY,), "base": "grpo,smoke"})
        config.update({"size": {"train": 24, "test": 8}, "rollout": {"group": 4}})
        config.update({"sft": {"steps": 3, "batch_size": 4}, "rl": {"steps": 2, "batch_size": 4}})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every method on every seed."""
    settings = {key: value for key, value in config.to_dict().items() if key not in ("seeds", "methods")}
    own = {method: config_hash({**settings, **METHODS[method]}) for method in config.methods}
    return [{"config": own[m], "method": m, "seed": seed} for seed in config.seeds for m in config.methods]


def run(config: ConfigDict, cell: Mapping[str, Any], folder: Path) -> Row:
    """Learns from rewards after the written answers of its seed, and evaluates; the start is evaluated as it is."""
    seed, own = cell["seed"], METHODS[cell["method"]]
    policy, found = lessons.learn_answers(config, seed, folder / f"sft_{seed}"), {}
    tests = lessons.problem(config, seed, "test", METHODS[claims.GRPO]["method"], 1)
    if own:
        start = policy
        policy, found = lessons.learn(lessons.problem(config, seed, "train", **own), start)
        found |= lessons.after_all(tests, start, policy)
    return {**lessons.evaluate(tests, policy), **found}


def work(config: Mapping[str, Any], ledger: Ledger, workdir: Path) -> str:
    """Computes the rows that are missing, two seeds at a time, and writes the files."""
    own = config["countdown"]
    use_compilation_cache((workdir / CACHE).absolute())
    rows = ledger.fill(
        cells(own),
        lambda cell: cell["seed"],  # methods share their start; compiled programs are shared by the cache on disk
        lambda cell: run(own, cell, workdir / "runs"),
        label="unlikely samples",
        unit="run",
        interval=30,
    )
    return report(config["size"], rows, workdir)


def report(size: str, rows: Sequence[Row], workdir: Path) -> str:
    """Writes table.md, table.csv and plot.png from the rows alone; returns the text of table.md."""
    text, trained = [f"# {TITLE}\n", f"{NOTE}\n"], [row for row in rows if row["method"] != claims.START]
    for heading, own, metrics in (("Answers to held-out prompts", rows, PASSES), ("Samples that rise", trained, LIFTS)):
        text += [f"## {heading}\n", tables.markdown(tables.summarise(own, ["method"], metrics))]
    if size != "smoke":
        tested = [{**claim.row(), "paper": source} for claim, source in claims.tested(rows)]
        text += ["## Claims\n", tables.markdown(tested)]
    write_atomically(workdir / "table.md", "\n".join(text))
    write_atomically(workdir / "table.csv", tables.csv_text(tables.summarise(rows, ["method"], PASSES + LIFTS)))
    unlikely_samples_plot.draw(rows, workdir / "plot.png", TITLE)
    return "\n".join(text)


def configs(size: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into ``config.json``."""
    return {"size": size, "countdown": get_config(size)}


FRAME = Frame("unlikely_samples", USAGE, ("config", "method", "seed"), configs, work)

if __name__ == "__main__":
    frame.program(lambda: frame.run(FRAME))
