"""Figures of a project: its disk, and the requests of the last hour."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

from contracts.health import MetricRecorded
from providers.polling import Ask, Look, Say, Step, ask
from providers.supabase_management.payloads import Disk, Usage, parsed
from providers.supabase_management.target import Target

APIS = ("auth", "realtime", "rest", "storage")


def disk(look: Look, target: Target, before: Mapping[str, Any]) -> Generator[Step, Any, Mapping[str, Any]]:
    """How full the disk is."""
    reply = yield from ask(Ask(path=f"{target.path}/config/disk/util"))
    shown = parsed(Disk, reply)
    used, size = shown.metrics.fs_used_bytes, shown.metrics.fs_size_bytes
    yield _say(look, target, shown.timestamp, "filesystem_used_percent", round(100 * used / size, 2), "%")
    yield _say(look, target, shown.timestamp, "filesystem_used_bytes", used, "bytes")
    return {}


def requests(
    look: Look, target: Target, before: Mapping[str, Any]
) -> Generator[Step, Any, Mapping[str, Any]]:
    """How many requests each of its APIs had in the last hour."""
    path = f"{target.path}/analytics/endpoints/usage.api-counts"
    reply = yield from ask(Ask(path=path, params={"interval": "1hr"}))
    buckets = parsed(Usage, reply).result
    for api in APIS:
        count = sum(getattr(bucket, f"total_{api}_requests") for bucket in buckets)
        yield _say(look, target, reply.fetched_at, f"{api}_requests_per_hour", count, "requests")
    return {}


def _say(look: Look, target: Target, at: datetime, metric: str, value: float, unit: str) -> Say:
    return Say(
        MetricRecorded(
            source=look.source.name,
            occurred_at=at,
            env=target.env,
            ref=target.name,
            metric=metric,
            value=value,
            unit=unit,
        )
    )
