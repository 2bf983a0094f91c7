r"""Speed and memory of one GRPO step beside Tunix and TRL: prints the JSON line that the peers' scripts print.

  python -m experiments.bench_grpo                                     # least memory
  python -m experiments.bench_grpo --layers=list --no-remat --no-trim  # layers unrolled, the allocator as it comes

A step draws 4 responses of 64 tokens to each of 4 prompts, rewards them by the share of even token ids, and updates
once with a KL penalty to a fixed reference (k3, 0.04): the sampler of ``rlx.rollout`` and the step of ``rlx.train``,
reference on the fly. The line says what sampling and updating cost apart.
"""

from __future__ import annotations

import argparse
import time

from experiments import workload as c
from experiments.bench_dpo import model_config


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", choices=("list", "scan"), default="scan")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--remat", action=switch, default=True, help="recompute each layer in the backward pass")
    parser.add_argument("--trim", action=switch, default=True, help="give memory back after the first step (glibc)")
    parser.add_argument("--top_p", type=float, help="draw from this nucleus")
    parser.add_argument("--steps", type=int, default=c.RL_STEPS + c.RL_WARMUP)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    start = time.perf_counter()
    import jax
    import numpy as np
    import optax

    import rlx
    from rlx import metrics, models
    from rlx.method import Shapes
    from rlx.rollout import Sampling, sample
    from rlx.train import sharding, state, step
    from rlx.train.responses import training_batch

    import_s = time.perf_counter() - start
    model = models.build(model_config(args.layers, args.remat))
    mesh = sharding.make_mesh({"data": 1})
    method, optimizer = rlx.build({"name": "grpo", "kl": "k3(0.04)"}), optax.adamw(c.LR)
    now = state.create_state(model, method, optimizer, Shapes(c.HIDDEN, c.VOCAB, 1), seed=0, mesh=mesh)
    update = step.make_train_step(model, method, optimizer, mesh=mesh, prompt_length=c.RL_PROMPT_LEN)
    reference = {"reference": jax.device_put(model.init(0))}
    sampling = Sampling(c.RL_COMPLETION_LEN, top_p=args.top_p)
    prompts = c.rl_prompts(c.RL_PROMPTS * args.steps).reshape(args.steps, c.RL_PROMPTS, c.RL_PROMPT_LEN)
    valid = np.ones(prompts.shape[1:], bool)
    clock, rewards, spent = c.Clock(c.RL_WARMUP), [], {"sample": [], "update": []}
    for i, tokens in enumerate(prompts):
        before = time.process_time()
        key = jax.random.fold_in(now.key, i)
        drawn = jax.device_get(
            sample(model, now.params["policy"], tokens, valid, group=c.RL_GROUP, sampling=sampling, key=key)
        )
        found = np.array([[c.toy_reward(row) for row in group] for group in drawn.tokens], np.float32)
        between = time.process_time()
        batch = {"tokens": tokens[:, None], "valid": valid[:, None]}
        batch |= {"candidate_where": np.ones((len(tokens), 1), bool), "index": np.arange(len(tokens), dtype=np.int32)}
        now, reported = jax.block_until_ready(update(now, training_batch(batch, drawn, found), reference))
        spent["sample"].append(between - before)
        spent["update"].append(time.process_time() - between)
        if i == 0 and args.trim:
            c.trim_memory()
        clock.mark()
        rewards.append(float(found.mean()))
    taken = {f"{name}_cpu_s": round(float(np.median(times[c.RL_WARMUP :])), 3) for name, times in spent.items()}
    measured = {
        "import_s": round(import_s, 1), "reward_first": rewards[0], "reward_last": rewards[-1],
        "first_step_cpu_s": round(spent["sample"][0] + spent["update"][0], 2),
        "median_cpu_s": round(clock.median_cpu_s(), 3), "loss_last": metrics.values(reported)["loss"],
    }  # fmt: skip
    settings = {name: getattr(args, name) for name in ("layers", "remat", "trim", "top_p")}
    tokens_per_step = c.RL_PROMPTS * c.RL_GROUP * (c.RL_PROMPT_LEN + c.RL_COMPLETION_LEN)
    c.report("rlx", "grpo", clock, tokens_per_step, **measured, **taken, **settings)


if __name__ == "__main__":
    main()
