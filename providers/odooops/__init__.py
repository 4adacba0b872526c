"""OdooOps itself: gates, jobs, operators and SSOT speak in events. They reach the log by the broker, never by HTTP."""

from typing import Any

from contracts.own import SOURCE
from contracts.ssot import ProviderFile
from providers.odooops.normalize import normalize
from providers.port import Provider


def _problem(file: ProviderFile, _options: Any) -> str | None:
    """An operator's words go by this name alone: under another, whoever stores deliveries could say them."""
    return (
        None if file.name == SOURCE else f"only the source {SOURCE} speaks for OdooOps: name another provider"
    )


PROVIDER = Provider(name="odooops", verify=None, normalize=normalize, compose=None, problem=_problem)
