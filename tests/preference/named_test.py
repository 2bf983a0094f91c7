"""Parts by name, or as they are."""

import pytest

from rlx import errors
from rlx.preference import named


def test_a_name_or_the_part_itself():
    known = {"one": len, "two": max}
    assert named.by_name("two", known, "part") is max
    assert named.by_name(min, known, "part") is min
    with pytest.raises(errors.UserError, match=r"Unknown part 'tow'\. Did you mean 'two'\? Known: one, two\."):
        named.by_name("tow", known, "part")
