"""What tests of whole runs share."""

import functools
import json

import pytest

from rlx import models
from rlx.train import assemble, trainer


@pytest.fixture(scope="module")
def one_model():
    """Runs of equal model configs share the model, and so the compiled sampler; none draws plots."""
    build = models.build
    shared = functools.cache(lambda text: build(json.loads(text)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble.models, "build", lambda config: shared(json.dumps(config)))
        patch.setattr(trainer, "write_report", lambda folder: None)
        yield
