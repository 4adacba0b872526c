"""Whatever bytes a sender gives: clean values that can be stored, or NotJson. Never a crash."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from contracts import text
from contracts.text import NotJson, clean, clean_value, decode, parse, require_object
from contracts.version import Int64


class Payload(BaseModel):
    """The kinds of fields that payloads have."""

    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    number: Int64 | None = None
    flag: bool | None = None
    ratio: float | None = None
    tags: list[str] | None = None
    anything: Any = None
    inner: Payload | None = None


anything = st.text(st.characters(exclude_categories=()))
json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), anything
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(anything, inner, max_size=4)),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(anything, json_values),
        "number": st.one_of(st.integers(), json_values),
        "flag": json_values,
        "ratio": st.one_of(st.floats(allow_nan=False, allow_infinity=False), json_values),
        "tags": st.one_of(st.lists(anything, max_size=3), json_values),
        "anything": json_values,
        "inner": st.fixed_dictionaries({"name": anything, "anything": json_values}),
        "unknown": json_values,
    },
)


def outcome(read: Any, *given: Any) -> Any:
    """What came of reading: the value, or the kind of refusal."""
    try:
        return read(*given)
    except ValidationError as error:
        return {problem["loc"] for problem in error.errors()}
    except NotJson:
        return NotJson


def slowly(body: bytes) -> Payload:
    """What `parse` does where the fast parser will not do."""
    return Payload.model_validate(decode(body))


def strings(value: Any) -> Iterator[str]:
    """Every text in a decoded value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from chain.from_iterable(map(strings, value))
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(strings, (*value, *value.values())))


def is_clean(value: Any) -> bool:
    """Whether Postgres would store every text in `value`."""
    return not any(re.search("[\x00\ud800-\udfff]", each) for each in strings(value))


@given(anything)
def test_clean_text_has_no_nul_and_no_lone_surrogate_and_is_as_long(given: str) -> None:
    cleaned = clean(given)
    assert "\x00" not in cleaned
    assert cleaned == cleaned.encode().decode()
    assert len(given) == len(cleaned)


@given(anything)
def test_cleaning_twice_is_cleaning_once(given: str) -> None:
    assert clean(given) == clean(clean(given))


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_text_that_can_be_stored_is_not_touched(given: str) -> None:
    assert given == clean(given)


@given(json_values)
def test_a_decoded_value_is_clean_to_the_last_key(given: Any) -> None:
    for ascii_only in (True, False):
        body = json.dumps(given, ensure_ascii=ascii_only).encode(errors="surrogatepass")
        assert clean_value(json.loads(body)) == decode(body)
        assert is_clean(decode(body))


@given(given=fields, ascii_only=st.booleans())
@example(given={"name": "\ud800", "anything": {"\x00": ["\udc00"]}}, ascii_only=True)
@example(given={"name": "NaN Infinity \\u0000"}, ascii_only=True)
@example(given={"anything": "\ud83d\ude00"}, ascii_only=True)
def test_the_fast_way_and_the_slow_way_agree(given: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps(given, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    fast = outcome(parse, Payload, body)
    assert outcome(slowly, body) == fast
    if isinstance(fast, Payload):
        assert is_clean(fast.model_dump())


@pytest.mark.parametrize("number", ["1.0", "1e2", "1.5", "1e999", "-1e999", "-0", "-0.0", "1E5", "1e-400"])
@pytest.mark.parametrize("field", ["number", "ratio", "anything", "flag", "name"])
def test_both_ways_read_a_number_alike(field: str, number: str) -> None:
    body = f'{{"{field}": {number}}}'.encode()
    assert repr(outcome(slowly, body)) == repr(outcome(parse, Payload, body))


@given(st.binary(max_size=30))
@example(b'"\xed\xa0\x80"')
@example(b'{"name": "\xff"}')
def test_any_bytes_are_read_alike_or_refused_alike(body: bytes) -> None:
    assert outcome(slowly, body) == outcome(parse, Payload, body)
    assert outcome(require_object, body) in (None, NotJson)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4))
def test_an_object_is_an_object_whatever_is_in_it(given: dict[str, Any]) -> None:
    require_object(json.dumps(given).encode())


@given(json_values.filter(lambda value: not isinstance(value, dict)))
def test_what_is_no_object_is_refused(given: Any) -> None:
    with pytest.raises(NotJson, match="not an object"):
        require_object(json.dumps(given).encode())


REFUSED = {
    "empty": b"",
    "blank": b" \n",
    "a word": b"hello",
    "cut off": b'{"name": "a',
    "two texts": b"{} {}",
    "a comma too many": b'{"name": 1,}',
    "single quotes": b"{'name': 1}",
    "NaN": b'{"ratio": NaN}',
    "Infinity": b'{"ratio": Infinity}',
    "-Infinity": b'{"anything": [-Infinity]}',
    "NaN in a field that nobody reads": b'{"unknown": NaN}',
    "invalid UTF-8": b'{"name": "\xff"}',
    "UTF-8 cut off": b'{"name": "\xe2\x82"}',
    "overlong UTF-8": b'{"name": "\xc0\xa0"}',
    "a raw NUL": b'{"name": "\x00"}',
    "a raw line end": b'{"name": "a\nb"}',
    "too many digits": b'{"number": ' + b"1" * 5000 + b"}",
    "too deep": b'{"anything": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "too deep and cut off": b'{"anything": ' * 100_000,
    "too deep where nobody looks": b'{"unknown": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_json_is_refused_by_every_reader(body: bytes) -> None:
    for read in (decode, require_object, lambda body: parse(Payload, body)):
        with pytest.raises(NotJson):
            read(body)


def test_a_refusal_does_not_show_what_was_sent() -> None:
    for body in (b"hunter2", b'{"hunter2": hunter2}', b'{"name": "hunter2\xff"}', b'["hunter2", NaN]'):
        with pytest.raises(NotJson) as refused:
            require_object(body)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("depth", [1, 100, 190])
def test_what_is_nested_as_people_nest_is_read(depth: int) -> None:
    body = b'{"name": "a", "anything": ' + b"[" * depth + b"]" * depth + b"}"
    assert "a" == parse(Payload, body).name
    require_object(body)


@pytest.mark.parametrize("digits", [20, 400, 4000])
def test_a_huge_integer_is_json_and_no_int64(digits: int) -> None:
    body = b'{"number": ' + b"9" * digits + b"}"
    assert int("9" * digits) == decode(body)["number"]
    require_object(body)
    with pytest.raises(ValidationError, match="number"):
        parse(Payload, body)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**53 + 1])
def test_an_int64_keeps_every_digit(number: int) -> None:
    assert number == parse(Payload, b'{"number": %d}' % number).number


@pytest.mark.parametrize("others", [0, 50])
@pytest.mark.parametrize("slow", [b"", b', "unknown": "\\u0000"'], ids=["fast", "slow"])
def test_of_equal_keys_the_last_counts(others: int, slow: bytes) -> None:
    filler = b"".join(b'"k%d": 0, ' % n for n in range(others))
    body = b"{" + filler + b'"name": "first", "number": 1, "name": "last"' + slow + b"}"
    assert "last" == parse(Payload, body).name == slowly(body).name


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a\ufffdb", b"a\\u0000b"),
        ("\ufffd", b"\\ud800"),
        ("\ufffd", b"\\udfff"),
        ("\ufffd\ufffd", b"\\ude00\\ud83d"),
        ("\ufffdx", b"\\ud800x"),
        ("\U0001f600", b"\\ud83d\\ude00"),
        ("\\u0000", b"\\\\u0000"),
        ("NaN", b"NaN"),
        ("größe", b"gr\xc3\xb6\xc3\x9fe"),
    ],
)
def test_only_what_cannot_be_stored_is_replaced(name: str, written: bytes) -> None:
    assert name == parse(Payload, b'{"name": "' + written + b'"}').name


def test_a_byte_order_mark_is_passed_over() -> None:
    body = b"\xef\xbb\xbf" + b'{"name": "a"}'
    assert "a" == parse(Payload, body).name == decode(body)["name"]
    require_object(body)


def test_the_shape_is_judged_once_where_the_fast_parser_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "decode", None)
    with pytest.raises(ValidationError, match="number"):
        parse(Payload, b'{"number": "one"}')


WORDS = st.lists(
    st.sampled_from(["\\\\", "\\u0000", "u0000", "x", "\\n", "NaN", '\\"', "-Infinity"]), max_size=6
)


@given(WORDS)
def test_the_fast_parser_says_what_the_slow_one_says(words: list[str]) -> None:
    body = f'{{"text": "{"".join(words)}"}}'.encode()

    assert parse(Text, body).text == decode(body)["text"]


@pytest.mark.parametrize("body", [b'{"text": "a", "n": NaN}', b'{"n": -Infinity, "text": "NaN"}'])
def test_what_is_no_number_is_refused_though_words_of_that_name_are_not(body: bytes) -> None:
    with pytest.raises(NotJson):
        parse(Text, body)


class Text(BaseModel):
    text: str
