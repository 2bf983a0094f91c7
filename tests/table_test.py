"""The property table: what every method of the catalogue is held to.

A method that a property cannot apply to says so in the catalogue, with the reason (``Entry.exempt``); the table then
checks that the exemption is still needed in name (:func:`test_exemptions_name_properties`).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import rlx
from rlx import aggregate, method
from rlx.train import sharding
from tests import examples, samples

NAMES = sorted(name for name, entry in rlx.catalog.CATALOG.items() if entry.kind not in ("host", "solver"))
CALLS = sorted(name for name, entry in rlx.catalog.CATALOG.items() if entry.kind in ("host", "solver"))
SOLVERS = [name for name in CALLS if rlx.catalog.CATALOG[name].kind == "solver"]
LOSSES = [name for name in NAMES if rlx.catalog.CATALOG[name].kind == "loss"]
NOT_OF_LOSSES = (
    "four_shards_under_pmap",
    "constants_carry_no_gradient",
    "deterministic",
    "solver_under_jit",
    "precision",
)
PROPERTIES: dict[str, list[str]] = {}


def prop(names):
    """Runs a test for every name that is not exempt from it; the property is called like the test."""

    def decorate(test):
        label = test.__name__.removeprefix("test_")
        PROPERTIES[label] = [name for name in names if label not in rlx.catalog.CATALOG[name].exempt]
        return pytest.mark.parametrize("name", PROPERTIES[label])(test)

    return decorate


def close(a, b, rtol=2e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=atol), a, b)


def finite(tree) -> None:
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all(), leaf


def gradient(name, arrays, where, **more):
    """Value and gradient in the first array, the differentiable one."""
    first = samples.entry(name).needs[0]
    rest = {k: jnp.asarray(v) for k, v in arrays.items() if k != first}
    return jax.value_and_grad(lambda x: samples.call(name, {first: x} | rest, where, **more))(
        jnp.asarray(arrays[first])
    )


@prop(NAMES)
def test_jit(name):
    arrays, where = samples.make(name, 0)
    close(jax.jit(lambda a, w: samples.call(name, a, w))(arrays, where), samples.call(name, arrays, where))


@prop(NAMES)
def test_vmap(name):
    batches = [samples.make(name, seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
    mapped = jax.vmap(lambda a, w: samples.call(name, a, w))(*stacked)
    one_by_one = [samples.call(name, *b) for b in batches]
    close(mapped, jax.tree.map(lambda *x: jnp.stack(x), *one_by_one))


@prop(NAMES)
def test_float64(name):
    arrays, where = samples.make(name, 0, dtype=np.float64)
    with jax.enable_x64(True):
        result = samples.call(name, {k: jnp.asarray(v) for k, v in arrays.items()}, where)
    assert all(leaf.dtype in (jnp.float64, bool) for leaf in jax.tree.leaves(result))
    close(result, samples.call(name, *samples.make(name, 0)), rtol=2e-4, atol=1e-5)


@prop(NAMES)
def test_bfloat16(name):
    arrays, where = samples.make(name, 0)
    half = {k: jnp.asarray(v, jnp.bfloat16) if v.dtype == np.float32 else v for k, v in arrays.items()}
    result = samples.call(name, half, where)
    assert all(leaf.dtype in (jnp.float32, bool) for leaf in jax.tree.leaves(result))  # accumulated in float32
    finite(result)
    if name in LOSSES:
        finite(gradient(name, half, where))


@prop(NAMES)
def test_masked_is_invisible(name):
    arrays, where = samples.make(name, 0)
    results = [samples.call(name, samples.poison(name, arrays, where, v), where) for v in (0.5, np.nan, np.inf, -1e30)]
    for result in results[1:]:
        assert_equal_where(result, results[0], where)
    if name in LOSSES:
        expected = gradient(name, arrays, where)
        found = gradient(name, samples.poison(name, arrays, where, np.nan), where)
        close(found, expected)


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
    whole = gradient(name, arrays, where)
    part = gradient(name, kept, where[:2])
    close(whole[0], part[0])
    close(whole[1][:2], part[1])
    np.testing.assert_array_equal(whole[1][2:], 0)


@prop(LOSSES)
def test_all_masked(name):
    arrays, where = samples.make(name, 0)
    nothing = np.zeros_like(where)
    for value in (0.5, np.nan):
        loss, grad = gradient(name, samples.poison(name, arrays, nothing, value), nothing)
        assert loss == 0
        np.testing.assert_array_equal(grad, 0)


@prop(LOSSES)
def test_padding_side(name):
    """Right-padded tokens moved to the left; below token level the sums and lengths of such tokens stand in."""
    arrays, where = samples.make(name, 0)
    if not samples.unit_axes(name).endswith("T"):
        pytest_arrays = padded_tokens(arrays, moved=False), padded_tokens(arrays, moved=True)
        close(samples.call(name, pytest_arrays[0], where), samples.call(name, pytest_arrays[1], where))
        return
    moved = {k: shift_right(v, where) for k, v in arrays.items()}
    close(samples.call(name, moved, shift_right(where, where)), samples.call(name, arrays, where))


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
    more = {"reduce": None} if name in LOSSES else {}
    result, expected = (samples.call(name, a, w, **more) for a, w in ((permuted, where[order]), (arrays, where)))
    close(result, jax.tree.map(lambda x: x[order], expected))


@prop(NAMES)
def test_ties(name):
    """All entries of an array equal, and policy equal to reference."""
    arrays, where = samples.make(name, 0)
    tied = {k: np.full_like(v, -1 if "log" in k else 1) for k, v in arrays.items()}
    finite(samples.call(name, tied, where))
    if name in LOSSES:
        finite(gradient(name, tied, where))


@prop(NAMES)
def test_saturation(name):
    """Magnitudes up to 1e4, of both signs where an array has both."""
    arrays, where = samples.make(name, 0)
    for scale in (1e2, 1e4):
        large = {k: scale_up(k, v, scale) for k, v in arrays.items()}
        finite(samples.call(name, large, where))
        if name in LOSSES:
            finite(gradient(name, large, where))


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
        finite(gradient(name, hidden, where))
        return
    logits = np.random.default_rng(0).normal(size=(*arrays[first].shape, samples.SIZES["V"])).astype(np.float32)
    logits[..., 3] = -np.inf

    def loss(logits):
        found = rlx.ops.token_statistics(logits, jnp.zeros(logits.shape[:-1], int), statistics=("logp", "entropy"))
        return samples.call(name, arrays | {first: found.logp + found.entropy}, where)

    finite(jax.value_and_grad(loss)(jnp.asarray(logits)))


@prop(LOSSES)
def test_units_reduce_to_the_loss(name):
    arrays, where = samples.make(name, 0)
    built = rlx.build(name)
    batch = samples.batch(name, arrays, where)
    params, state = built.init(jax.random.PRNGKey(0), method.Shapes(samples.SIZES["D"], samples.SIZES["V"], 100))
    key = jax.random.PRNGKey(0)
    constants, _ = built.prepare(batch, params, state, key)
    losses, unit_where = built.apply(constants, batch, params)
    np.testing.assert_array_equal(np.asarray(losses)[~np.asarray(unit_where)], 0)
    weights = built.aggregate.weights(unit_where)
    count = built.aggregate.count or (lambda where: 1)
    expected = np.sum(np.asarray(weights) * np.asarray(losses)) / np.asarray(count(unit_where))
    close(method.loss(built, batch, params, state, key), expected)
    if not params and not state:
        close(samples.call(name, arrays, where), expected)
        close(samples.call(name, arrays, where, reduce=None), losses)


@prop(LOSSES)
def test_micro_batches_are_exact(name):
    arrays, where = samples.make(name, 0)
    built, batch, params, state, key = build_for(name, arrays, where)
    value, grads = jax.value_and_grad(lambda p: method.loss(built, p, params, state, key), allow_int=True)(batch)
    constants, _ = built.prepare(batch, params, state, key)
    total, parts = (0.0, 0.0), []
    for rows in (slice(0, 1), slice(1, 3), slice(3, 4)):
        part = {k: v[rows] for k, v in batch.items()}
        units = method.Constants(constants.shared, {k: v[rows] for k, v in constants.units.items()})

        def numerator(part, units=units):
            return built.aggregate.terms(*built.apply(units, part, params))

        (top, bottom), grad = jax.value_and_grad(numerator, has_aux=True, allow_int=True)(part)
        total = total[0] + top, total[1] + bottom
        parts.append(grad)
    close(built.aggregate.divide(*total), value)
    for n in built.needs:
        if jnp.issubdtype(batch[n].dtype, jnp.floating):
            joined = jnp.concatenate([p[n] for p in parts])
            close(built.aggregate.divide(joined, jnp.asarray(total[1])), grads[n])


def build_for(name, arrays, where, axis_name=None):
    built = rlx.build(name, axis_name=axis_name)
    shapes = method.Shapes(samples.SIZES["D"], samples.SIZES["V"], 100)
    params, state = built.init(jax.random.PRNGKey(0), shapes)
    return built, samples.batch(name, arrays, where), params, state, jax.random.PRNGKey(1)


@prop(LOSSES)
def test_four_devices_under_jit(name):
    arrays, where = samples.make(name, 0)
    built, batch, params, state, key = build_for(name, arrays, where)
    first = built.needs[0]

    def loss(x, batch):
        return method.loss(built, batch | {first: x}, params, state, key)

    expected = jax.value_and_grad(loss)(batch[first], batch)
    place = NamedSharding(sharding.make_mesh({"data": 4}), PartitionSpec("data"))
    placed = jax.device_put(batch, place)
    close(jax.jit(jax.value_and_grad(loss))(placed[first], placed), expected)


@prop(LOSSES)
def test_four_devices_under_pmap(name):
    arrays, where = samples.make(name, 0)
    built, batch, params, state, key = build_for(name, arrays, where)
    expected = method.loss(built, batch, params, state, key)
    _, expected_state = built.prepare(batch, params, state, key)
    over, *_ = build_for(name, arrays, where, axis_name="rows")

    def share(part):
        loss = method.loss(over, part, params, state, key)
        return jax.lax.psum(loss, "rows"), over.prepare(part, params, state, key)[1]

    found, found_state = jax.pmap(share, axis_name="rows")({k: v[:, None] for k, v in batch.items()})
    close(found, np.full(4, expected))
    close(found_state, sharding.replicate(expected_state, 4))


@prop([name for name in NAMES if name not in LOSSES])
def test_four_shards_under_pmap(name):
    arrays, where = samples.make(name, 0)
    expected = samples.call(name, arrays, where)
    takes_axis = "axis_name" in method.keywords_of(samples.entry(name).function)
    more = {"axis_name": "rows"} if takes_axis else {}
    parts = jax.tree.map(lambda x: x[:, None], (arrays, where))
    found = jax.pmap(lambda a, w: samples.call(name, a, w, **more), axis_name="rows")(*parts)
    close(jax.tree.map(lambda x: x[:, 0], found), expected)


@prop([name for name in NAMES if name not in LOSSES])
def test_constants_carry_no_gradient(name):
    arrays, where = samples.make(name, 0)
    if samples.entry(name).kind != "advantage":
        finite(samples.call(name, arrays, where))
        return
    first = samples.entry(name).needs[0]
    total = lambda x: sum(leaf.sum() for leaf in jax.tree.leaves(samples.call(name, arrays | {first: x}, where)))  # noqa: E731
    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(arrays[first])), 0)


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
