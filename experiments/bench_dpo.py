r"""Speed and memory of one DPO step beside Tunix and TRL: prints the JSON line that the peers' scripts print.

  python -m experiments.bench_dpo                                     # reference on the fly, least memory and time
  python -m experiments.bench_dpo --layers=list --no-remat --no-trim  # layers unrolled, the allocator as it comes
  python -m experiments.bench_dpo --reference=cached
  python -m experiments.bench_dpo --prototype                         # the same mathematics without the library

On a CPU the time goes where the memory goes, since every fresh page of the temporaries is a fault: the defaults scan
over the layers, recompute each in the backward pass, and trim the allocator once after compiling. The line that is
printed says which settings were on.

The step is that of ``rlx.train``: forward, method, metrics, AdamW, jitted and donated. With ``--prototype`` a bare
function of the same mathematics (the model and the head are the library's) is timed in turn with it in this process,
and the ratio of the medians is printed: what the abstractions of the trainer cost. ``floor_cpu_s`` is what the step's
matrix products would take at the rate of a square one on this machine, ``floor_share`` its share of the median step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from experiments import floor
from experiments import workload as c


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", choices=("on_the_fly", "cached"), default="on_the_fly")
    parser.add_argument("--layers", choices=("list", "scan"), default="scan")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--remat", action=switch, default=True, help="recompute each layer in the backward pass")
    parser.add_argument("--trim", action=switch, default=True, help="give memory back after compiling (glibc)")
    parser.add_argument("--prototype", action="store_true", help="also time a bare prototype; prints the ratio")
    parser.add_argument("--steps", type=int, default=c.PREF_STEPS + c.PREF_WARMUP)
    return parser.parse_args(argv)


def model_config(layers: str, remat: bool) -> dict[str, Any]:
    """The model of the workload."""
    return c.MODEL | {"scan_layers": layers == "scan", "remat": "full" if remat else "none"}


def library_step(model, reference: str) -> tuple[Callable, Any, dict]:
    """The step of ``rlx.train``, its state, and the frozen policies it reads."""
    import jax
    import optax

    import rlx
    from rlx.method import Shapes
    from rlx.train import sharding, state, step

    mesh = sharding.make_mesh({"data": 1})
    method = rlx.build({"name": "dpo", "beta": c.BETA})
    optimizer = optax.adamw(c.LR)
    shapes = Shapes(c.HIDDEN, c.VOCAB, c.N_PAIRS)
    first = state.create_state(model, method, optimizer, shapes, seed=0, mesh=mesh)
    run = step.make_train_step(model, method, optimizer, mesh=mesh, prompt_length=c.PROMPT_LEN)
    frozen = {} if reference == "cached" else {"reference": jax.device_put(model.init(0))}
    return run, first, frozen


def bare_step(model, reference: str) -> tuple[Callable, Any, dict]:
    """The same mathematics written down once, without method, metrics, state or mesh."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adamw(c.LR)
    logps = make_logps(model)

    def step(state, batch, frozen):
        params, opt_state = state
        base = batch["reference_logps"] if reference == "cached" else logps(frozen["reference"], batch)

        def loss(params):
            gain = logps(params, batch) - base
            margin = c.BETA * (gain[:, 0] - gain[:, 1])
            return -jax.nn.log_sigmoid(margin).mean(), margin.mean()

        (value, margin), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"loss": value, "margin": margin}

    params = jax.tree.map(jnp.asarray, model.init(0))
    first = (params, jax.jit(optimizer.init)(params))
    frozen = {} if reference == "cached" else {"reference": jax.device_put(model.init(0))}
    return jax.jit(step, donate_argnums=0), first, frozen


def make_logps(model) -> Callable:
    """Summed response log-probabilities ``[B, K]``."""
    from rlx import ops

    def logps(params, batch):
        tokens, valid, where = (batch[k].reshape(-1, batch[k].shape[-1]) for k in ("tokens", "valid", "where"))
        hidden, unembedding = model.apply(params, tokens, valid)
        window, response = ops.predicting(hidden, c.PROMPT_LEN), slice(c.PROMPT_LEN, None)
        out = ops.linear_token_statistics(
            window, unembedding, tokens[:, response], where=where[:, response], statistics=("logp",)
        )
        return out.logp.sum(-1).reshape(batch["tokens"].shape[:2])

    return logps


def add_reference(model, batches: list[dict]) -> None:
    """What a cached reference costs once: a forward pass for each batch, outside of the timed steps."""
    import jax
    import numpy as np

    logps, params = jax.jit(make_logps(model)), jax.device_put(model.init(0))
    for batch in batches:
        batch["reference_logps"] = np.asarray(logps(params, batch))


def compare(steps: dict[str, tuple[Callable, Any, dict]], batches: list[dict]) -> dict[str, list[float]]:
    """Processor seconds of each step, one after the other on every batch; the first ``PREF_WARMUP`` left out."""
    import jax

    states, seconds = {name: state for name, (_, state, _) in steps.items()}, {name: [] for name in steps}
    for batch in batches:
        for name, (run, _, frozen) in steps.items():
            before = time.process_time()
            states[name], values = run(states[name], batch, frozen)
            jax.block_until_ready((states[name], values))
            seconds[name].append(time.process_time() - before)
    return {name: taken[c.PREF_WARMUP :] for name, taken in seconds.items()}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    start = time.perf_counter()
    import jax
    import numpy as np

    from rlx import metrics, models
    from rlx.train import step as library  # noqa: F401 (its import is part of what is measured)

    import_s = time.perf_counter() - start
    model = models.build(model_config(args.layers, args.remat))
    batches = list(c.preference_batches(args.steps))
    if args.reference == "cached":
        add_reference(model, batches)
    clock = c.Clock(c.PREF_WARMUP)
    step, state, frozen = library_step(model, args.reference)
    cpu = time.process_time()
    run = step.lower(state, batches[0], frozen).compile()
    compile_cpu_s = time.process_time() - cpu
    if args.trim:
        c.trim_memory()
    margins = []
    for batch in batches:
        state, reported = jax.block_until_ready(run(state, batch, frozen))
        clock.mark()
        margins.append(metrics.values(reported)["reward_margin"])
    extra = {}
    if args.prototype:
        steps = {"rlx": (run, state, frozen), "bare": bare_step(model, args.reference)}
        medians = {name: np.median(taken) for name, taken in compare(steps, batches).items()}
        extra = {"bare_cpu_s": round(medians["bare"], 3), "ratio_to_bare": round(medians["rlx"] / medians["bare"], 3)}
    settings = {name: getattr(args, name) for name in ("reference", "layers", "remat", "trim")}
    measured = {
        "import_s": round(import_s, 1), "margin_first": margins[0], "margin_last": margins[-1],
        "compile_cpu_s": round(compile_cpu_s, 2), "median_cpu_s": round(clock.median_cpu_s(), 3),
    }  # fmt: skip
    measured |= floor.distance(floor.dpo_gflop(args.reference == "cached"), clock.median_cpu_s())
    tokens = 2 * c.PAIR_BATCH * (c.PROMPT_LEN + c.RESPONSE_LEN)
    c.report("rlx", "dpo", clock, tokens, **measured, **settings, **extra)


if __name__ == "__main__":
    main()
