"""The metrics that the services register."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

SERVICES = ("ingest", "notifier", "poller", "projector")
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


@dataclass(frozen=True)
class Metric:
    """A metric under its name in the exposition; a histogram's without the suffixes of its series."""

    name: str
    type: str
    labels: tuple[str, ...]

    @property
    def series(self) -> set[str]:
        """What queries may name."""
        return {self.name.removesuffix("_total") + suffix for suffix in SUFFIXES[self.type]}


def metrics() -> dict[str, Metric]:
    """All that are ours, by name."""
    for service in SERVICES:
        importlib.import_module(f"services.{service}.app")
    found = {}
    for collector in set(REGISTRY._collector_to_names):
        if isinstance(collector, MetricWrapperBase) and collector._name.startswith("odooops_"):
            kind = str(collector._type)
            name = collector._name + ("_total" if kind == "counter" else "")
            found[name] = Metric(name, kind, tuple(collector._labelnames))
    return found
