"""What tests of whole runs share."""

import functools
import json

import pytest

from rlx import models
from rlx.train import assemble, rollouts, trainer
from rlx.train.main import train


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
        learnt, put = [], rollouts.put_batch
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rollouts, "put_batch", lambda batch, mesh: learnt.append(dict(batch)) or put(batch, mesh))
            train(config, folder)
        return learnt

    return run
