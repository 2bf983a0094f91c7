"""Records, and what the tests of datasets and pipelines do with them."""

import numpy as np

from rlx.data.pipeline import load
from rlx.data.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
PAIRS = [{"prompt": f"prompt {i}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(11)]
LISTS = [{"prompt": "p", "responses": ["a", "b", "c"][: 1 + i % 3], "scores": [1, 2, 3][: 1 + i % 3]} for i in range(5)]


def memory(records=PAIRS, *, kind="pairs", seed=0, **changes):
    config = {"source": "memory", "records": records, "max_prompt_length": 8, "max_response_length": 6, **changes}
    return load(config, TOKENIZER, kind=kind, seed=seed)


def text(batch, i, k, key="where"):
    return TOKENIZER.decode(batch["tokens"][i, k][batch[key][i, k]])


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype
        np.testing.assert_array_equal(one[key], other[key])


def take(iterator, count):
    return [next(iterator) for _ in range(count)]
