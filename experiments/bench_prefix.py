r"""What a shared prompt and packed rows save: prints a JSON line per case with ratios to the plain form.

  python -m experiments.bench_prefix                                 # prompts of 32 to 512 tokens, groups of 4 to 16
  python -m experiments.bench_prefix --prompt_lengths=512 --groups=8 # one case
  python -m experiments.bench_prefix --remat                         # layers recomputed in the backward pass
  python -m experiments.bench_prefix --train_step                    # whole steps of GRPO with a reference

Loss and gradient of the response's log-probability, the model of the workload, 64 response tokens. ``flops`` and
``memory`` (temporaries) are ratios of what the compiler says of the two programs, ``cpu`` of median processor seconds,
the programs taking turns; ``tokens`` of the places that go through the layers. Below 1 the plain form costs more. The
compiler counts a loop once, so of more than 256 response tokens one chunk of the vocabulary product, which is the same
in both forms, is in ``flops``: the layers are what it speaks of. ``logprob_apart`` is the largest difference of a
token's log-probability, ``gradient_apart`` that of a gradient relative to the largest gradient of its array; of whole
steps those of the loss and of the gradient's norm. The last lines compare packed rows with padded ones: prompts and
responses of uneven length, ``real`` the share of tokens among the padded places.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import workload as c

PROMPT_LENGTHS, GROUPS = (32, 64, 128, 256, 512), (4, 8, 16)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt_lengths", type=int, nargs="*", default=PROMPT_LENGTHS)
    parser.add_argument("--groups", type=int, nargs="*", default=GROUPS, help="responses of each prompt")
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--response_length", type=int, default=c.RL_COMPLETION_LEN)
    parser.add_argument(
        "--shortest", type=float, nargs="*", default=(0.1, 0.5), help="packing: least share of the room"
    )
    parser.add_argument("--capacity", type=int, nargs="*", default=(1, 2), help="packing: longest sequences per row")
    parser.add_argument("--sequences", type=int, default=32, help="packing: how many")
    parser.add_argument("--train_step", action="store_true", help="whole steps of the trainer, shared prompts alone")
    parser.add_argument("--remat", action="store_true", help="recompute each layer in the backward pass")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each form, after one that is not")
    return parser.parse_args(argv)


def loss_of(states: Callable) -> Callable:
    """Mean negative log-probability of the response, and that of each token; ``states(params, batch)`` gives hidden
    states from the last prompt token on, ``[..., 1 + M, D]``, and the unembedding."""
    from rlx import ops

    def loss(params, batch):
        hidden, unembedding = states(params, batch)
        window, where = ops.predicting(hidden, 1), batch["where"].reshape(-1)
        flat = (window.reshape(-1, window.shape[-1]), unembedding, batch["targets"].reshape(-1))
        found = ops.linear_token_statistics(*flat, where=where, statistics=("logp",))
        assert found.logp is not None  # asked for
        return -found.logp.sum() / where.sum(), found.logp

    return loss


def group_batch(args: argparse.Namespace, length: int, group: int) -> dict[str, np.ndarray]:
    """Prompts of full length with ``group`` responses of full length each."""
    rng = np.random.default_rng(0)
    prompts = np.repeat(rng.integers(3, c.VOCAB, (args.prompts, 1, length)), group, 1)
    responses = rng.integers(3, c.VOCAB, (args.prompts, group, args.response_length))
    tokens = np.concatenate([prompts, responses], -1).astype(np.int32)
    return {"tokens": tokens, "valid": np.ones(tokens.shape, bool)} | response_of(tokens, tokens > 0, length)


def trained(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The groups as a batch of the trainer, with rewards at random."""
    rng, shape, size = np.random.default_rng(1), batch["tokens"].shape, batch["targets"].shape[-1]
    steps = np.broadcast_to(np.arange(shape[-1]), shape)
    return {
        "tokens": batch["tokens"],
        "valid": batch["valid"],
        "where": steps >= shape[-1] - size,
        "candidate_where": np.ones(shape[:2], bool),
        "index": np.arange(shape[0], dtype=np.int32),
        "rewards": rng.random(shape[:2], np.float32),
        "old_logprobs": np.full(batch["targets"].shape, -np.log(c.VOCAB), np.float32),
    }


def uneven_batch(args: argparse.Namespace, shortest: float, capacity: int) -> dict[str, np.ndarray]:
    """Rows of prompt and response, lengths uniform between ``shortest`` and 1 of their room; also packed."""
    from rlx.data.packing import pack

    rng, length, size = np.random.default_rng(0), c.PROMPT_LEN, c.RESPONSE_LEN
    tokens = rng.integers(3, c.VOCAB, (args.sequences, length + size)).astype(np.int32)
    low = [max(1, round(shortest * room)) for room in (length, size)]
    prompt, response = (rng.integers(a, b + 1, (args.sequences, 1)) for a, b in zip(low, (length, size), strict=True))
    steps = np.arange(length + size)
    valid = (steps >= length - prompt) & (steps < length + response)
    rows = pack(tokens, valid, capacity=capacity * tokens.shape[-1])
    places = {"rows": rows.tokens, "segments": rows.segments, "index": rows.index}
    return {"tokens": tokens, "valid": valid} | places | response_of(tokens, valid, length)


def response_of(tokens: np.ndarray, valid: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """What the loss is of."""
    return {"targets": tokens[..., length:], "where": valid[..., length:]}


def plain(model, length: int) -> Callable:
    """Every row by itself, the prompt repeated."""

    def states(params, batch):
        flat = (batch[name].reshape(-1, batch[name].shape[-1]) for name in ("tokens", "valid"))
        hidden, unembedding = model.apply(params, *flat)
        return hidden[:, length - 1 :], unembedding

    return loss_of(states)


def shared(model, length: int) -> Callable:
    """The prompt once for its group."""
    from rlx.models import prefix

    def states(params, batch):
        return prefix.states(model, params, batch["tokens"], batch["valid"], prompt_length=length)

    return loss_of(states)


def packed(model, length: int) -> Callable:
    """Several sequences in a row."""
    from rlx.models.packing import unpack

    def states(params, batch):
        hidden, unembedding = model.packed(params, batch["rows"], batch["segments"])
        return unpack(hidden, batch["index"][:, length - 1 :]), unembedding

    return loss_of(states)


def compare(losses: dict[str, Callable], params: Any, batch: dict[str, np.ndarray], steps: int) -> dict[str, float]:
    """Second form over first: operations, temporaries, processor seconds; and how far their gradients are apart."""
    import jax

    given = (params, jax.device_put(batch))
    programs = {name: jax.jit(jax.value_and_grad(loss, has_aux=True)) for name, loss in losses.items()}
    runs: dict[str, Any] = {name: program.lower(*given).compile() for name, program in programs.items()}
    results = [jax.block_until_ready(run(*given)) for run in runs.values()]
    found = costs(runs, {name: lambda run=run: run(*given) for name, run in runs.items()}, steps)
    ((_, logp), gradient), ((_, other_logp), other_gradient) = results
    found["logprob_apart"] = float(np.abs(np.asarray(logp - other_logp)).max())
    return found | {"gradient_apart": apart(gradient, other_gradient)}


def compare_steps(model, params: Any, batch: dict[str, np.ndarray], length: int, steps: int) -> dict[str, float]:
    """As :func:`compare`, of whole steps of the trainer: GRPO with a KL penalty to a reference, AdamW."""
    import optax

    import rlx
    from rlx.method import Shapes
    from rlx.train import sharding, state, step

    mesh = sharding.make_mesh({"data": 1})
    method, optimizer = rlx.build({"name": "grpo", "kl": "k3(0.04)"}), optax.adamw(c.LR)
    runs, states, first = {}, {}, {}
    for name in ("plain", "shared"):
        options = {"mesh": mesh, "prompt_length": length, "shared_prefix": name == "shared"}
        shapes = Shapes(c.HIDDEN, c.VOCAB, 1)
        states[name] = state.create_state(model, method, optimizer, shapes, seed=0, mesh=mesh, policy=params)
        program = step.make_train_step(model, method, optimizer, **options)
        runs[name] = program.lower(states[name], batch, {"reference": params}).compile()

    def advance(name):
        states[name], reported = runs[name](states[name], batch, {"reference": params})
        first.setdefault(name, reported)
        return states[name]

    for name in runs:
        advance(name)
    found = costs(runs, {name: functools.partial(advance, name) for name in runs}, steps)
    for number in ("loss", "grad_norm"):
        old, new = (float(first[name][number].value) for name in runs)
        found[f"{number}_apart"] = abs(new - old)
    return found


def costs(programs: dict[str, Any], calls: dict[str, Callable], steps: int) -> dict[str, float]:
    """What the second program costs in units of the first; they take turns."""
    import jax

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(steps):
        for name, call in calls.items():
            before = time.process_time()
            jax.block_until_ready(call())
            seconds[name].append(time.process_time() - before)
    both = {
        "flops": [program.cost_analysis()["flops"] for program in programs.values()],
        "memory": [program.memory_analysis().temp_size_in_bytes for program in programs.values()],
        "cpu": [float(np.median(taken)) for taken in seconds.values()],
    }
    found = {name: round(new / old, 3) for name, (old, new) in both.items()}
    return found | {"plain_cpu_s": round(both["cpu"][0], 3)}


def apart(first: Any, second: Any) -> float:
    """Largest difference of two trees, each array relative to its largest entry."""
    import jax

    def one(a, b):
        return np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(a).max()

    return float(max(jax.tree.leaves(jax.tree.map(one, first, second))))


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    import jax

    from rlx import models

    model = models.build(c.MODEL | {"remat": "full" if args.remat else "none"})
    rng = np.random.default_rng(0)  # a fresh model gives every token about 1 / V, whatever the states
    params = jax.tree.map(lambda p: p + np.float32(0.1) * rng.standard_normal(p.shape, np.float32), model.init(0))
    params = jax.device_put(params)
    for length, group in itertools.product(args.prompt_lengths, args.groups):
        batch, size = group_batch(args, length, group), args.response_length
        losses = {"plain": plain(model, length), "shared": shared(model, length)}
        tokens = (length + group * size) / (group * (length + size))
        case = {"task": "shared", "prompt": length, "group": group, "tokens": round(tokens, 3)}
        if args.train_step:
            case["task"] = "step"
            found = compare_steps(model, params, trained(batch), length, args.steps)
        else:
            found = compare(losses, params, batch, args.steps)
        print(json.dumps(case | found), flush=True)
    if args.train_step:
        return
    for shortest, capacity in itertools.product(args.shortest, args.capacity):
        batch = uneven_batch(args, shortest, capacity)
        losses = {"plain": plain(model, c.PROMPT_LEN), "packed": packed(model, c.PROMPT_LEN)}
        real, tokens = batch["valid"].mean(), batch["rows"].size / batch["tokens"].size
        case = {"task": "packed", "shortest": shortest, "capacity": capacity, "real": round(float(real), 3)}
        case["tokens"] = round(tokens, 3)
        print(json.dumps(case | compare(losses, params, batch, args.steps)), flush=True)


if __name__ == "__main__":
    main()
