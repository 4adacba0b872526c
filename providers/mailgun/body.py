"""How a Mailgun body carries an event: as JSON, or as the form that webhooks of before 2018 send."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from contracts.text import clean

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
FORM_FIELDS_MAX = 500
"""Some 30 fields are Mailgun's, the others variables that the sender of the mail made up."""

Form = Mapping[str, list[str]]
"""The values of each field, in the order in which they came."""


class MalformedForm(ValueError):
    """the body is not a form of UTF-8 text"""


def form_of(body: bytes) -> Form:
    """The fields of a form-encoded body, cleaned; raises MalformedForm."""
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FORM_FIELDS_MAX,
        )
    except ValueError:
        raise MalformedForm("the body is not a form of UTF-8 text") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(clean(name), []).append(clean(value))
    return fields
