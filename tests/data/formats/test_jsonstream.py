"""The incremental JSON reader gives what json.loads gives, at every chunk boundary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curator.data.formats import jsonstream
from curator.errors import FormatError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.dictionaries(st.text(max_size=5), values, max_size=4),
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
    expected = [(key, item) for key, value in document.items() if isinstance(value, list) for item in value]
    found = list(jsonstream.array_elements(path))
    assert [(key, item) for key, item, _ in found] == expected
    assert [json.loads(text) for _, _, text in found] == [item for _, item in expected]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected '{'"),
        ("[1, 2]", "expected '{'"),
        ('{"a": [1, 2}', "expected ']'"),
        ('{"a": [1, 2], ', "valid JSON"),
        ('{"a": [{"b": 1 "c": 2}]}', "valid JSON"),
        ('{"a": ["no end]}', "Unterminated string"),
        ('{"a": [1]} x', "end of"),
        ('{"a" [1]}', "expected ':'"),
        ('{"a": [1],}', "valid JSON"),
        ("{1: [2]}", "a key"),
        ('{"a": [tru]}', "valid JSON"),
        ('{"a": [' + "[" * 100_000, "plain JSON"),
        ('{"a": [' + "1" * 5000 + "]}", "plain JSON"),
    ],
)
def test_broken_text_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", 7)
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=reason):
        list(jsonstream.array_elements(path))


def test_a_fault_is_found_before_the_file_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", 64)
    path = tmp_path / "broken.json"
    path.write_text('{"a": [{"b": 1 "c": 2}' + ", 1" * 100_000 + "]}", encoding="utf-8")
    with path.open(encoding="utf-8") as handle:
        window = jsonstream._Window(path, handle)
        with pytest.raises(FormatError, match="character 15"):
            list(window.elements())
        assert len(window.text) < 1000


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        list(jsonstream.array_elements(tmp_path / "none.json"))
    (tmp_path / "binary.json").write_bytes(b'{"a": ["\xff"]}')
    with pytest.raises(FormatError, match="not UTF-8"):
        list(jsonstream.array_elements(tmp_path / "binary.json"))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "mark.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert [item for _, item, _ in jsonstream.array_elements(path)] == [1]
