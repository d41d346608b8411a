"""Content keys: the text that is hashed is JSON's own, whatever way it is made."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.keys import canonical_json, content_key

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_plain_values_are_json_with_sorted_keys(value: object) -> None:
    expected = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    assert canonical_json(value) == expected


def test_other_values_have_one_form() -> None:
    Pair = namedtuple("Pair", "a b")
    value = [(1, 2.5), Pair("x", None), PurePosixPath("a/b"), {3, 1}, np.float32(0.5), np.arange(2), {1: "é"}]
    assert canonical_json(value) == '[[1,2.5],["x",null],"a/b",[1,3],0.5,[0,1],{"1":"é"}]'
    # of version 0.1.0: stored keys must never change
    assert content_key("detect", 2, "abc", 0.05, ["n"], {"b": (1, None), "a": True}) == (
        "50794be232737a5e7d36544381e4eb3279d0967dedcd2c1ee76958afaacac934"
    )


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)
    with pytest.raises(TypeError, match="no canonical form for object"):
        canonical_json([object()])
