"""Selectors of failures: what is taken, and which slips are refused."""

from __future__ import annotations

import pytest

from curator.diagnose.selectors import Alternative, FailureSelector
from curator.errors import InputError


def test_alternatives_with_their_kinds_and_a_class_alone() -> None:
    found = FailureSelector.parse("FN:miss,class=ring; FP;").alternatives
    assert found == (Alternative("FN", "miss", "ring"), Alternative("FP", None, None))
    assert FailureSelector.parse("class=ring").alternatives == (Alternative(None, None, "ring"),)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("FN:miss;class=ring", "FN:miss,class=ring"),
        ("FP; FN:miss ;class=ring", "FN:miss,class=ring"),
        ("class=ring;FN:miss", "FN,class=ring"),
        ("FN,class=car;class=ring", "FN,class=ring"),
    ],
)
def test_a_semicolon_for_a_comma_is_refused_with_the_right_form(text: str, right: str) -> None:
    with pytest.raises(InputError, match="expected FN or FP at the start of every alternative") as refused:
        FailureSelector.parse(text)
    assert str(refused.value).endswith(f"got 'class=ring'; a class is joined by ',': {right}")
    assert "\n" not in str(refused.value)
