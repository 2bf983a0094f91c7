"""Properties of the functions that build sweeps: sizes, order, independence of draws, and errors."""

import json
import math

import numpy as np
import pytest

from rlx import sweep
from rlx.errors import UserError

AXES = {"method.beta": [0.1, 0.5], "method.name": ["dpo", "ipo", "kto"], "seed": range(4)}


def test_product_holds_every_combination_once_in_order():
    runs = sweep.product(**AXES)
    assert len(runs) == 2 * 3 * 4
    assert len({json.dumps(run) for run in runs}) == len(runs)
    assert all(list(run) == list(AXES) for run in runs)
    assert [run["seed"] for run in runs[:5]] == [0, 1, 2, 3, 0]


def test_product_is_the_cross_of_its_axes():
    single = [sweep.product(**{key: values}) for key, values in AXES.items()]
    assert sweep.product(**AXES) == sweep.cross(*single)


def test_cross_is_associative_with_a_unit():
    a, b, c = sweep.product(x=[1, 2]), sweep.product(y=[3]), sweep.seeds(2)
    assert sweep.cross(sweep.cross(a, b), c) == sweep.cross(a, sweep.cross(b, c)) == sweep.cross(a, b, c)
    assert sweep.cross(a, [{}]) == a and sweep.cross(a, []) == [] and sweep.cross() == [{}]


def test_chain_concatenates_copies():
    a, b = sweep.product(x=[1]), sweep.seeds(2)
    both = sweep.chain(a, b)
    assert both == a + b
    both[0]["x"] = 9
    assert a == [{"x": 1}]


def test_zip_pairs_values():
    assert sweep.zip_(x=[1, 2], y=[3, 4]) == [{"x": 1, "y": 3}, {"x": 2, "y": 4}]
    with pytest.raises(UserError, match="zip_ needs axes of one length, not x: 2, y: 1."):
        sweep.zip_(x=[1, 2], y=[3])


def test_seeds_count_from_their_start():
    assert sweep.seeds(2, start=1000) == [{"seed": 1000}, {"seed": 1001}]


def test_values_are_plain_python():
    runs = sweep.product(x=np.linspace(0, 1, 3), y=np.arange(2))
    assert {type(run["x"]) for run in runs} == {float} and {type(run["y"]) for run in runs} == {int}


def test_random_draws_depend_on_seed_and_key_alone():
    samplers = {"method.beta": sweep.loguniform(0.01, 1.0), "lr": sweep.uniform(1.0, 2.0), "n": sweep.choice([1, 2])}
    runs = sweep.random(50, 7, **samplers)
    assert runs == sweep.random(50, 7, **samplers) != sweep.random(50, 8, **samplers)
    alone = sweep.random(20, 7, lr=samplers["lr"])
    assert [run["lr"] for run in alone] == [run["lr"] for run in runs[:20]]


def test_samplers_stay_within_their_limits_and_fill_them():
    runs = sweep.random(4000, 0, a=sweep.uniform(-1.0, 3.0), b=sweep.loguniform(1e-4, 1e-2), c=sweep.choice([0]))
    a, b = np.array([run["a"] for run in runs]), np.array([run["b"] for run in runs])
    assert a.min() >= -1 and a.max() < 3 and abs(a.mean() - 1) < 5 * (4 / math.sqrt(12)) / math.sqrt(4000)
    assert b.min() >= 1e-4 and b.max() <= 1e-2 and abs(np.mean(b < 1e-3) - 0.5) < 5 * 0.5 / math.sqrt(4000)
    draws = sweep.random(300, 0, c=sweep.choice(["x", "y", "z"]))
    assert {run["c"] for run in draws} == {"x", "y", "z"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sweep.product(name="dpo"), "the values of 'name' must be a list, not 'dpo'."),
        (lambda: sweep.product(beta=0.1), "the values of 'beta' must be a list, not 0.1."),
        (lambda: sweep.product(beta=[]), "the list of values of 'beta' is empty."),
        (lambda: sweep.cross(sweep.seeds(2), sweep.seeds(2)), "cross: two of the sweeps set 'seed'."),
        (lambda: sweep.uniform(1.0, 1.0), "uniform needs low < high, not 1.0 and 1.0."),
        (lambda: sweep.loguniform(0.0, 1.0), "loguniform needs 0 < low < high, not 0.0 and 1.0."),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(UserError) as error:
        build()
    assert str(error.value) == message
