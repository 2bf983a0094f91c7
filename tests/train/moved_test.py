"""What a model does not let training move: no gradient, no optimiser state, no second copy, the same bits."""

import jax
import numpy as np
import optax
import pytest

import rlx
from rlx import models
from rlx.method import Shapes
from rlx.models.moving import join, moving, staying
from rlx.train import moved, policies, sharding, state, step
from rlx.train.policies import Rule

SIZE = {"vocab_size": 32, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32}
PROMPT = 2


def only_norms(params):
    """True for the scales of norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "scale", params)


WHOLE = models.build({"name": "transformer", **SIZE})
MODEL = WHOLE._replace(trainable=only_norms)


def batch(rows: int = 4) -> dict[str, np.ndarray]:
    shape = (rows, 2, 6)
    return {
        "tokens": np.random.default_rng(0).integers(3, 32, shape).astype(np.int32),
        "valid": np.ones(shape, bool),
        "where": np.broadcast_to(np.arange(6) >= PROMPT, shape),
        "candidate_where": np.ones(shape[:2], bool),
        "index": np.arange(rows, dtype=np.int32),
    }


def start(model, optimizer, axes=None, **options):
    method, mesh = rlx.build("dpo"), sharding.make_mesh(axes)
    current = state.create_state(model, method, optimizer, Shapes(16, 32, 10), seed=0, mesh=mesh, **options)
    options.pop("policy", None)
    return current, step.make_train_step(model, method, optimizer, mesh=mesh, prompt_length=PROMPT, **options)


def test_the_parts_make_the_whole():
    params = MODEL.init(0)
    part, rest = moving(MODEL, params), staying(MODEL, params)
    assert len(jax.tree.leaves(part)) == 5 and len(jax.tree.leaves(rest)) == len(jax.tree.leaves(params)) - 5
    for one, other in ((part, rest), (rest, part), (part, params), (params, part)):
        assert all(a is b for a, b in zip(jax.tree.leaves(join(one, other)), jax.tree.leaves(params), strict=True))
    assert moving(WHOLE, params) is params and not jax.tree.leaves(staying(WHOLE, params))


@pytest.mark.parametrize("axes", [{}, {"fsdp": 2, "model": 2}])
def test_a_step_moves_its_part_alone(axes):
    """Weight decay and the clipped norm see the moving part; what stays is the array that it was, not a copy."""
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), optax.adamw(0.1, weight_decay=0.5))
    rules = {"reference": Rule("ema", decay=0.5)}
    current, advance = start(MODEL, optimizer, axes, rules=rules)
    moments = 5 * 16  # scales of two layers and of the end
    assert sum(x.size for x in jax.tree.leaves(current.opt_state)) == 2 * moments + 1
    assert sum(x.size for x in jax.tree.leaves(current.followers)) == moments
    kept, first = staying(MODEL, current.params["policy"]), jax.tree.map(np.asarray, moving_of(current))
    for _ in range(2):
        current, reported = advance(current, batch(), {})
    after = staying(MODEL, current.params["policy"])
    assert all(a is b for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(kept), strict=True))
    assert all((a != b).all() for a, b in zip(jax.tree.leaves(moving_of(current)), jax.tree.leaves(first), strict=True))
    assert np.isfinite(reported["loss"].value) and not kept["embedding"].is_deleted()


def moving_of(current):
    return moving(MODEL, current.params["policy"])


def test_the_gradient_is_that_of_the_whole_model():
    """The moving leaves go where those of the whole model go; a role may be given whole or in part."""
    held, base = moving(MODEL, WHOLE.init(1)), WHOLE.init(0)
    found = {}
    for name, model, reference in (
        ("whole", WHOLE, join(held, base)),
        ("part", MODEL, join(held, base)),
        ("role in part", MODEL, held),
    ):
        current, advance = start(model, optax.sgd(0.5))
        current, _ = advance(current, batch(), {"reference": reference})
        found[name] = moving_of(current)
    for name in ("part", "role in part"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found[name], found["whole"])


def test_what_stays_costs_no_gradient_product():
    """A step needs the forward products and the gradients of activations: about two thirds of a full step."""
    flops = {}
    for name, model in (("whole", WHOLE), ("part", MODEL)):
        current, advance = start(model, optax.sgd(0.5))
        lowered = advance.lower(current, batch(), {"reference": jax.tree.map(np.asarray, current.params["policy"])})
        flops[name] = lowered.compile().cost_analysis()["flops"]
    tokens, weights = 4 * 2 * 6, 2 * (4 * 16 * 16 + 3 * 16 * 32)
    products = 2 * tokens * weights  # of one pass over all kernels of the layers
    assert flops["whole"] - flops["part"] > 0.98 * products


def test_followers_hold_the_moving_part():
    rules = {"reference": Rule("snapshot", every=1)}
    current, advance = start(MODEL, optax.sgd(0.5), rules=rules)
    assert policies.followers(rules, moving_of(current))["reference"]["embedding"] is None
    current, _ = advance(current, batch(), {})
    jax.tree.map(np.testing.assert_array_equal, current.followers["reference"], moving_of(current))
    part = moved.part_of(MODEL, current)
    assert part.params["policy"]["embedding"] is None
    again = moved.whole(part, current.params["policy"])
    assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(current), strict=True))


def trajectory(axes, micro_batches=1):
    """Losses of three steps with adapters in float64, on a mesh, or with pmap over two devices (None)."""
    with jax.enable_x64(True):
        lora = {"rank": 2, "targets": "all-linear"}
        model = models.build({"name": "transformer", **SIZE, "dtype": "float64", "lora": lora})
        method = rlx.build("dpo", **({} if axes is not None else {"axis_name": "rows"}))
        mesh, optimizer = sharding.make_mesh(axes), optax.adam(0.1)
        current = state.create_state(model, method, optimizer, Shapes(16, 32, 10), seed=0, mesh=mesh)
        auxiliary = {"reference": jax.tree.map(np.asarray, moving(model, current.params["policy"]))}
        if axes is None:
            current, auxiliary = sharding.replicate(current, 2), sharding.replicate(auxiliary, 2)
            advance = step.make_pmap_step(model, method, optimizer, axis_name="rows", prompt_length=PROMPT)
            rows = {name: x.reshape(2, 2, *x.shape[1:]) for name, x in batch().items()}
        else:
            options = {"mesh": mesh, "prompt_length": PROMPT, "micro_batches": micro_batches}
            advance, rows = step.make_train_step(model, method, optimizer, **options), sharding.put_batch(batch(), mesh)
        found = []
        for _ in range(3):
            current, reported = advance(current, rows, auxiliary)
            found.append(np.ravel(reported["loss"].value)[0])
        return np.array(found)


def test_adapters_follow_one_trajectory_on_every_layout():
    expected = trajectory({})
    assert np.ptp(expected) > 1e-3
    for layout in ({"fsdp": 2, "model": 2}, {"data": 2, "sequence": 2}, None):
        np.testing.assert_allclose(trajectory(layout), expected, rtol=1e-9, err_msg=str(layout))
    np.testing.assert_allclose(trajectory({}, 2), expected, rtol=1e-9)
