"""A run to fit the entropy-performance law to."""

from typing import Any

import numpy as np


def entropy_performance_law(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    entropy = rng.uniform(0.1, 2.0, 12)
    return (entropy, 0.8 - 0.1 * np.exp(entropy) + rng.normal(0, 0.01, 12)), {}


EXAMPLES = {"entropy_performance_law": entropy_performance_law}
