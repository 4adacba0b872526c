"""From bytes to clean text: the one decoder of JSON that a sender gave us.

JSON allows what Postgres refuses: NUL characters and lone surrogates. Both become U+FFFD here, so that
every string past this module can be stored.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import from_json

Model = TypeVar("Model", bound=BaseModel)

REPLACEMENT = "\ufffd"
_REFUSED = re.compile("[\x00\ud800-\udfff]")
_NUL_MARK = b"\\u0000"
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
"""An escaped NUL; after an even number of backslashes `u0000` is text."""
_NAN, _INFINITY = b"NaN", b"Infinity"
"""The fast parser takes these, which are not JSON; inside a text they are words like any other."""


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class NotJson(ValueError):
    """the body is not JSON"""


class _AnyObject(BaseModel):
    """Any JSON object: parsed to the last byte, nothing kept."""

    model_config = ConfigDict(extra="ignore")


def clean(text: str) -> str:
    """`text` with every NUL and lone surrogate replaced by U+FFFD."""
    return _REFUSED.sub(REPLACEMENT, text)


def clean_value(value: Any) -> Any:
    """A decoded JSON value with every string in it, keys included, cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_value(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean_value(item) for key, item in value.items()}
    return value


def parse(model: type[Model], body: bytes) -> Model:
    """`body` as `model`, straight from bytes: only the declared fields become Python objects.

    Raises NotJson where the body is not a JSON text, pydantic's ValidationError where its shape is another.
    """
    fast = _for_the_fast_parser(body)
    if fast is not None:
        try:
            return model.model_validate_json(fast)
        except ValidationError as error:
            if error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid":
                raise
    # The fast parser refuses lone surrogates, which senders may write; the standard library takes them.
    return model.model_validate(decode(body))


def require_object(body: bytes) -> None:
    """Raise NotJson unless `body` is one JSON object; what is in it does not matter."""
    try:
        parse(_AnyObject, body)
    except ValidationError:
        raise NotJson("the body is JSON but not an object") from None


def decode(body: bytes) -> Any:
    """Any JSON text, cleaned. Raises NotJson; NaN and Infinity are not JSON."""
    try:
        return clean_value(json.loads(body, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        raise NotJson(f"the body is not JSON: {error}") from None


def document(body: bytes) -> Any:
    """Any JSON text as Python objects, fast, its strings as they are: clean what is taken out. Raises NotJson."""
    fast = _for_the_fast_parser(body)
    if fast is not None:
        try:
            return _ANYTHING.validate_json(fast)
        except ValidationError:
            pass  # perhaps for a lone surrogate: see parse
    return decode(body)


def _for_the_fast_parser(body: bytes) -> bytes | None:
    """`body` with each escaped NUL replaced, as the fast parser may have it; None where only the slow one may judge."""
    if b"\\" in body and _has(body, _NUL_MARK):
        body = _NUL.sub(rb"\1\\ufffd", body)
    if _has(body, _NAN) or _has(body, _INFINITY):
        try:
            from_json(body, allow_inf_nan=False)
        except ValueError:
            return None
    return body


def _has(body: bytes, mark: bytes) -> bool:
    """Whether `mark` is in `body`, looked for from its end: CPython does that in half the time (measured)."""
    return body.rfind(mark) >= 0


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class OrNothing:
    """Annotates a field that is None where a sender wrote something else than its type, instead of an error."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return {"type": "default", "schema": handler(source), "default": None, "on_error": "default"}


class Presence:
    """Annotates a field that is True where a member is there and not null, without making anything of it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return {"type": "default", "schema": {"type": "none"}, "default": True, "on_error": "default"}
