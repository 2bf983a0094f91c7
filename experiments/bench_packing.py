r"""What packed batches save of a whole training step: prints a JSON line per case with ratios to the plain form.

  python -m experiments.bench_packing                            # DPO and GRPO, rows that are 30, 60 and 95 % full
  python -m experiments.bench_packing --methods=sft --fills=0.5  # one case
  python -m experiments.bench_packing --capacity=2 --remat       # packed rows of two lengths; layers recomputed
  python -m experiments.bench_packing --no-trim                  # the allocator as it comes

Steps of the trainer with the model of the workload, sequences of at most 64 prompt and 192 response tokens, AdamW; DPO
and GRPO (with a KL penalty) have their reference in the step. Prompts and responses have lengths from a Beta
distribution with the mean that ``--fills`` names, and are packed anew in every step, which counts. ``cpu`` is the ratio
of median processor seconds, the two forms taking turns, ``flops`` and ``memory`` (temporaries) that of what the
compiler says (it counts loops, that of the head among them, once). Below 1 the plain form costs more. ``real`` is the
share of tokens among the places of the plain form, ``places`` the packed rows' share of them. ``loss_apart`` and
``grad_norm_apart`` are the differences of the first step.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
from typing import Any

import numpy as np

from experiments import workload as c
from experiments.bench_prefix import costs

PROMPT, RESPONSE = 64, 192
GROUPS = {"sft": (32, 1), "dpo": (16, 2), "grpo": (4, 8)}
"""Rows and sequences in a row: 32 sequences in each case."""
SPECS = {"sft": "sft", "dpo": {"name": "dpo", "beta": c.BETA}, "grpo": {"name": "grpo", "kl": "k3(0.04)"}}
SPREAD = 4.0
"""Of the Beta distribution: its two parameters add up to this."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", choices=tuple(SPECS), default=("dpo", "grpo"))
    parser.add_argument("--fills", type=float, nargs="*", default=(0.3, 0.6, 0.95), help="mean share of real tokens")
    parser.add_argument("--capacity", type=int, default=1, help="longest sequences that a packed row has room for")
    parser.add_argument("--multiple", type=int, default=4, help="of which the number of packed rows is one")
    parser.add_argument("--remat", action="store_true", help="recompute each layer in the backward pass")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--trim", action=switch, default=True, help="give memory back after compiling (glibc)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each form, after one that is not")
    return parser.parse_args(argv)


def make_batch(method: str, fill: float) -> dict[str, np.ndarray]:
    """Sequences of uneven length as a batch of the trainer."""
    rng, (rows, group) = np.random.default_rng(0), GROUPS[method]
    shape, steps = (rows, group, PROMPT + RESPONSE), np.arange(PROMPT + RESPONSE)
    shares = rng.beta(fill * SPREAD, (1 - fill) * SPREAD, (2, rows, group, 1))
    prompt = np.maximum(1, np.round(shares[0, :, :1] * PROMPT))  # one prompt for all candidates
    response = np.maximum(1, np.round(shares[1] * RESPONSE))
    valid = (steps >= PROMPT - prompt) & (steps < PROMPT + response)
    return {
        "tokens": rng.integers(3, c.VOCAB, shape).astype(np.int32),
        "valid": valid,
        "where": valid & (steps >= PROMPT),
        "candidate_where": np.ones(shape[:2], bool),
        "index": np.arange(rows, dtype=np.int32),
        "rewards": rng.random(shape[:2], np.float32),
        "old_logprobs": np.full((*shape[:2], RESPONSE), -np.log(c.VOCAB), np.float32),
    }


def compare(model, method: str, batch: dict[str, np.ndarray], args: argparse.Namespace) -> dict[str, Any]:
    """Whole steps, packed over plain."""
    import jax
    import optax

    import rlx
    from rlx.method import Shapes
    from rlx.train import packing, sharding, state, step

    mesh, built, optimizer = sharding.make_mesh(), rlx.build(SPECS[method]), optax.adamw(c.LR)
    reference = {"reference": jax.device_put(model.init(1))}
    sizes = packing.PackingSettings(args.multiple, args.capacity)
    lay = functools.partial(packing.lay, settings=sizes, prompt_length=PROMPT, mesh=mesh)
    forms = {"plain": lambda: batch, "packed": lambda: lay(batch)}
    run = step.make_train_step(model, built, optimizer, mesh=mesh, prompt_length=PROMPT)
    states = {
        name: state.create_state(model, built, optimizer, Shapes(c.HIDDEN, c.VOCAB, 1), seed=0, mesh=mesh)
        for name in forms
    }
    programs = {name: run.lower(states[name], make(), reference).compile() for name, make in forms.items()}
    first: dict[str, Any] = {}

    def advance(name: str) -> Any:
        on_device = sharding.put_batch(forms[name](), mesh)
        states[name], reported = programs[name](states[name], on_device, reference)
        first.setdefault(name, reported)
        return states[name]

    if args.trim:
        c.trim_memory()
    for name in forms:
        jax.block_until_ready(advance(name))
    found = costs(programs, {name: functools.partial(advance, name) for name in forms}, args.steps)
    places = lay(batch)[packing.ARRAYS[0]].size / batch["tokens"].size
    numbers = {"real": round(float(batch["valid"].mean()), 3), "places": round(places, 3)} | found
    for name in ("loss", "grad_norm"):
        numbers[f"{name}_apart"] = abs(float(first["packed"][name].value - first["plain"][name].value))
    return numbers


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    import jax

    from rlx import models
    from rlx.train.workdir import versions

    model = models.build(c.MODEL | {"remat": "full" if args.remat else "none"})
    for method, fill in itertools.product(args.methods, args.fills):
        settings = {name: getattr(args, name) for name in ("capacity", "multiple", "remat", "trim")}
        case = {"task": "packing", "method": method, "fill": fill} | settings
        found = compare(model, method, make_batch(method, fill), args)
        machine = {"device": jax.devices()[0].device_kind, "load_avg": round(os.getloadavg()[0], 1)}
        print(json.dumps(case | found | machine | {"versions": versions()}), flush=True)


if __name__ == "__main__":
    main()
