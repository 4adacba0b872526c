"""Checks of whether things answer, and figures measured of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat

from contracts.envelope import Level
from contracts.own import OwnEvent, Sentence, Slug, Vocabulary, own_ref, vocabulary

HealthStatus = Literal["ok", "degraded", "failing", "unknown"]

TARGET_CHARS_MAX = 500

_LEVELS: Mapping[str, Level] = {"degraded": "warn", "failing": "error", "unknown": "warn"}


class HealthcheckCompleted(OwnEvent):
    """A check was made. `ref` is what is checked: `odooops:healthcheck/<env>/<check>/<target>`."""

    type: ClassVar[str] = "healthcheck.completed"
    service: ClassVar[str] = "runtime"
    words: ClassVar[Mapping[str, Vocabulary]] = {
        "status": vocabulary(
            HealthStatus,
            {
                "healthy": "ok",
                "up": "ok",
                "pass": "ok",
                "passed": "ok",
                "success": "ok",
                "warn": "degraded",
                "warning": "degraded",
                "slow": "degraded",
                "down": "failing",
                "unhealthy": "failing",
                "fail": "failing",
                "failed": "failing",
                "error": "failing",
                "timeout": "failing",
            },
        )
    }

    target: str = Field(min_length=1, max_length=TARGET_CHARS_MAX)
    """What was asked: a host, a URL without credentials, a ref."""
    check_name: Slug
    """`http`, `database`, `cron`."""
    status: HealthStatus
    stated_status: str | None = None
    """The check's own word."""
    latency_ms: Annotated[FiniteFloat, Field(ge=0)] | None = None
    detail: Sentence | None = None

    def named(self) -> str:
        return own_ref("healthcheck", self.env or "unknown", self.check_name, self.target)

    def told(self) -> str:
        return self.status

    @property
    def level(self) -> Level:
        return _LEVELS.get(self.status, "info")

    @property
    def summary(self) -> str:
        return f"{self.check_name} of {self.target}: {self.status}"


class MetricRecorded(OwnEvent):
    """A figure was measured. `ref` is the thing that it is a figure of, which whoever measures has to name."""

    type: ClassVar[str] = "metric.recorded"
    service: ClassVar[str] = "runtime"

    ref: str = Field(min_length=1)
    """The thing measured: `digitalocean:droplet/123`."""
    metric: Slug
    """`disk_used_percent`."""
    value: FiniteFloat
    unit: str | None = None

    def named(self) -> str:
        return self.ref

    def told(self) -> str:
        return self.metric

    @property
    def summary(self) -> str:
        return f"{self.ref}: {self.metric} {self.value:g}{f' {self.unit}' if self.unit else ''}"
