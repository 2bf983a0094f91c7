"""Hypothesis draws extreme values and masks on three fixed shapes, for every loss: ``tests/extremes.py``, sampled."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from tests import extremes, samples


def batches(name, shape):
    """Strategy: the arrays of a loss, and ``where``; masked floats are NaN."""
    template, where = extremes.template(name, shape)
    values = {
        key: arrays_of.arrays(like.dtype, like.shape, elements=st.sampled_from(extremes.limits(key, like).tolist()))
        for key, like in template.items()
    }
    drawn = st.tuples(st.fixed_dictionaries(values), arrays_of.arrays(bool, where.shape))
    return drawn.map(lambda both: (samples.poison(name, both[0], both[1], np.nan), both[1]))


@pytest.mark.parametrize("shape", range(len(extremes.SHAPES)))
@pytest.mark.property
@pytest.mark.parametrize("name", extremes.LOSSES)
def test_extremes_are_finite(name, shape):
    @settings(max_examples=10, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])
    @given(batches(name, extremes.SHAPES[shape]))
    def check(batch):
        for found in samples.derivative(name)(*batch):
            assert np.isfinite(found).all()

    check()
