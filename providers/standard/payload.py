"""The few fields that Standard Webhooks proposes for a body. It promises none: a body may be anything."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.text import NotJson, OrNothing, parse


class Payload(BaseModel):
    """A body `{type, timestamp, data}`, as far as it is one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Annotated[str | None, OrNothing] = None
    timestamp: Annotated[str | None, OrNothing] = None
    """When it happened; the time in the headers is that of the attempt to tell."""


def payload_of(body: bytes) -> Payload:
    """What a body says in those fields: nothing, where it is no JSON object."""
    try:
        return parse(Payload, body)
    except (NotJson, ValidationError):
        return Payload()
