"""JSON pointers (RFC 6901): the one value of a JSON text that SSOT names. https://www.rfc-editor.org/rfc/rfc6901"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator

from contracts.text import clean
from contracts.version import INT64_MAX

POINTER_CHARS_MAX = 200
_INDEX = re.compile("0|[1-9][0-9]{0,8}")
_STRAY_TILDE = re.compile("~(?![01])")


def _checked(pointer: str) -> str:
    if not pointer.startswith("/"):
        raise ValueError("a JSON pointer begins with /, as in /event/id")
    if _STRAY_TILDE.search(pointer):
        raise ValueError("in a JSON pointer write ~0 for ~ and ~1 for / within a name")
    if len(pointer) > POINTER_CHARS_MAX:
        raise ValueError(f"a JSON pointer has at most {POINTER_CHARS_MAX} characters")
    return pointer


Pointer = Annotated[str, AfterValidator(_checked)]
"""A JSON pointer to a part of a document, e.g. `/event/id` or `/items/0`."""


def find(value: Any, pointer: str) -> Any:
    """What stands at `pointer` in a decoded JSON value; None where nothing does."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def text_at(value: Any, pointer: str) -> str | None:
    """The text or whole number at `pointer`, as clean text; None where there is none, or an empty one."""
    found = find(value, pointer)
    if isinstance(found, str):
        return clean(found) or None
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) <= INT64_MAX:
        return str(found)
    return None
