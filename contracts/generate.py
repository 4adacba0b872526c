"""Writes what is generated from the event classes: `python -m contracts.generate`, with `--check` only looks.

One JSON Schema per event type in schemas/, and asyncapi.yaml, which is JSON: every JSON text is YAML too.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from contracts import asyncapi, envelope
from contracts.envelope import Event
from contracts.registry import EVENTS

FOLDER = Path(__file__).parent
SCHEMAS = "schemas"
ASYNCAPI = "asyncapi.yaml"


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with `--check` name those that are stale: 1 if there are any."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m contracts.generate [--check]\n")
        return 2
    stale = stale_in(FOLDER)
    if arguments:
        for name in stale:
            sys.stderr.write(f"contracts/{name} is stale: run `python -m contracts.generate`\n")
        return 1 if stale else 0
    write(FOLDER)
    return 0


def files() -> dict[str, str]:
    """Every generated file: its path within contracts/, and its text."""
    schemas = {f"{SCHEMAS}/{name}.json": schema_of(event) for name, event in EVENTS.items()}
    generated = {**schemas, ASYNCAPI: asyncapi.document()}
    return {
        name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in generated.items()
    }


def stale_in(folder: Path) -> list[str]:
    """The files below `folder` that are missing, differ, or are there for no event type."""
    wanted = files()
    found = {f"{SCHEMAS}/{path.name}" for path in (folder / SCHEMAS).glob("*.json")}
    differing = {name for name, text in wanted.items() if _read(folder / name) != text}
    return sorted(differing | (found - wanted.keys()))


def write(folder: Path) -> None:
    """Make the files below `folder` what they have to be."""
    wanted = files()
    for name in stale_in(folder):
        path = folder / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], encoding="utf-8", newline="\n")
        else:
            path.unlink()


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


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
