"""The shapes of the YAML files under ssot/."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderFile(_Strict):
    """ssot/providers/<name>.yaml: a sender that we take deliveries from."""

    name: str
    endpoint: str
    secrets: list[str] = Field(default=[], description="names of environment variables, never values")
    unsigned: bool = False
    """True only where the sender cannot sign at all; everybody can then write into the log."""
    events: list[str] = []
    feeds: list[str] = []
