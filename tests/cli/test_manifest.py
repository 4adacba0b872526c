"""What a backup says of itself is looked at before anything is done by it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli import manifest
from runtime import streams
from runtime.bundle import BadBundle, Reading

SUM = {"bytes": 1, "sha256": "00"}
STATE = {"messages": 1, "bytes": 1, "last_seq": 1}


def said(**more: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "id": "an id",
        "made_at": "2026-11-22T12:00:00+00:00",
        "migration": "0019",
        "projected_upto": 0,
        "streams": [stream(streams.DELIVERIES)],
        "tables": [table("ops", "builds")],
        "parts": {"s": SUM, "t": SUM},
        **more,
    }


def stream(name: str, **more: Any) -> dict[str, Any]:
    return {"part": "s", "config": {"name": name, "subjects": []}, "state": STATE, **more}


def table(schema: str, name: str, **more: Any) -> dict[str, Any]:
    return {"part": "t", "schema": schema, "name": name, "columns": ["ref"], "rows": 1, **more}


def read(found: dict[str, Any]) -> Reading:
    return cast(Reading, SimpleNamespace(path=Path("b.tar"), manifest=found))


def test_what_a_backup_writes_is_taken() -> None:
    manifest.require_whole(read(said()))
    manifest.require_ours(read(said()))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"id": None}, "id: Input should be a valid string"),
        ({"projected_upto": -1}, "projected_upto: Input should be greater than or equal to 0"),
        ({"streams": []}, "streams: no DELIVERIES"),
        ({"streams": [stream("DELIVERIES", state={})]}, "streams.0.state.messages: Field required"),
        ({"tables": [table("ops", "builds", rows="many")]}, "tables.0.rows: Input should be a valid integer"),
        ({"tables": [table("ops", "builds", part="other")]}, "parts: no sum of 'other'"),
    ],
)
def test_a_field_that_is_wrong_is_named(more: dict[str, Any], why: str) -> None:
    with pytest.raises(BadBundle) as error:
        manifest.require_whole(read(said(**more)))
    assert f"b.tar is no backup of ours: manifest.json: {why}" == str(error.value)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"streams": [stream("DELIVERIES"), stream("OTHERS")]}, "'OTHERS' is none of ours"),
        ({"tables": [table("public", "alembic_version")]}, "'public.alembic_version' is none of ours"),
    ],
)
def test_what_is_not_ours_is_not_touched(more: dict[str, Any], why: str) -> None:
    manifest.require_whole(read(said(**more)))
    with pytest.raises(BadBundle, match=why):
        manifest.require_ours(read(said(**more)))


def test_what_a_backup_may_hold_is_all_that_we_have() -> None:
    assert {config.name for config in streams.stream_configs(1)} == set(manifest.OURS)
