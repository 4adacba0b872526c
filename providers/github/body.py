"""How a GitHub body carries its JSON: as it is, or in the one field of a form, as the hook is set."""

from __future__ import annotations

from urllib.parse import parse_qsl

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
FORM_FIELD = "payload"
FORM_FIELDS_MAX = 8
"""GitHub sends one field; a form with thousands is not worth reading."""


class MalformedForm(ValueError):
    """the body is not a form with exactly one field named payload"""


def form_payload(body: bytes) -> bytes:
    """The JSON text in a form-encoded body; raises MalformedForm."""
    try:
        fields = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FORM_FIELDS_MAX,
        )
    except ValueError:
        raise MalformedForm("the body is not a form of UTF-8 text") from None
    payloads = [value for name, value in fields if name == FORM_FIELD]
    if len(payloads) != 1:
        raise MalformedForm(f"the form has {len(payloads)} fields named {FORM_FIELD} instead of one")
    return payloads[0].encode()
