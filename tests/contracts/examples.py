"""The committed examples: messages as version 1 published them, which must decode for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import contracts
from contracts.envelope import Event
from contracts.registry import decode

FOLDER = Path(contracts.__file__).parent
EXAMPLES = sorted((FOLDER / "examples").glob("*.json"))
IDS: dict[str, str] = json.loads(Path(__file__).with_name("ids.json").read_bytes())

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def type_of(path: Path) -> str:
    """The event type of an example: `build.finished.json`, a later one `build.finished.2.json`."""
    return ".".join(path.name.split(".")[:2])


def stated(path: Path) -> dict[str, Any]:
    """The fields of an example, as they are written."""
    fields: dict[str, Any] = json.loads(path.read_bytes())
    return fields


def event_of(path: Path) -> Event:
    """An example as an event."""
    return decode(type_of(path), path.read_bytes())
