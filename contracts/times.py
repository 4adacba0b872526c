"""Times as senders write them: ISO 8601 text, or seconds or milliseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, TypeAdapter, ValidationError

Unit = Literal["iso", "s", "ms"]
"""How a time is written. It is said, never guessed: the same number is a time in either unit."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEPS = {"s": timedelta(seconds=1), "ms": timedelta(milliseconds=1)}
_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][ -~]{1,40}")
_AWARE = TypeAdapter(AwareDatetime)


def instant(value: object, unit: Unit) -> datetime | None:
    """The time that a decoded JSON value or a header text states; None where it states none, or no zone."""
    if unit == "iso":
        return _from_iso(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return None
        value = float(value) if "." in value else int(value)
    try:
        return _EPOCH + value * _STEPS[unit]
    except (OverflowError, ValueError):
        return None


def _from_iso(value: object) -> datetime | None:
    # The parser behind takes numbers in text as well, and guesses their unit.
    if not isinstance(value, str) or not _ISO.fullmatch(value):
        return None
    try:
        return _AWARE.validate_python(value)
    except ValidationError:
        return None
