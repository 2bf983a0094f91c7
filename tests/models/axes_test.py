"""Logical axes: what is split over which axis of a mesh."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from rlx.models import axes
from rlx.train import sharding


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((4, 8), PartitionSpec(("fsdp", "sequence"), "model")),
        ((6, 8), PartitionSpec("fsdp", "model")),
        ((3, 7), PartitionSpec(None, None)),
    ],
)
def test_an_axis_that_does_not_divide_is_left_out_from_the_end(shape, expected):
    assert axes.fit(axes.spec(("embed", "ffn")), shape, {"fsdp": 2, "sequence": 2, "model": 2}) == expected


def test_a_spec_is_padded_to_the_rank():
    assert axes.fit(PartitionSpec("model"), (2, 5), {"model": 2}) == PartitionSpec("model", None)


def test_constraints_hold_only_while_a_mesh_is_named():
    mesh, x = sharding.make_mesh({"fsdp": 2, "sequence": 2}), jnp.zeros((4, 8, 6))

    def laid_out(x):
        with axes.on(mesh):
            return axes.activation(x), axes.leading(4, 8)

    assert axes.activation(x) is x and axes.leading(4, 8) == (32,) and laid_out(x)[1] == (4, 8)
    found = jax.jit(lambda x: laid_out(x)[0])(x)
    assert found.sharding.spec == PartitionSpec("fsdp", "sequence") and not axes.splits_length()
