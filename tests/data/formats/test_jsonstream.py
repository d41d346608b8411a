"""The incremental JSON reader gives what json.loads gives, whatever the chunks, and names a fault's place."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curator.data.formats import jsonstream
from curator.errors import FormatError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["NaN", "-Infinity", 'a "NaN", b', "[NaN]\\", "\\"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def without_nan(value: Any) -> Any:
    """NaN and Infinity as the texts that the reader gives for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return {key: without_nan(item) for key, item in value.items()} if isinstance(value, dict) else value


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.dictionaries(texts, values, max_size=4),
    chunk=st.integers(1, 40),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_equals_the_standard_parser(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    document: dict[str, object],
    chunk: int,
    ascii_only: bool,
    indent: int | None,
) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", chunk)
    path = tmp_path / "document.json"
    path.write_text(json.dumps(document, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
    document = without_nan(document)
    expected = [(key, item) for key, value in document.items() if isinstance(value, list) for item in value]
    arrays: set[str] = set()
    assert list(jsonstream.array_elements(path, arrays)) == expected
    assert arrays == {key for key, value in document.items() if isinstance(value, list)}


def test_numbers_are_those_of_python(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    path.write_text('{"a": [1, 12345678901234567890123, 0.1, 1e3, -0.0, 1e400]}')
    found = [value for _, value in jsonstream.array_elements(path)]
    assert found == [1, 12345678901234567890123, 0.1, 1000.0, 0.0, math.inf]
    assert [type(value) for value in found] == [int, int, float, float, float, float]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends too early"),
        ("[1, 2]", "expected '{'"),
        ("7", "expected '{'"),
        ('{"a": [1, 2}', r"near byte 12 \(after array element, I expect ',' or ']'\)"),
        ('{"a": [1, 2], ', "ends too early"),
        ('{"a": [{"b": 1 "c": 2}]}', "near byte 17 .*inside map, I expect"),
        ('{"a": [1],\n\n"b": [1,, 3]}', "near byte 21"),
        ('{"a": ["no end]}', "ends too early"),
        ('{"a": [1]} x', "trailing garbage"),
        ('{"a" [1]}', "separated by a colon"),
        ("{1: [2]}", "expected valid JSON"),
        ('{"a": [tru]}', "invalid string"),
        ('{"a": [nan]}', "expected valid JSON"),
        ('{"a": [Nan, NaN]}', "invalid char"),
        ('{"a": ' + "[" * 100_000, "nested brackets"),
        ('{"a": ' + '{"b": ' * 100_000, "nested brackets"),
    ],
)
def test_broken_text_is_one_clear_error(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=reason) as found:
        list(jsonstream.array_elements(path))
    assert str(found.value).startswith(f"{path}: expected ")
    assert "\n" not in str(found.value)


def test_the_place_of_a_fault_deep_in_the_file(tmp_path: Path) -> None:
    text = '{"a": [' + ", ".join(f'{{"id": {i}}}' for i in range(40_000)) + ', {"id" 7}]}'
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(FormatError) as found:
        list(jsonstream.array_elements(path))
    assert abs(int(str(found.value).split("near byte ")[1].split()[0]) - text.index('"id" 7')) < 10


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        list(jsonstream.array_elements(tmp_path / "none.json"))
    (tmp_path / "binary.json").write_bytes(b'{"a": ["\xff"]}')
    with pytest.raises(FormatError, match=r"near byte .* UTF8"):
        list(jsonstream.array_elements(tmp_path / "binary.json"))


@pytest.mark.parametrize("item", ["1", "NaN"])
def test_a_byte_order_mark_is_no_fault(tmp_path: Path, item: str) -> None:
    path = tmp_path / "mark.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [%s]}' % item.encode())
    assert [str(value) for _, value in jsonstream.array_elements(path)] == [item]
