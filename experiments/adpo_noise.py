r"""Does anchoring, and a whole list instead of pairs, survive noise? ADPO (arXiv:2510.18913) in 12 noisy scenarios.

A contextual bandit whose observed rewards are corrupted in four ways at three severities; MLP policies are trained on
lists of K candidates and judged by WinMass, the probability they give to the truly best one. The paper's claims differ
between its versions; each is tested with its version beside it, at two settings of K and of the target's temperature,
for on these they depend.

  python -m experiments.adpo_noise [--full] [--smoke] [--workdir=DIR]

  (nothing)   12 scenarios x 10 seeds x 7 losses, pairwise ones on all pairs of a list and on one; K = 8, temperature
              0.2 and K = 4, temperature 0.5, and these crossed; hidden 64, at medium severity also 128 and 256; about
              six minutes on 2 cores
  --full      20 seeds, claims and all sizes at all four combinations and in all scenarios; about an hour
  --smoke     a few steps at tiny sizes in seconds, without a verdict

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing. No hyperparameter was tuned: what the paper does not say was fixed beforehand, alike for all losses.
"""

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import adpo_noise_bandit as bandits
from experiments import adpo_noise_policy as policies
from experiments import adpo_noise_report as reports
from experiments import frame
from experiments.frame import Frame
from experiments.ledger import Ledger
from rlx.config import config_hash

USAGE = __doc__.split("\n\n", 2)[2]
SCENARIO = ("candidates", "temperature", "hidden", "corruption", "severity")
KEYS = ("config", *SCENARIO, "method", "pairs", "seed")
Cell = dict[str, Any]


def get_config(size: str = "default") -> ConfigDict:
    """The config at the size ``smoke``, ``default`` or ``full``."""
    config = ConfigDict(
        {
            "size": size,
            "seeds": tuple(range(10)),
            "settings": ((8, 0.2), (4, 0.5)),
            "crossed": ((8, 0.5), (4, 0.2)),
            "hidden": 64,
            "capacity": {"hidden": (64, 128, 256), "severities": ("medium",)},
            "bandit": {"dimension": 8, "units": 32, "contexts": 256, "held_out": 2000},
            "training": {"steps": 300, "reference_steps": 30, "batch_size": 64},
            "optimizer": {"learning_rate": 5e-4, "weight_decay": 0.01},
            "losses": {"tau": 1.0, "clip": 0.2},
            "corruptions": bandits.CORRUPTIONS,
        }
    )
    if size == "full":
        config.update({"seeds": tuple(range(20)), "settings": ((8, 0.2), (8, 0.5), (4, 0.2), (4, 0.5)), "crossed": ()})
        config.capacity.severities = bandits.SEVERITIES
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "settings": ((3, 0.5),), "crossed": (), "hidden": 8})
        config.capacity.hidden = (8,)
        config.bandit.update({"contexts": 16, "held_out": 50})
        config.training.update({"steps": 8, "reference_steps": 4, "batch_size": 8})
    return config.lock()


def cells(config: ConfigDict) -> list[Cell]:
    """A cell per seed, method, scenario, setting and size."""
    inner = {name: config[name].to_dict() for name in ("bandit", "training", "optimizer", "losses")}
    settings = config_hash({**inner, "corruptions": bandits.CORRUPTIONS})
    return [
        dict(zip(KEYS, (settings, *setting, hidden, corruption, severity, *learner, seed), strict=True))
        for hidden in sorted({config.hidden, *config.capacity.hidden})
        for setting in (*config.settings, *(config.crossed if hidden == config.hidden else ()))
        for corruption in bandits.CORRUPTIONS
        for severity in (bandits.SEVERITIES if hidden == config.hidden else config.capacity.severities)
        for learner in policies.LEARNERS
        for seed in config.seeds
    ]


class Runner:
    """Computes rows, all of a scenario at once; problems and reference policies are made once for all scenarios."""

    def __init__(self, config: ConfigDict):
        self.config = config
        self.problems = functools.cache(self._problems)
        self.references = functools.cache(self._references)
        self.scenario = functools.lru_cache(4)(self._scenario)  # two programs run side by side

    def program(self, cell: Mapping[str, Any]) -> tuple[int, int]:
        """The shape that is compiled for."""
        return cell["candidates"], cell["hidden"]

    def row(self, cell: Mapping[str, Any]) -> Cell:
        """The measures of a cell."""
        found = self.scenario(*(cell[key] for key in SCENARIO))
        return found[cell["method"], cell["pairs"], cell["seed"]]

    def _scenario(
        self, candidates: int, temperature: float, hidden: int, corruption: str, severity: str
    ) -> dict[tuple[str, str, int], Cell]:
        """Measures of every learner and seed in a scenario."""
        c, problems = self.config, self.problems(candidates)
        references, reference_mass = self.references(candidates, hidden)
        keywords = bandits.CORRUPTIONS[corruption][bandits.SEVERITIES.index(severity)]
        data = policies.Data(*map(np.stack, zip(*(self._data(p, keywords) for p in problems), strict=True)))
        runs = [*itertools.product(range(len(policies.LEARNERS)), range(len(problems)))]
        learner, seed = np.array(runs, np.int32).T
        arguments = references, data, (seed, learner), jnp.float32(temperature)
        logps = np.asarray(policies.train(*arguments, **c.losses, **c.optimizer))
        return {
            (*policies.LEARNERS[i], c.seeds[j]): {
                **policies.measure(own, problems[j].best(problems[j].held_out)),
                "reference_win_mass": reference_mass[j],
            }
            for (i, j), own in zip(runs, logps, strict=True)
        }

    def _problems(self, candidates: int) -> list[bandits.Bandit]:
        return [bandits.bandit(seed, candidates, **self.config.bandit) for seed in self.config.seeds]

    def _references(self, candidates: int, hidden: int) -> tuple[policies.Params, list[float]]:
        """Reference parameters stacked over seeds, and the WinMass of each."""
        c, trained, measured = self.config, [], []
        for problem in self.problems(candidates):
            params = policies.initial(problem.seed, c.bandit.dimension, hidden, candidates)
            order = self._batches(problem.seed, "reference order", c.training.reference_steps)
            params = policies.pretrain(params, problem.clean, problem.best(problem.clean), order, **c.optimizer)
            logps = np.asarray(policies.log_policy(params, problem.held_out))
            trained.append(params)
            measured.append(policies.measure(logps, problem.best(problem.held_out))["win_mass"])
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trained), measured

    def _data(self, problem: bandits.Bandit, keywords: Mapping[str, float]) -> tuple[np.ndarray, ...]:
        """The fields of `adpo_noise_policy.Data`."""
        c = self.config
        order = self._batches(problem.seed, "order", c.training.steps)
        order = order.reshape(-1, c.bandit.contexts // c.training.batch_size, c.training.batch_size)
        candidates = problem.outer.shape[-1]
        count = candidates * (candidates - 1) // 2
        pair = bandits.stream(problem.seed, "pair").integers(0, count, order.shape, np.int32)
        return *bandits.observe(problem, **keywords), order, pair, problem.held_out

    def _batches(self, seed: int, name: str, steps: int) -> np.ndarray:
        size = self.config.training.batch_size
        return bandits.batches(seed, name, contexts=self.config.bandit.contexts, batch_size=size, steps=steps)


def work(config: ConfigDict, ledger: Ledger, workdir: Path) -> str:
    """Computes the rows that are missing and writes the files."""
    runner = Runner(config)
    rows = ledger.fill(cells(config), runner.program, runner.row, label="ADPO bandits", interval=15)
    return reports.write(config, rows, workdir)


FRAME = Frame("adpo_noise", USAGE, KEYS, lambda size, _: get_config(size), work)

if __name__ == "__main__":
    frame.program(lambda: frame.run(FRAME))
