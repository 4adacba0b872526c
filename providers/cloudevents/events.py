"""The CloudEvents in a request, by the content mode that its content type names.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from contracts.delivery import media_type
from contracts.external import stable_name
from contracts.text import NotJson, Presence, clean, parse
from contracts.times import instant
from providers.port import problems_of

CONTENT_TYPE = "content-type"
ATTRIBUTE_PREFIX = "ce-"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
OTHER_FORMATS = "application/cloudevents"
SPEC_VERSION = "1.0"
REQUIRED = ("specversion", "id", "source", "type")
ATTRIBUTES = (*REQUIRED, "subject", "time")
"""Those that are looked at. In binary mode there is no datacontenttype: that is the content type itself."""
BATCH_COUNT_MAX = 1_000
"""Events in one batch: one delivery may name as many things, and no more."""

_ESCAPED = re.compile(r"\\(.)")


class BadEvent(ValueError):
    """What is no CloudEvent. `status` is the HTTP answer, `reason` a slug; the sentence names the attribute."""

    def __init__(self, status: int, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason


class Attributes(BaseModel):
    """One event, as far as it is looked at. A null attribute is an absent one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: str | None = None
    id: str | None = None
    source: str | None = None
    type: str | None = None
    subject: str | None = None
    time: str | None = None
    data: Annotated[bool | None, Presence] = Field(default=None, repr=False)
    data_base64: str | None = Field(default=None, repr=False)


class _Batch(RootModel[list[Attributes]]):
    root: Annotated[list[Attributes], Field(max_length=BATCH_COUNT_MAX, fail_fast=True)]


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """A valid event."""

    id: str
    source: str
    type: str
    subject: str | None
    time: datetime | None

    @property
    def name(self) -> str:
        """What it is known by: `source` and `id` together, as text that may be an identity."""
        return stable_name(self.source, self.id)


def is_batch(headers: Mapping[str, str]) -> bool:
    """Whether the body is a batch."""
    return media_type(headers.get(CONTENT_TYPE, "")) == BATCH


def is_in_body(headers: Mapping[str, str]) -> bool:
    """Whether all that is known of the events stands in the body, and nothing in the headers."""
    return media_type(headers.get(CONTENT_TYPE, "")) in (STRUCTURED, BATCH)


def events_of(headers: Mapping[str, str], body: bytes) -> list[CloudEvent]:
    """The events of a request, in order; one, unless it is a batch. Raises BadEvent."""
    kind = media_type(headers.get(CONTENT_TYPE, ""))
    if kind == BATCH:
        batch = _parsed(_Batch, body).root
        return [_valid(event, f" of event {n}") for n, event in enumerate(batch)]
    if kind == STRUCTURED:
        return [_valid(_parsed(Attributes, body))]
    if kind.startswith(OTHER_FORMATS):
        raise BadEvent(415, "unsupported_format", f"Of the formats {STRUCTURED} and {BATCH} are taken.")
    if not any(name.startswith(ATTRIBUTE_PREFIX) for name in headers):
        raise BadEvent(
            415, "no_cloudevent", f"There are neither ce- headers nor the content type {STRUCTURED}."
        )
    return [_valid(_from_headers(headers))]


def _parsed(model: Any, body: bytes) -> Any:
    try:
        return parse(model, body)
    except NotJson as error:
        raise BadEvent(400, "malformed_json", f"The body cannot be read: {error}.") from None
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "too_long":
            raise BadEvent(
                413, "batch_too_long", f"A batch holds at most {BATCH_COUNT_MAX} events."
            ) from None
        raise BadEvent(400, "shape_mismatch", f"This is no CloudEvent: {problems_of(error)}.") from None


def _from_headers(headers: Mapping[str, str]) -> Attributes:
    given = {name: headers.get(ATTRIBUTE_PREFIX + name) for name in ATTRIBUTES}
    return Attributes(**{name: header_text(name, text) for name, text in given.items() if text is not None})


def header_text(name: str, value: str) -> str:
    """An attribute's text as its header encodes it: perhaps quoted, as older senders do; percent-encoded UTF-8."""
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = _ESCAPED.sub(r"\1", value[1:-1])
    try:
        return clean(unquote_to_bytes(value.encode("ascii")).decode())
    except UnicodeError:
        sentence = f"The header {ATTRIBUTE_PREFIX}{name} is not percent-encoded UTF-8."
        raise BadEvent(400, "bad_encoding", sentence) from None


def _valid(event: Attributes, where: str = "") -> CloudEvent:
    for name in REQUIRED:
        if not getattr(event, name):
            raise BadEvent(400, "missing_attribute", f"The attribute {name}{where} is missing.")
    if event.specversion != SPEC_VERSION:
        sentence = f"The attribute specversion{where} has to be {SPEC_VERSION}."
        raise BadEvent(400, "unsupported_specversion", sentence)
    time = None if event.time is None else instant(event.time, "iso")
    if event.time is not None and time is None:
        raise BadEvent(400, "bad_attribute", f"The attribute time{where} is no RFC 3339 time with a zone.")
    if event.data_base64 is not None:
        _require_base64(event, where)
    return CloudEvent(
        # The three are there: see above.
        id=str(event.id),
        source=str(event.source),
        type=str(event.type),
        subject=event.subject,
        time=time,
    )


def _require_base64(event: Attributes, where: str) -> None:
    if event.data is not None:
        raise BadEvent(400, "two_data", f"data and data_base64{where} exclude each other.")
    try:
        b64decode(event.data_base64 or "", validate=True)
    except ValueError:
        raise BadEvent(400, "bad_base64", f"data_base64{where} is not base64.") from None
