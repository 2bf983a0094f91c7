r"""Who keeps the entropy, and what does it cost? GRPO against five methods of entropy control, on a transformer.

The Entropy Mechanism (arXiv:2505.22617) says that reward is bought with entropy, R = -a exp(H) + b; Clip-Cov and KL-Cov
(the same paper), STEER (arXiv:2510.10150), AEPO-arbitrary (arXiv:2510.08141) and an entropy bonus keep it up. Their
tables need language models; here a small transformer learns sums modulo 100 through the trainer, stage by stage.

  python -m experiments.entropy_control [--full] [--smoke] [--workdir=DIR]

  (nothing)  5 seeds, 6 methods, one of them at two targets: 35 runs of 320 steps
  --full     10 seeds, and a third target
  --smoke    one method on a tiny model in seconds, without a verdict

writes metrics.jsonl (a row per seed and method), table.md, table.csv and plot.png, and the run directories under
``runs``, of which ``python -m rlx.report entropy`` draws the curves; a second call computes only what is missing.

Written answers are learnt once per seed, until their loss is below 0.8, and all methods go on from there, at a
learning rate of 3e-4 (that of our specification; configs/rl.py has 1e-3). A step draws 8 responses to each of 64
prompts and updates twice, on 32 prompts each (``minibatches=2``): one pass over the responses, so that GRPO reuses no
sample, and yet the second update is off-policy, without which clips and penalties towards the old policy do nothing.
An update has 768 tokens: Clip-Cov and KL-Cov select 1 % of them (the papers' 0.02 % would be less than one); all
other hyperparameters are the papers', the bonus's coefficient and AEPO's targets are ours.

What five seeds show (the default size, jax 0.10.2 on a CPU): GRPO raises the reward by 0.35 +- 0.22 while its entropy
falls by 69 +- 16 %. Clip-Cov and the bonus end above it in the mean, by 0.05 +- 0.05 and 0.08 +- 0.10 nats. KL-Cov and
STEER end where GRPO does: the ratio of the second update leaves the clip at 0.2 % of the tokens, which leaves little to
reweigh. AEPO holds neither target. A sum has one right answer, so what is good among responses drawn hot is the same as
among those drawn cold, and reinforcing it lowers the entropy; where a prompt has many right answers this may differ.
How far a seed has learnt sums from written answers decides more than the method does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import entropy_control_claims as claims
from experiments import entropy_control_plot, frame, sums
from experiments.frame import Frame
from experiments.ledger import Ledger
from rlx.config import config_hash
from rlx.report import tables
from rlx.report.rows import read_rows, write_atomically
from rlx.train.main import train
from rlx.train.workdir import CACHE, use_compilation_cache

TITLE, USAGE = "Who keeps the entropy, and what does it cost?", __doc__.split("\n\n", 2)[2]
NOTE = (
    "A transformer of two layers learns sums modulo 100, first from written answers until their loss is below 0.8, "
    "then from rewards: 320 steps of 64 prompts with 8 responses, two updates a step. *start*: the first step; the "
    "ends are means over the last 20 steps. *gain*: rise of the reward; *fall*: share of the entropy that is lost. "
    "*r2*, *a*, *b*: fit of R = -a exp(H) + b, or of a line in H, to averages over 20 steps; *rmse*: on the last 64 % "
    "of the steps, fitted to the first 36 %; *positive*: share of steps whose covariance of log-probability and "
    "advantage is above 0; *correlation*: of minus that covariance and the change of entropy to the next step; "
    "*jump*: 95th percentile of the size of that change, which includes the noise of 64 prompts; *miss*: mean "
    "distance from the target over the last half, as a share of the target. Numbers of the papers are of language "
    "models and do not compare."
)
Row = dict[str, Any]


def aepo(target: float) -> dict[str, Any]:
    """PPO's clip on a batch with tempered responses in it, which hold the entropy at a target (nats)."""
    return {"method": {"name": "ppo_clip_loss", "dual_clip": 3.0}, "tempered": {"target": target}}


METHODS: dict[str, dict[str, Any]] = {
    claims.GRPO: {"method": {"name": "ppo_clip_loss"}},
    "clip_cov": {"method": {"name": "clip_cov", "ratio": 0.01}},
    "kl_cov": {"method": {"name": "kl_cov", "ratio": 0.01}},
    "steer": {"method": {"name": "steer"}},
    f"{claims.AEPO}0.5": aepo(0.5),
    "entropy_bonus": {"method": {"name": "entropy_bonus_pg", "coefficient": 0.03}},
    **{f"{claims.AEPO}{target:g}": aepo(target) for target in (0.25, 0.75)},
}
"""Losses, and where there is one the block ``rollout.tempered``; `grpo` has neither KL nor entropy term."""


def get_config(size: str) -> ConfigDict:
    """Seeds and methods, and what of configs/rl.py is set anew."""
    config = ConfigDict(
        {
            "seeds": tuple(range(10 if size == "full" else 5)),
            "methods": tuple(METHODS)[: None if size == "full" else -1],
            "base": "grpo",
            "sft": sums.ANSWERS,
            "rl": {"steps": 320, "minibatches": 2, "learning_rate": 3e-4},
            "window": 20,
            "points": 33,
        }
    )
    if size == "smoke":
        config.update({"seeds": (1000,), "methods": (f"{claims.AEPO}0.5",), "base": "grpo,smoke"})
        config.update({"sft": {"steps": 5, "every": 5, "loss": 9.0}, "window": 2, "points": 3})
        config.rl.steps = 9
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every method on every seed."""
    settings = {key: value for key, value in config.to_dict().items() if key not in ("seeds", "methods", "points")}
    own = {method: config_hash({**settings, **METHODS[method]}) for method in config.methods}
    return [{"config": own[m], "method": m, "seed": seed} for seed in config.seeds for m in config.methods]


def of_method(config: ConfigDict, seed: int, method: str, start: Path) -> ConfigDict:
    """The trainer's config of a run."""
    chosen, own = sums.base(config.base, seed, "rl", steps=config.rl.steps, log_every=1), METHODS[method]
    chosen.start, chosen.method = str(start), ConfigDict(own["method"])
    chosen.rl.optimizer.learning_rate = config.rl.learning_rate
    chosen.rl.rollout.update({"minibatches": config.rl.minibatches, "tempered": own.get("tempered", {})})
    return chosen


def run(config: ConfigDict, cell: Mapping[str, Any], folder: Path) -> Row:
    """One run of the stage ``rl`` from the answers of its seed, and its measures."""
    seed, name = cell["seed"], cell["method"]
    start, own = folder / f"sft_{seed}", folder / f"{name}_{seed}"
    sft_steps = sums.learn_answers(config.base, seed, config.sft, start)
    train(of_method(config, seed, name, start), own)
    found = [row for row in read_rows(own / "metrics.jsonl") if row["split"] == "train"]
    return {"sft_steps": sft_steps, **claims.measures(found, name, config)}


def work(config: Mapping[str, Any], ledger: Ledger, workdir: Path) -> str:
    """Computes the rows that are missing, two seeds at a time, and writes the files."""
    own = config["modadd"]
    use_compilation_cache((workdir / CACHE).absolute())
    rows = ledger.fill(
        cells(own),
        lambda cell: cell["seed"],  # methods share their start; compiled programs are shared by the cache on disk
        lambda cell: run(own, cell, workdir / "runs"),
        label="entropy control",
        unit="run",
        interval=30,
    )
    return report(config["size"], own, rows, workdir)


def report(size: str, config: ConfigDict, rows: Sequence[Row], workdir: Path) -> str:
    """Writes table.md, table.csv and plot.png from the rows alone; returns the text of table.md."""
    text = [f"# {TITLE}\n", f"{NOTE}\n"]
    for heading, metrics in (("Where the runs start and end", claims.ENDS), ("Law and control", claims.FITS)):
        text += [f"## {heading}\n", tables.markdown(tables.summarise(rows, ["method"], metrics))]
    if size != "smoke":
        tested = [{**claim.row(), "paper": source} for claim, source in claims.tested(config, rows)]
        text += ["## Claims\n", tables.markdown(tested)]
    write_atomically(workdir / "table.md", "\n".join(text))
    summary = tables.summarise(rows, ["method"], claims.ENDS + claims.FITS)
    write_atomically(workdir / "table.csv", tables.csv_text(summary))
    entropy_control_plot.draw(rows, workdir / "plot.png", TITLE)
    return "\n".join(text)


def configs(size: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into ``config.json``."""
    return {"size": size, "modadd": get_config(size)}


FRAME = Frame("entropy_control", USAGE, ("config", "method", "seed"), configs, work)

if __name__ == "__main__":
    frame.program(lambda: frame.run(FRAME))
