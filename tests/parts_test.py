"""Reading parts from strings; parts beside a default are tested where configs name them, in method_test."""

import pytest

from rlx import errors, parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token", ("token", (), {})),
        (" clip( 0.2, high=0.28 ) ", ("clip", (0.2,), {"high": 0.28})),
        ("part(-1, None, [1, 2], key='a')", ("part", (-1, None, [1, 2]), {"key": "a"})),
    ],
)
def test_names_with_literals(text, expected):
    assert parts.parse(text) == expected


@pytest.mark.parametrize("text", ["", "clip(0.2", "clip(x)", "a.b(1)", "f()()", "1", "clip 2", "f(**{})", "f(a=g())"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(errors.UserError, match=r"Cannot read the part .* 'clip\(0.2, high=0.28\)'"):
        parts.parse(text)
