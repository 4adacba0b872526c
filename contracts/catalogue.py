"""The catalogues of SSOT as events: what is declared there, and what was observed of it.

An entry's declaration is as old as the apply that made it, so that a value may be gone back to. What is observed is
said by other events, about other columns: no declaration overwrites it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeVar

from contracts.envelope import Event, Level
from contracts.own import SOURCE
from contracts.ssot import CapabilityFields, IntegrationFields, Maturity, Ssot, StarterFields
from contracts.version import Int64, moment

Kind = Literal["integration", "capability", "starter"]
ObservedStatus = Literal["active", "inactive", "error", "setup_required", "unknown"]
Evidence = dict[str, bool | Int64 | str | None]

_LEVELS: dict[str, Level] = {"error": "error", "setup_required": "warn", "unknown": "warn"}


def scope_of(kind: Kind) -> str:
    """The scope of the listing that says which entries of a kind SSOT has."""
    return f"ssot/{kind}"


def integration_ref(key: str) -> str:
    """The ref of an integration."""
    return f"{SOURCE}:integration/{key}"


def capability_ref(key: str) -> str:
    """The ref of a capability."""
    return f"{SOURCE}:capability/{key}"


def starter_ref(source: str, slug: str) -> str:
    """The ref of a starter."""
    return f"{SOURCE}:starter/{source}/{slug}"


class IntegrationEvent(Event):
    """One integration of the catalogue. `ref` is it: `odooops:integration/<key>`."""

    service: ClassVar[str] = "platform"

    key: str


class IntegrationDeclared(IntegrationFields, IntegrationEvent):
    """SSOT says what an integration is, and how it is meant to be installed."""

    type: ClassVar[str] = "integration.declared"

    @property
    def summary(self) -> str:
        return f"integration {self.key}: declared, {self.installed or 'not installed'}"


class IntegrationObserved(IntegrationEvent):
    """Somebody looked at an installation: `occurred_at` is when."""

    type: ClassVar[str] = "integration.observed"

    status: ObservedStatus
    provider_status: str | None = None
    """What its provider calls the status."""
    evidence: Evidence = {}
    """What the status was read off."""

    @property
    def level(self) -> Level:
        return _LEVELS.get(self.status, "info")

    @property
    def summary(self) -> str:
        return f"integration {self.key}: observed as {self.status}"


class CapabilityEvent(Event):
    """One capability of the platform. `ref` is it: `odooops:capability/<key>`."""

    service: ClassVar[str] = "platform"

    key: str


class CapabilityDeclared(CapabilityFields, CapabilityEvent):
    """SSOT says what a capability is and how mature it is meant to be."""

    type: ClassVar[str] = "capability.declared"

    @property
    def summary(self) -> str:
        return f"capability {self.key}: declared, {self.maturity}"


class CapabilityObserved(CapabilityEvent):
    """Somebody looked how mature a capability really is: `occurred_at` is when."""

    type: ClassVar[str] = "capability.observed"

    maturity: Maturity
    evidence: Evidence = {}
    """What the maturity was read off."""

    @property
    def summary(self) -> str:
        return f"capability {self.key}: observed as {self.maturity}"


class StarterEvent(Event):
    """One template that a project can begin with. `ref` is it: `odooops:starter/<source>/<slug>`."""

    service: ClassVar[str] = "platform"

    starter_source: str
    """The collection that it comes from: `vercel_examples`."""
    slug: str


class StarterDeclared(StarterFields, StarterEvent):
    """SSOT says what a starter is."""

    type: ClassVar[str] = "starter.declared"

    @property
    def summary(self) -> str:
        return f"starter {self.starter_source}/{self.slug}: declared"


class StarterObserved(StarterEvent):
    """Somebody looked for a starter in its collection: `occurred_at` is when."""

    type: ClassVar[str] = "starter.observed"

    available: bool
    """Whether it was there."""
    content_sha256: str | None = None
    """Hash of its description as found; another one says that it was changed there."""

    @property
    def level(self) -> Level:
        return "info" if self.available else "warn"

    @property
    def summary(self) -> str:
        return f"starter {self.starter_source}/{self.slug}: {'found' if self.available else 'not found'}"


Declaration = IntegrationDeclared | CapabilityDeclared | StarterDeclared
Declared = TypeVar("Declared", IntegrationDeclared, CapabilityDeclared, StarterDeclared)


def declarations(ssot: Ssot, at: datetime) -> dict[Kind, list[Declaration]]:
    """What the catalogues of `ssot` declare, applied at `at`; a kind of which SSOT says nothing is left out."""
    found: dict[Kind, list[Declaration]] = {}
    if ssot.integrations is not None:
        found["integration"] = [
            _declared(IntegrationDeclared, integration_ref(key), at, entry, key=key)
            for key, entry in ssot.integrations.items()
        ]
    if ssot.capabilities is not None:
        found["capability"] = [
            _declared(CapabilityDeclared, capability_ref(key), at, entry, key=key)
            for key, entry in ssot.capabilities.items()
        ]
    if ssot.starters is not None:
        found["starter"] = [
            _declared(StarterDeclared, starter_ref(source, slug), at, entry, starter_source=source, slug=slug)
            for source, slugs in ssot.starters.items()
            for slug, entry in slugs.items()
        ]
    return found


def _declared(
    event: type[Declared], ref: str, at: datetime, entry: Iterable[tuple[str, Any]], **key: str
) -> Declared:
    """An entry, which iterates over its fields, as the event that declares it."""
    return event.model_validate(
        {
            **dict(entry),
            **key,
            "source": SOURCE,
            "ref": ref,
            "moment": moment(at, 0),
            "occurred_at": at,
        }
    )
