"""What tests of whole runs share."""

import functools
import json

import jax
import numpy as np
import pytest

from rlx import models
from rlx.report.rows import read_rows
from rlx.train import assemble, trainer, updates
from rlx.train.interrupts import Stopped
from rlx.train.main import train
from rlx.train.restore import restore


@pytest.fixture(scope="module")
def one_model():
    """Runs of equal model configs share the model, and so the compiled sampler; none draws plots."""
    build = models.build
    shared = functools.cache(lambda text: build(json.loads(text)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble.models, "build", lambda config: shared(json.dumps(config)))
        patch.setattr(trainer, "write_report", lambda folder: None)
        yield


@pytest.fixture(scope="module")
def recorded():
    """``(config, folder) -> batches``: trains, and keeps what the updates of the stage ``rl`` learn from."""

    def run(config, folder):
        learnt, put = [], updates.put_whole
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(updates, "put_whole", lambda batch, mesh: learnt.append(dict(batch)) or put(batch, mesh))
            train(config, folder)
        return learnt

    return run


@pytest.fixture
def assert_goes_on(tmp_path):
    """``(config, whole, moment)``: stopped after a step and started again, a run ends with the bits of ``whole``."""

    def check(config, whole, moment):
        with pytest.raises(Stopped):
            train(config, tmp_path, stop=lambda stage, step: step == moment)
        train(config, tmp_path)
        assert read_rows(tmp_path / "metrics.jsonl") == read_rows(whole / "metrics.jsonl")
        ours, theirs = (restore(folder).state for folder in (tmp_path, whole))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)

    return check
