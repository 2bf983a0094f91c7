r"""Speed and memory of one GRPO step beside Tunix and TRL: prints the JSON line that the peers' scripts print.

  python -m experiments.bench_grpo                                     # least memory
  python -m experiments.bench_grpo --layers=list --no-remat --no-trim  # layers unrolled, the allocator as it comes
  python -m experiments.bench_grpo --prototype                         # also the same mathematics without the library

A step draws 4 responses of 64 tokens to each of 4 prompts, rewards them by the share of even token ids, and updates
once with a KL penalty to a fixed reference (k3, 0.04): the sampler of ``rlx.rollout`` and the step of ``rlx.train``,
reference on the fly. The line says what sampling and updating cost apart. With ``--prototype`` a bare step
(``bench_grpo_bare``) is timed in turn with it in this process, and the ratio of the medians is printed: what the
abstractions cost. ``floor_cpu_s`` is what the matrix products of the step would take at the rate of a square one here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from experiments import floor
from experiments import workload as c
from experiments.bench_dpo import model_config

Spent = dict[str, list[float]]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", choices=("list", "scan"), default="scan")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--remat", action=switch, default=True, help="recompute each layer in the backward pass")
    parser.add_argument("--trim", action=switch, default=True, help="give memory back after the first step (glibc)")
    parser.add_argument("--prototype", action="store_true", help="also time a bare prototype; prints the ratio")
    parser.add_argument("--top_p", type=float, help="draw from this nucleus")
    parser.add_argument("--steps", type=int, default=c.RL_STEPS + c.RL_WARMUP)
    return parser.parse_args(argv)


def library_step(model, top_p: float | None, spent: Spent) -> tuple[Callable, Any]:
    """A step ``(state, i, prompts) -> (state, (reward, metrics))`` of the library and the first state; adds the
    processor seconds of sampling and of the update to ``spent``."""
    import jax
    import numpy as np
    import optax

    import rlx
    from rlx.method import Shapes
    from rlx.rollout import Sampling, sample
    from rlx.train import sharding, state, step
    from rlx.train.responses import training_batch

    mesh = sharding.make_mesh({"data": 1})
    method, optimizer = rlx.build({"name": "grpo", "kl": "k3(0.04)"}), optax.adamw(c.LR)
    first = state.create_state(model, method, optimizer, Shapes(c.HIDDEN, c.VOCAB, 1), seed=0, mesh=mesh)
    update = step.make_train_step(model, method, optimizer, mesh=mesh, prompt_length=c.RL_PROMPT_LEN)
    reference = {"reference": jax.device_put(model.init(0))}
    options = {"group": c.RL_GROUP, "sampling": Sampling(c.RL_COMPLETION_LEN, top_p=top_p)}

    def run(now, i, tokens):
        before, valid = time.process_time(), np.ones(tokens.shape, bool)
        key = jax.random.fold_in(now.key, i)
        drawn = jax.device_get(sample(model, now.params["policy"], tokens, valid, key=key, **options))
        rewards = np.array([[c.toy_reward(row) for row in group] for group in drawn.tokens], np.float32)
        between = time.process_time()
        batch = {"tokens": tokens[:, None], "valid": valid[:, None]}
        batch |= {"candidate_where": np.ones((len(tokens), 1), bool), "index": np.arange(len(tokens), dtype=np.int32)}
        now, reported = jax.block_until_ready(update(now, training_batch(batch, drawn, rewards), reference))
        spent["sample"].append(between - before)
        spent["update"].append(time.process_time() - between)
        return now, (float(rewards.mean()), reported)

    return run, first


def compare(steps: dict[str, tuple[Callable, Any]], prompts) -> dict[str, float]:
    """Median processor seconds of each step, one after the other on every batch, and the ratio of the two."""
    import numpy as np

    states, seconds = {name: state for name, (_, state) in steps.items()}, {name: [] for name in steps}
    for i, tokens in enumerate(prompts):
        for name, (step, _) in steps.items():
            before = time.process_time()
            states[name], _ = step(states[name], i, tokens)
            seconds[name].append(time.process_time() - before)
    medians = {name: float(np.median(taken[c.RL_WARMUP :])) for name, taken in seconds.items()}
    return {"bare_cpu_s": round(medians["bare"], 3), "ratio_to_bare": round(medians["rlx"] / medians["bare"], 3)}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    start = time.perf_counter()
    import numpy as np

    from rlx import metrics, models
    from rlx.rollout import sampler as imported  # noqa: F401 (its import is part of what is measured)
    from rlx.train import responses as read  # noqa: F401

    import_s = time.perf_counter() - start
    model = models.build(model_config(args.layers, args.remat))
    spent: Spent = {"sample": [], "update": []}
    step, state = library_step(model, args.top_p, spent)
    prompts = c.rl_prompts(c.RL_PROMPTS * args.steps).reshape(args.steps, c.RL_PROMPTS, c.RL_PROMPT_LEN)
    clock, rewards, reported = c.Clock(c.RL_WARMUP), [], {}
    for i, tokens in enumerate(prompts):
        state, (reward, reported) = step(state, i, tokens)
        if i == 0 and args.trim:
            c.trim_memory()
        clock.mark()
        rewards.append(reward)
    taken = {f"{name}_cpu_s": round(float(np.median(times[c.RL_WARMUP :])), 3) for name, times in spent.items()}
    measured = {
        "import_s": round(import_s, 1), "reward_first": rewards[0], "reward_last": rewards[-1],
        "first_step_cpu_s": round(spent["sample"][0] + spent["update"][0], 2),
        "median_cpu_s": round(clock.median_cpu_s(), 3), "loss_last": metrics.values(reported)["loss"],
    }  # fmt: skip
    measured |= floor.distance(floor.grpo_gflop(), clock.median_cpu_s())
    settings = {name: getattr(args, name) for name in ("layers", "remat", "trim", "top_p")}
    if args.prototype:
        from experiments.bench_grpo_bare import make_step

        bare = make_step(model, args.top_p, np.asarray(state.key))
        settings |= compare({"rlx": (step, state), "bare": bare}, prompts)
    tokens_per_step = c.RL_PROMPTS * c.RL_GROUP * (c.RL_PROMPT_LEN + c.RL_COMPLETION_LEN)
    c.report("rlx", "grpo", clock, tokens_per_step, **measured, **taken, **settings)


if __name__ == "__main__":
    main()
