"""The property table: what every method of the catalogue is held to.

A method that a property cannot apply to says so in the catalogue, with the reason (``Entry.exempt``); the table then
checks that the exemption is still needed in name (:func:`test_exemptions_name_properties`).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import rlx
from rlx import aggregate, method
from rlx.train import sharding
from rlx.types import VOCABULARY
from tests import examples, samples

NAMES = sorted(name for name, entry in rlx.catalog.CATALOG.items() if entry.kind not in ("host", "solver"))
CALLS = sorted(name for name, entry in rlx.catalog.CATALOG.items() if entry.kind in ("host", "solver"))
SOLVERS = [name for name in CALLS if rlx.catalog.CATALOG[name].kind == "solver"]
LOSSES = [name for name in NAMES if rlx.catalog.CATALOG[name].kind == "loss"]
NOT_OF_LOSSES = (
    "added_masked_members",
    "four_shards_under_jit",
    "four_shards_under_pmap",
    "constants_carry_no_gradient",
    "deterministic",
    "members_in_another_order",
    "solver_under_jit",
    "precision",
)
PROPERTIES: dict[str, list[str]] = {}


def prop(names):
    """Runs a test for every name that is not exempt from it; the property is called like the test."""

    def decorate(test):
        label = test.__name__.removeprefix("test_")
        PROPERTIES[label] = [name for name in names if label not in rlx.catalog.CATALOG[name].exempt]
        return pytest.mark.property(pytest.mark.parametrize("name", PROPERTIES[label])(test))

    return decorate


def close(a, b, rtol=2e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=atol), a, b)


def finite(tree) -> None:
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all(), leaf


def outcome(name, arrays, where):
    """What must be finite: value and gradient of a loss, the result of anything else."""
    return (samples.derivative if name in LOSSES else samples.compiled)(name)(arrays, where)


def result(name, arrays, where):
    """The value alone."""
    found = outcome(name, arrays, where)
    return found[0] if name in LOSSES else found


@prop(NAMES)
def test_jit(name):
    arrays, where = samples.make(name, 0)
    close(result(name, arrays, where), samples.call(name, arrays, where))


@prop(NAMES)
def test_vmap(name):
    batches = [samples.make(name, seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
    mapped = jax.jit(jax.vmap(lambda a, w: samples.call(name, a, w)))(*stacked)
    one_by_one = [result(name, *b) for b in batches]
    close(mapped, jax.tree.map(lambda *x: np.stack(x), *one_by_one))


@prop(NAMES)
def test_float64(name):
    arrays, where = samples.make(name, 0, dtype=np.float64)
    with jax.enable_x64(True):
        wide = samples.compiled(name)(arrays, where)
    assert all(leaf.dtype in (jnp.float64, bool) for leaf in jax.tree.leaves(wide))
    close(wide, result(name, *samples.make(name, 0)), rtol=2e-4, atol=1e-5)


@prop(NAMES)
def test_bfloat16(name):
    arrays, where = samples.make(name, 0)
    half = {k: jnp.asarray(v, jnp.bfloat16) if v.dtype == np.float32 else v for k, v in arrays.items()}
    found = outcome(name, half, where)
    finite(found)
    values = found[0] if name in LOSSES else found
    assert all(leaf.dtype in (jnp.float32, bool) for leaf in jax.tree.leaves(values))  # accumulated in float32


@prop(NAMES)
def test_masked_is_invisible(name):
    arrays, where = samples.make(name, 0)
    expected, *found = (
        outcome(name, samples.poison(name, arrays, where, v), where) for v in (0.5, np.nan, np.inf, -1e30)
    )
    for other in found:
        assert_equal_where(other, expected, where)


def assert_equal_where(result, expected, where):
    """Equal, entries that the mask hides aside."""

    def check(x, y):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape == where.shape:
            x, y = x[where], y[where]
        np.testing.assert_allclose(x, y, rtol=1e-6)

    jax.tree.map(check, result, expected)


@prop(LOSSES)
def test_masked_is_removed(name):
    arrays, where = samples.make(name, 0)
    where = where.copy()
    where[2:] = False
    kept = {k: v[:2] for k, v in arrays.items()}
    whole = outcome(name, arrays, where)
    part = outcome(name, kept, where[:2])
    close(whole[0], part[0])
    close(whole[1][:2], part[1])
    np.testing.assert_array_equal(whole[1][2:], 0)


@prop(LOSSES)
def test_all_masked(name):
    arrays, where = samples.make(name, 0)
    nothing = np.zeros_like(where)
    for value in (0.5, np.nan):
        loss, grad = outcome(name, samples.poison(name, arrays, nothing, value), nothing)
        assert loss == 0
        np.testing.assert_array_equal(grad, 0)


@prop(LOSSES)
def test_padding_side(name):
    """Right-padded tokens moved to the left; below token level the sums and lengths of such tokens stand in."""
    arrays, where = samples.make(name, 0)
    if not samples.unit_axes(name).endswith("T"):
        right, left = padded_tokens(arrays, moved=False), padded_tokens(arrays, moved=True)
        close(result(name, right, where), result(name, left, where))
        return
    moved = {k: shift_right(v, where) for k, v in arrays.items()}
    close(result(name, moved, shift_right(where, where)), result(name, arrays, where))


def shift_right(array, where):
    """Rolls every row so that its padding comes first; arrays without a token axis stay."""
    if array.shape[: where.ndim] != where.shape:
        return array
    index = (np.arange(where.shape[-1]) - (~where).sum(-1, keepdims=True)) % where.shape[-1]
    return np.take_along_axis(array, index.reshape(index.shape + (1,) * (array.ndim - where.ndim)), where.ndim - 1)


def padded_tokens(arrays, *, moved):
    """Every array as the masked sum over tokens whose padding is NaN on one side or the other."""
    found = {}
    for key, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            found[key] = array
            continue
        tokens = np.stack([0.25 * array, 0.75 * array, np.full_like(array, np.nan)], -1)
        where = np.array([True, True, False])
        tokens, where = (tokens[..., [2, 0, 1]], where[[2, 0, 1]]) if moved else (tokens, where)
        found[key] = rlx.numerics.sum(jnp.asarray(tokens), -1, where=where)
    return found


@prop(NAMES)
def test_permutation(name):
    arrays, where = samples.make(name, 0)
    order = np.array([2, 0, 3, 1])
    permuted = {k: v[order] for k, v in arrays.items()}
    program = samples.compiled(name, units=name in LOSSES)
    close(program(permuted, where[order]), jax.tree.map(lambda x: x[order], program(arrays, where)))


@prop(NAMES)
def test_ties(name):
    """All entries of an array equal, and policy equal to reference."""
    arrays, where = samples.make(name, 0)
    tied = {k: np.full_like(v, -1 if "log" in k else 1) for k, v in arrays.items()}
    finite(outcome(name, tied, where))


@prop(NAMES)
def test_saturation(name):
    """Magnitudes up to 1e4, of both signs where an array has both."""
    arrays, where = samples.make(name, 0)
    for scale in (1e2, 1e4):
        finite(outcome(name, {k: scale_up(k, v, scale) for k, v in arrays.items()}, where))


def scale_up(key, array, scale):
    bounded = key in samples.PROBABILITIES or key in ("labels", "correct")
    return array if bounded or array.dtype != np.float32 else array * np.float32(scale)


@prop(LOSSES)
def test_impossible_tokens(name):
    """-inf logits: of the method itself where it takes logits, else behind its log-probabilities."""
    arrays, where = samples.make(name, 0)
    first = samples.entry(name).needs[0]
    if first.endswith("logits"):
        impossible = np.arange(samples.SIZES["V"]) == 3
        for key in ("targets", "tokens"):
            if key in arrays:
                arrays[key] = np.where(arrays[key] == 3, 0, arrays[key])
        hidden = {
            k: np.where(impossible, -np.inf, v).astype(v.dtype) if k.endswith("logits") else v
            for k, v in arrays.items()
        }
        finite(outcome(name, hidden, where))
        return
    logits = np.random.default_rng(0).normal(size=(*arrays[first].shape, samples.SIZES["V"])).astype(np.float32)
    logits[..., 3] = -np.inf

    def loss(logits):
        found = rlx.ops.token_statistics(logits, jnp.zeros(logits.shape[:-1], int), statistics=("logp", "entropy"))
        return samples.call(name, arrays | {first: found.logp + found.entropy}, where)

    finite(jax.jit(jax.value_and_grad(loss))(logits))


class Whole(NamedTuple):
    """Of a whole batch: the loss, its gradients by array, what ``prepare`` made, and the losses of the units."""

    loss: jax.Array
    gradients: dict[str, jax.Array]
    constants: method.Constants
    state: Any
    units: tuple[jax.Array, jax.Array]


@functools.cache
def built(name, axis_name=None):
    """The method of a name with its parameters and state."""
    found = rlx.build(name, axis_name=axis_name)
    shapes = method.Shapes(samples.SIZES["D"], samples.SIZES["V"], 100)
    return found, *found.init(jax.random.PRNGKey(0), shapes)


@functools.cache
def whole_program(name):
    """Compiled: batch -> :class:`Whole`."""
    found, params, state = built(name)

    def loss(floats, rest):
        batch = floats | rest
        constants, after = found.prepare(batch, params, state, jax.random.PRNGKey(0))
        units = found.apply(constants, batch, params)
        return found.aggregate(*units), (constants, after, units)

    program = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def run(batch):
        floats = {k: v for k, v in batch.items() if jnp.issubdtype(v.dtype, jnp.floating)}
        (value, aux), grads = program(floats, {k: v for k, v in batch.items() if k not in floats})
        return Whole(value, grads, *aux)

    return run


@prop(LOSSES)
def test_units_reduce_to_the_loss(name):
    arrays, where = samples.make(name, 0)
    found, params, state = built(name)
    whole = whole_program(name)(samples.batch(name, arrays, where))
    losses, unit_where = map(np.asarray, whole.units)
    np.testing.assert_array_equal(losses[~unit_where], 0)
    count = found.aggregate.count or (lambda where: 1)
    expected = np.sum(np.asarray(found.aggregate.weights(unit_where)) * losses) / np.asarray(count(unit_where))
    close(whole.loss, expected)
    if not params and not state:
        close(result(name, arrays, where), expected)
        close(samples.compiled(name, units=True)(arrays, where), losses)


@prop(LOSSES)
def test_micro_batches_are_exact(name):
    arrays, where = samples.make(name, 0)
    found, params, _ = built(name)
    batch = samples.batch(name, arrays, where)
    whole = whole_program(name)(batch)
    differentiated = {n: batch[n] for n in found.needs if n in whole.gradients}

    @jax.jit
    def numerator(differentiated, part, constants):
        def terms(arrays):
            return found.aggregate.terms(*found.apply(constants, part | arrays, params))

        return jax.value_and_grad(terms, has_aux=True)(differentiated)

    total, parts = np.zeros(2), []
    for rows in (slice(0, 1), slice(1, 3), slice(3, 4)):
        part, cut, units = ({k: v[rows] for k, v in d.items()} for d in (batch, differentiated, whole.constants.units))
        terms, grads = numerator(cut, part, method.Constants(whole.constants.shared, units))
        total += np.array(terms)
        parts.append(grads)
    close(found.aggregate.divide(*jnp.asarray(total)), whole.loss)
    for n in differentiated:
        joined = jnp.concatenate([p[n] for p in parts])
        close(found.aggregate.divide(joined, jnp.asarray(total[1])), whole.gradients[n])


@prop(LOSSES)
def test_four_devices_under_jit(name):
    batch = samples.batch(name, *samples.make(name, 0))
    first = built(name)[0].needs[0]
    place = NamedSharding(sharding.make_mesh({"data": 4}), PartitionSpec("data"))
    found, expected = whole_program(name)(jax.device_put(batch, place)), whole_program(name)(batch)
    close((found.loss, found.gradients[first]), (expected.loss, expected.gradients[first]))


@prop(LOSSES)
def test_four_devices_under_pmap(name):
    batch = samples.batch(name, *samples.make(name, 0))
    expected = whole_program(name)(batch)
    over, params, state = built(name, axis_name="rows")

    def share(part):
        constants, after = over.prepare(part, params, state, jax.random.PRNGKey(0))
        return jax.lax.psum(over.aggregate(*over.apply(constants, part, params)), "rows"), after

    found, found_state = jax.pmap(share, axis_name="rows")({k: v[:, None] for k, v in batch.items()})
    close(found, np.full(4, expected.loss))
    close(found_state, sharding.replicate(expected.state, 4))


@prop([name for name in NAMES if name not in LOSSES])
def test_four_shards_under_jit(name):
    arrays, where = samples.make(name, 0)
    placed = jax.device_put((arrays, where), NamedSharding(sharding.make_mesh({"data": 4}), PartitionSpec("data")))
    close(samples.compiled(name)(*placed), result(name, arrays, where))


@prop([name for name in NAMES if name not in LOSSES])
def test_four_shards_under_pmap(name):
    arrays, where = samples.make(name, 0)
    expected = result(name, arrays, where)
    takes_axis = "axis_name" in method.keywords_of(samples.entry(name).function)
    more = {"axis_name": "rows"} if takes_axis else {}
    parts = jax.tree.map(lambda x: x[:, None], (arrays, where))
    found = jax.pmap(lambda a, w: samples.call(name, a, w, **more), axis_name="rows")(*parts)
    close(jax.tree.map(lambda x: x[:, 0], found), expected)


@prop([name for name in NAMES if name not in LOSSES])
def test_constants_carry_no_gradient(name):
    arrays, where = samples.make(name, 0)
    if samples.entry(name).kind != "advantage":
        finite(result(name, arrays, where))
        return
    first = samples.entry(name).needs[0]
    total = lambda x: sum(leaf.sum() for leaf in jax.tree.leaves(samples.call(name, arrays | {first: x}, where)))  # noqa: E731
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(jnp.asarray(arrays[first])), 0)


GROUPED = [
    name for name in NAMES if rlx.catalog.CATALOG[name].kind == "advantage" and samples.unit_axes(name).startswith("K")
]


def on_members(change, arrays, where):
    """``change(array, axis)`` on the axis of the responses, of every array that has one and of the mask."""
    axes = {key: VOCABULARY[key][0].lstrip(".") for key in arrays}
    changed = {key: change(v, 1 + axes[key].index("K")) if "K" in axes[key] else v for key, v in arrays.items()}
    return changed, change(where, 1)


def of_members(found, size, index):
    """Results at these members; what a group has as a whole stays."""
    return jax.tree.map(lambda x: np.asarray(x)[:, index] if x.shape[1:2] == (size,) else x, found)


@prop(GROUPED)
def test_members_in_another_order(name):
    arrays, where = samples.make(name, 0)
    order = np.array([2, 0, 1])
    permuted = on_members(lambda x, axis: np.take(x, order, axis), arrays, where)
    close(result(name, *permuted), of_members(result(name, arrays, where), len(order), order))


@prop(GROUPED)
def test_added_masked_members(name):
    """A group padded by members that are none, whatever they hold."""
    arrays, where = samples.make(name, 0)
    size = where.shape[1]

    def pad(array, axis):
        more = np.full_like(np.repeat(np.take(array, [0], axis), 5, axis), np.nan if array.dtype == np.float32 else 0)
        return np.concatenate([array, more], axis)

    padded = result(name, *on_members(pad, arrays, where))
    close(of_members(padded, size + 5, np.arange(size)), result(name, arrays, where))


def example(name, seed=0):
    args, keywords = examples.EXAMPLES[name](np.random.default_rng(seed))
    return args, dict(rlx.catalog.CATALOG[name].preset) | keywords


def numbers(tree) -> list[np.ndarray]:
    """The numeric leaves of a result; host functions also return text and flags."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [leaf for leaf in leaves if np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool]


@prop(CALLS)
def test_deterministic(name):
    """Same inputs, same result, finite numbers, and the inputs as they were."""
    (args, keywords), (before, _) = example(name), example(name)
    function = rlx.catalog.CATALOG[name].function
    first, second = function(*args, **keywords), function(*args, **keywords)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    finite(numbers(first))
    jax.tree.map(np.testing.assert_array_equal, args, before)


@prop(SOLVERS)
def test_solver_under_jit(name):
    args, keywords = example(name)
    traced = {k: v for k, v in keywords.items() if isinstance(v, (np.ndarray, jax.Array))}
    rest = {k: v for k, v in keywords.items() if k not in traced}
    function = rlx.catalog.CATALOG[name].function
    arrays = [i for i, arg in enumerate(args) if isinstance(arg, (np.ndarray, jax.Array))]

    def run(values, more):
        full = list(args)
        for i, value in zip(arrays, values, strict=True):
            full[i] = value
        return function(*full, **more, **rest)

    found = jax.jit(run)([args[i] for i in arrays], traced)
    close(numbers(found), numbers(function(*args, **keywords)), rtol=1e-4, atol=1e-5)


@prop(CALLS)
def test_precision(name):
    """In float64 the result is that of float32 up to rounding."""
    args, keywords = example(name)
    narrow = rlx.catalog.CATALOG[name].function(*args, **keywords)
    with jax.enable_x64(True):
        wide = rlx.catalog.CATALOG[name].function(*args, **keywords)
    close(numbers(wide), numbers(narrow), rtol=2e-3, atol=1e-3)


def test_every_call_has_an_example():
    assert set(CALLS) == set(examples.EXAMPLES), "solvers and host functions of the catalogue, and tests/examples"


def test_exemptions_name_properties():
    for name, entry in rlx.catalog.CATALOG.items():
        for label, reason in entry.exempt.items():
            assert label in PROPERTIES, f"{name} is exempt from {label!r}, which is no property: {sorted(PROPERTIES)}"
            assert len(reason) > 20, f"{name} does not say why it is exempt from {label}"
            assert name not in PROPERTIES[label]


def test_every_loss_is_in_every_row_or_says_why():
    for label, names in PROPERTIES.items():
        for name in LOSSES:
            exempt = label in rlx.catalog.CATALOG[name].exempt
            assert (name in names) != exempt or label in NOT_OF_LOSSES


def test_the_default_reduction_is_an_aggregation():
    for name in LOSSES:
        assert isinstance(rlx.build(name).aggregate, aggregate.Aggregation), name
