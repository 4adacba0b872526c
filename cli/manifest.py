"""What `manifest.json` of a backup has to say before anything is done by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from runtime import bundle, dump, streams
from runtime.bundle import BadBundle, Reading

OURS = (
    streams.DELIVERIES,
    streams.EVENTS,
    streams.BODIES_STREAM,
    streams.ARTIFACTS_STREAM,
    streams.POLLER_STREAM,
)


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True)


class _Part(_Shape):
    bytes: NonNegativeInt
    sha256: str


class _Config(_Shape):
    name: str


class _State(_Shape):
    messages: NonNegativeInt
    bytes: NonNegativeInt
    last_seq: NonNegativeInt


class _Stream(_Shape):
    part: str
    config: _Config
    state: _State


class _Table(_Shape):
    part: str
    schema_: str = Field(alias="schema")
    name: str
    columns: list[str]
    rows: NonNegativeInt


class _Manifest(_Shape):
    id: str
    made_at: str
    migration: str
    projected_upto: NonNegativeInt
    streams: list[_Stream]
    tables: list[_Table]
    parts: dict[str, _Part]


def require_whole(found: Reading) -> None:
    """Raises BadBundle where a field is missing or is another thing, or a part has no sum."""
    try:
        said = _Manifest.model_validate(found.manifest)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(each) for each in first["loc"])
        raise _bad(found, f"{where}: {first['msg']}") from None
    named = [each.part for each in said.streams] + [each.part for each in said.tables]
    if bare := [part for part in named if part not in said.parts]:
        raise _bad(found, f"parts: no sum of {bare[0]!r}")
    if streams.DELIVERIES not in {each.config.name for each in said.streams}:
        raise _bad(found, f"streams: no {streams.DELIVERIES}")


def require_ours(found: Reading) -> None:
    """Raises BadBundle where the backup, of a version that this one knows, holds a stream or a table of others."""
    for entry in found.manifest["streams"]:
        if entry["config"]["name"] not in OURS:
            raise _bad(found, f"streams: {entry['config']['name']!r} is none of ours")
    for entry in found.manifest["tables"]:
        if entry["schema"] not in dump.SCHEMAS:
            raise _bad(found, f"tables: {_full_name(entry)!r} is none of ours")


def _full_name(entry: Mapping[str, Any]) -> str:
    return f"{entry['schema']}.{entry['name']}"


def _bad(found: Reading, why: str) -> BadBundle:
    return BadBundle(f"{found.path} is no backup of ours: {bundle.MANIFEST}: {why}")
