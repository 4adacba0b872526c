"""JSON pointers find what RFC 6901 says, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from contracts.pointer import POINTER_CHARS_MAX, Pointer, find, text_at
from contracts.text import NotJson, document

POINTERS: TypeAdapter[str] = TypeAdapter(Pointer)
# The document and the pointers of RFC 6901, section 5; the empty pointer, for all of it, is not for SSOT.
DOCUMENT = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3), ("/g|h", 4),
        ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8),
    ],
)  # fmt: skip
def test_the_examples_of_the_rfc_hold(pointer: str, value: Any) -> None:
    assert pointer == POINTERS.validate_python(pointer)
    assert value == find(DOCUMENT, pointer)


@pytest.mark.parametrize(
    "pointer", ["/foo/2", "/foo/-", "/foo/01", "/foo/-1", "/foo/٠", "/foo/0/0", "/x", "/~01"]
)
def test_what_is_not_there_is_none(pointer: str) -> None:
    assert find(DOCUMENT, pointer) is None


def test_an_escape_is_read_once() -> None:
    assert 1 == find({"~1": 1}, "/~01")


@pytest.mark.parametrize("pointer", ["", "foo", "/~", "/~2", "/a~", "/" + "x" * POINTER_CHARS_MAX])
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ValidationError):
        POINTERS.validate_python(pointer)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"a": "x"}', "x"), (b'{"a": 7}', "7"), (b'{"a": -7}', "-7"), (b'{"a": ""}', None), (b'{"a": null}', None),
        (b'{"a": true}', None), (b'{"a": 1.0}', None), (b'{"a": 9223372036854775808}', None), (b'{"a": []}', None),
        (b'{"a": "x\\u0000"}', "x\ufffd"), (b'{"a": "\\ud800"}', "\ufffd"), (b'{"a": "x", "a": "y"}', "y"),
    ],
)  # fmt: skip
def test_a_text_is_clean_and_a_number_is_whole(body: bytes, text: str | None) -> None:
    assert text == text_at(document(body), "/a")


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'{"a": NaN}', b"\xff", b"[" * 30_000, b"1 2"])
def test_what_is_no_json_says_so(body: bytes) -> None:
    with pytest.raises(NotJson):
        document(body)
