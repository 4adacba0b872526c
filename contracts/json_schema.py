"""JSON Schemas of events, one per type, for people and tools that do not read Python."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from contracts import envelope
from contracts.envelope import Event


def schema_of(event: type[Event]) -> dict[str, Any]:
    """The JSON Schema of an event's data: what every message of the type holds, whichever release wrote it."""
    schema = event.model_json_schema(schema_generator=_Untitled)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:odooops:event:{event.type}",
        "title": event.__name__,
        "description": _description(event),
        **{key: value for key, value in schema.items() if key not in ("title", "description")},
    }


class _Untitled(GenerateJsonSchema):
    """Without a title per field: it would only repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _description(event: type[Event]) -> str:
    """The docstrings of the event and of its family, which says what `ref` is."""
    documented = [
        each for each in event.__mro__ if issubclass(each, Event) and each.__module__ != envelope.__name__
    ]
    return "\n\n".join(inspect.cleandoc(each.__doc__) for each in documented if each.__doc__)
