r"""Group-relative REINFORCE on stale samples (arXiv:2509.24203), with shared parameters: who survives an old sampler?

The paper trains Qwen2.5-3B on GSM8K with a sampler that is brought up to date every 20 steps. ``off_policy_reinforce``
asks its question of a table of logits, in which nothing collapses; here a small transformer learns sums modulo 100
through the trainer, and the policy that draws is copied every 1, 8 or 32 steps (``rl.rollout.sync_every``).

  python -m experiments.stale_sampler [--full] [--smoke] [--workdir=DIR]

  (nothing)  3 seeds, 4 methods, 3 intervals: 36 runs of 320 steps
  --full     10 seeds
  --smoke    one run of a tiny model in seconds, without a verdict

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png, and the run directories under
``runs``; a second call computes only what is missing.

Written answers are learnt once per seed, until their loss is below 0.8. A step draws 8 responses to each of 64 prompts
and updates once; advantages are rewards less the mean of the group. The number reported is the greedy accuracy of the
policy that is *trained*, on 500 held-out sums, every 20 steps. Clips are the paper's; number of steps, learning rate,
model and task are ours.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import claims, frame, parts, sums
from experiments.frame import Frame
from experiments.ledger import Ledger
from experiments.parts import Row
from rlx.config import config_hash
from rlx.report import plots, tables
from rlx.report.intervals import paired_interval
from rlx.report.rows import read_rows, write_atomically
from rlx.train.main import train
from rlx.train.workdir import CACHE, use_compilation_cache

TITLE, USAGE = "Who survives an old sampler?", __doc__.split("\n\n", 2)[2]
GRPO, NARROW, WIDE, VANILLA = "grpo, 0.2/0.2", "rec, 0.2/0.2", "rec, 0.6/2.0", "reinforce"
METHODS: dict[str, dict[str, Any]] = {
    GRPO: {"name": "ppo_clip_loss"},
    NARROW: {"name": "rec_one_side_loss"},
    WIDE: {"name": "rec_one_side_loss", "clip_low": 0.6, "clip_high": 2.0},
    VANILLA: {"name": "gpg_loss"},
}
"""REC without importance weights; GRPO is REC with them, at the same clip."""
BY, METRICS = ("stale", "method"), ("start_reward", "final", "peak", "drop", "entropy")
ON_POLICY = "theory: on fresh samples the ratio is 1 and all four have the gradient of REINFORCE"
CLIP = "arXiv:2509.24203: the clip, not the importance weight, makes the difference"
FASTER = "arXiv:2509.24203: a wider clip learns faster from stale samples (numbers not read)"
COLLAPSE = "arXiv:2509.24203: without a clip stale samples make it collapse, with one they do not"
NOTE = (
    "A transformer of two layers learns sums modulo 100; *stale*: steps between copies of the policy to the one that "
    "draws. *start_reward*: of the first draws; *final*, *peak*: greedy accuracy on held-out sums of the policy that "
    "is trained, at the end and at its best; *drop*: share of the peak that is lost at the end; *entropy*: nats, at "
    "the end, of the policy that draws. *rec*: REC-OneSide without importance weights. Numbers of the paper are of a "
    "language model and do not compare."
)


def get_config(size: str) -> ConfigDict:
    """Seeds, methods and intervals, and what of configs/rl.py is set anew."""
    config = ConfigDict(
        {
            "seeds": tuple(range(10 if size == "full" else 3)),
            "methods": tuple(METHODS),
            "staleness": (1, 8, 32),
            "base": "grpo",
            "sft": sums.ANSWERS,
            "rl": {"steps": 320, "learning_rate": 3e-4, "eval_every": 20},
        }
    )
    if size == "smoke":
        config.update({"seeds": (1000,), "methods": (WIDE,), "staleness": (2,), "base": "grpo,smoke"})
        config.update({"sft": {"steps": 5, "every": 5, "loss": 9.0}, "rl": {"steps": 4, "eval_every": 2}})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every method at every interval on every seed."""
    settings = {key: value for key, value in config.to_dict().items() if key in ("base", "sft", "rl")}
    return [
        {"config": config_hash({**settings, **METHODS[method]}), "stale": stale, "method": method, "seed": seed}
        for seed in config.seeds
        for stale in config.staleness
        for method in config.methods
    ]


def run(config: ConfigDict, cell: Mapping[str, Any], folder: Path) -> Row:
    """One run of the stage ``rl`` from the answers of its seed, and its measures."""
    seed, method, stale = cell["seed"], cell["method"], cell["stale"]
    start = folder / f"sft_{seed}"
    own = folder / f"{list(METHODS).index(method)}_{METHODS[method]['name']}_{stale}_{seed}"
    sums.learn_answers(config.base, seed, config.sft, start)
    chosen = sums.base(config.base, seed, "rl", steps=config.rl.steps, log_every=1, eval_every=config.rl.eval_every)
    chosen.start, chosen.method = str(start), ConfigDict(METHODS[method])
    chosen.data.eval_fraction = 0.05 if config.base == "grpo" else 0.25
    chosen.rl.optimizer.learning_rate = config.rl.learning_rate
    chosen.rl.rollout.update({"sync_every": stale, "advantage": "dr_grpo"})
    train(chosen, own)
    return measures(read_rows(own / "metrics.jsonl"))


def measures(rows: Sequence[Mapping[str, Any]]) -> Row:
    """What is reported of a run, from its rows.

    >>> evals = [{"split": "eval", "step": i, "accuracy": a} for i, a in enumerate([0.1, 0.4, 0.2])]
    >>> found = measures([{"split": "train", "reward": 0.1, "grad_norm": 2.0, "rollout_entropy": 1.0}, *evals])
    >>> found["final"], found["peak"], found["drop"], found["first_update"]
    (0.2, 0.4, 0.5, 2.0)
    """
    trained, held = ([row for row in rows if row["split"] == split] for split in ("train", "eval"))
    curve = [row["accuracy"] for row in held]
    peak = max(curve)
    return {
        "start_reward": trained[0]["reward"],
        "final": curve[-1],
        "peak": peak,
        "drop": 1 - curve[-1] / peak if peak else 0.0,
        "entropy": float(np.mean([row["rollout_entropy"] for row in trained[-20:]])),
        "first_update": trained[0]["grad_norm"],
        "curve": {"step": [row["step"] for row in held], "accuracy": curve},
    }


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """Agreement of the first updates; weight against clip, wide against narrow; who collapses."""
    found: list[parts.Tested] = []
    for method in config.methods[1:]:
        here, grpo = ({"stale": 1, "method": name} for name in (method, GRPO))
        measured = paired_interval(*claims.paired(rows, "first_update", here, grpo))
        text = f"stale 1: size of the first gradient of {method} less that of {GRPO}"
        verdict = claims.within(measured, -1e-5, 1e-5)
        found.append((claims.Claim(text, measured, "paired difference in [-1e-5, 1e-5]", verdict), ON_POLICY))
    for stale in config.staleness:
        at = {method: {"stale": stale, "method": method} for method in METHODS}
        text = f"stale {stale}: final accuracy with importance weights less that without, clip 0.2/0.2"
        measured = paired_interval(*claims.paired(rows, "final", at[GRPO], at[NARROW]))
        verdict = claims.within(measured, -0.02, 0.02)
        found.append((claims.Claim(text, measured, "paired difference in [-0.02, 0.02]", verdict), CLIP))
        if stale > 1:
            text = f"stale {stale}: final accuracy of {WIDE} > that of {NARROW}"
            found.append((claims.greater(text, rows, "final", at[WIDE], at[NARROW]), FASTER))
            for method in (GRPO, NARROW, WIDE):
                text = f"stale {stale}: share of the peak that {method} loses, worst seed"
                found.append((claims.every(text, rows, "drop", at[method], high=0.5), COLLAPSE))
            text = f"stale {stale}: share of the peak that {VANILLA} loses, every seed"
            found.append((claims.every(text, rows, "drop", at[VANILLA], low=0.5), COLLAPSE))
    return found


def work(config: Mapping[str, Any], ledger: Ledger, workdir: Path) -> str:
    """Computes the rows that are missing, two seeds at a time, and writes the files."""
    own = config["sums"]
    use_compilation_cache((workdir / CACHE).absolute())
    rows = ledger.fill(
        cells(own),
        lambda cell: cell["seed"],  # methods share their start; compiled programs are shared by the cache on disk
        lambda cell: run(own, cell, workdir / "runs"),
        label="stale sampler",
        unit="run",
        interval=30,
    )
    summary = tables.summarise(rows, BY, METRICS)
    text = [f"# {TITLE}\n", f"{NOTE}\n", tables.markdown(summary)]
    if config["size"] != "smoke":
        tests = [{**claim.row(), "paper": source} for claim, source in tested(own, rows)]
        text += ["## Claims\n", tables.markdown(tests)]
    write_atomically(workdir / "table.md", "\n".join(text))
    write_atomically(workdir / "table.csv", tables.csv_text(summary))
    draw(rows, workdir / "plot.png")
    return "\n".join(text)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy over the steps, a panel for each interval: every run faintly, and the mean of each method."""
    staleness = list(dict.fromkeys(row["stale"] for row in rows))
    figure, axes = plots.blank(len(staleness), TITLE, height=3.8)
    for axis, stale in zip(axes, staleness, strict=False):
        for i, method in enumerate(METHODS):
            own = [row["curve"] for row in rows if row["stale"] == stale and row["method"] == method]
            for curve in own:
                axis.plot(curve["step"], curve["accuracy"], color=plots.COLOURS[i], alpha=0.3, linewidth=0.7)
            if own:
                mean = np.mean([curve["accuracy"] for curve in own], 0)
                axis.plot(own[0]["step"], mean, color=plots.COLOURS[i], label=method)
        axis.set(xlabel="step", ylabel="greedy accuracy", title=f"the sampler is copied every {stale} steps")
    axes[0].legend(frameon=False, fontsize="small")
    temporary = path.with_name(f".plot.{os.getpid()}.png")
    plots.save(figure, temporary)
    os.replace(temporary, path)


def configs(size: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into ``config.json``."""
    return {"size": size, "sums": get_config(size)}


FRAME = Frame("stale_sampler", USAGE, ("config", "stale", "method", "seed"), configs, work)

if __name__ == "__main__":
    frame.program(lambda: frame.run(FRAME))
