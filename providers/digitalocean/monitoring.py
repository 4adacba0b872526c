"""How DigitalOcean's droplets and database clusters fare: health by their status, figures by the metrics agent."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from datetime import datetime, timedelta
from typing import Any

from contracts.envelope import Env
from contracts.health import HealthcheckCompleted, HealthStatus, MetricRecorded
from contracts.version import from_micros
from providers.digitalocean.items import DROPLETS, GPU_DROPLETS
from providers.digitalocean.listings import FOLLOWING, LISTINGS, content, things
from providers.digitalocean.payloads import Database, Droplet, Observed
from providers.paging import pages
from providers.polling import Ask, Failed, Keep, Look, Reply, Say, Step, Steps, Warn, ask

HEALTH: Mapping[str, HealthStatus] = {
    "active": "ok",
    "online": "ok",
    "new": "degraded",
    "creating": "degraded",
    "resizing": "degraded",
    "migrating": "degraded",
    "forking": "degraded",
    "degraded": "degraded",
    "off": "failing",
    "archive": "failing",
    "error": "failing",
}
"""What a status says of a droplet's or a cluster's health. Off is failing, by whomever it was switched off: it
answers nobody. A word that is not here is unknown."""
REMEMBERED_MAX = 500
"""Things of a kind whose health is said to be unknown when it could not be asked for."""
MEASURED_MAX = 100
"""Droplets whose figures are asked for, with 5 requests each; 250 a minute are allowed."""
WINDOW_S = 600
"""How old a figure may be: the agent measures every minute or two."""
ROOT = "/"
"""The filesystem that is reported: others may be images that are full by their nature."""


def droplets(look: Look) -> Steps:
    """The health of each droplet, then the figures of those that run."""
    found = yield from _listed(look, "droplet", Observed[Droplet], DROPLETS, GPU_DROPLETS)
    running = [(ref, env) for ref, (status, env) in sorted(found.items()) if status == "active"]
    if len(running) > MEASURED_MAX:
        yield Warn("many_droplets", f"{len(running)} droplets run, {MEASURED_MAX} of them are measured")
    for ref, env in running[:MEASURED_MAX]:
        yield from _measured(look, ref, env)


def databases(look: Look) -> Steps:
    """The health of each database cluster."""
    yield from _listed(look, "database", Observed[Database], "databases")


def _listed(
    look: Look, check_name: str, shape: type[Observed[Any]], *kinds: str
) -> Generator[Step, Any, dict[str, tuple[str, Env]]]:
    """Say the health of all things of some listings; their status and environment by ref.

    Kept: what there was, and its environment. Where it cannot be listed its health is unknown.
    """
    found: dict[str, tuple[str, Env]] = {}
    try:
        for kind in kinds:
            for reply in (yield from pages(LISTINGS[kind], FOLLOWING)):
                for item in things(kind, kind, reply):
                    thing = content(shape, item)
                    env = look.source.environments.of(source=look.source.name, tag=thing.tags)
                    if item.ref not in found:
                        yield _health(look, check_name, item.ref, env, thing.status, reply.fetched_at)
                    found[item.ref] = thing.status, env
    except Failed:
        for ref, env in look.state.items():
            if ref not in found:
                yield _health(look, check_name, ref, env, None, look.started_at)
        raise
    yield Keep({ref: env for ref, (_, env) in sorted(found.items())[-REMEMBERED_MAX:]})
    return found


def _health(look: Look, check_name: str, ref: str, env: Env, status: str | None, at: datetime) -> Say:
    return Say(
        HealthcheckCompleted(
            source=look.source.name,
            occurred_at=at,
            env=env,
            target=ref,
            check_name=check_name,
            status=HEALTH.get(status or "", "unknown"),
            stated_status=status,
            detail=None if status else "it could not be listed",
        )
    )


def _measured(look: Look, ref: str, env: Env) -> Steps:
    """The newest figures of a droplet. One without the metrics agent has none, and none are said."""
    memory = yield from _samples(look, ref, "memory_total")
    if not memory:
        return
    available = yield from _samples(look, ref, "memory_available")
    size = yield from _samples(look, ref, "filesystem_size", ROOT)
    free = yield from _samples(look, ref, "filesystem_free", ROOT)
    load = yield from _samples(look, ref, "load_1")
    for metric, unit, figure in (
        ("memory_used_percent", "%", used_percent(memory, available)),
        ("filesystem_used_percent", "%", used_percent(size, free)),
        ("load_1", None, max(load.items(), default=None)),
    ):
        if figure is not None:
            at, value = figure
            yield Say(
                MetricRecorded(
                    source=look.source.name,
                    occurred_at=from_micros(round(at * 1_000_000)),
                    env=env,
                    ref=ref,
                    metric=metric,
                    value=value,
                    unit=unit,
                )
            )


def used_percent(whole: Mapping[float, float], free: Mapping[float, float]) -> tuple[float, float] | None:
    """How much is used and when, by the newest time at which both were measured; None where there is none."""
    both = [at for at in whole if at in free and whole[at] > 0]
    if not both:
        return None
    at = max(both)
    return at, round(100 * (1 - free[at] / whole[at]), 2)


def _samples(
    look: Look, ref: str, metric: str, mountpoint: str | None = None
) -> Generator[Step, Any, dict[float, float]]:
    """What was measured lately, by epoch seconds. A droplet that is gone by now has nothing."""
    window = {
        "host_id": ref.rpartition("/")[2],
        "start": str(int((look.started_at - timedelta(seconds=WINDOW_S)).timestamp())),
        "end": str(int(look.started_at.timestamp())),
    }
    path = f"/v2/monitoring/metrics/droplet/{metric}"
    reply = yield from ask(Ask(path=path, params=window, also=frozenset({404})))
    return {} if reply.status == 404 else _series(reply, mountpoint)


def _series(reply: Reply, mountpoint: str | None) -> dict[float, float]:
    try:
        results = reply.json()["data"]["result"]
        return {
            float(at): value
            for each in results
            if mountpoint is None or each["metric"].get("mountpoint") == mountpoint
            for at, stated in each["values"]
            if math.isfinite(float(at)) and math.isfinite(value := float(stated))
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Failed("shape_mismatch", "an answer holds no series of figures") from None
