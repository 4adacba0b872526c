"""Webhooks of ours at their provider, as its API shows them: one that is off is silent, and that looks like peace."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from contracts.envelope import Level
from contracts.own import OwnEvent, Sentence

ASKED_MAX = 500
"""Deliveries in one event: it has to stay far below the largest."""


class WebhookFailing(OwnEvent):
    """A webhook of ours is switched off, missing, or does not send what we subscribe to. `ref`: `github:hook/<id>`."""

    type: ClassVar[str] = "webhook.failing"
    service: ClassVar[str] = "platform"

    ref: str = Field(min_length=1)
    """The webhook."""
    scope: str
    """Where it belongs to, as polls call it: `repos/<org>/<repo>`."""
    problem: Sentence
    """What is wrong and what to do about it."""

    def named(self) -> str:
        return self.ref

    def told(self) -> str:
        return self.problem

    @property
    def level(self) -> Level:
        return "error"

    @property
    def summary(self) -> str:
        return f"{self.source}, webhook of {self.scope}: {self.problem}"


class RedeliveryAsked(OwnEvent):
    """We asked a provider to send again what it could not deliver. `ref` is the webhook."""

    type: ClassVar[str] = "webhook.redelivery_asked"
    service: ClassVar[str] = "platform"

    ref: str = Field(min_length=1)
    """The webhook."""
    scope: str
    """Where it belongs to, as polls call it."""
    deliveries: list[str] = Field(max_length=ASKED_MAX)
    """The provider's ids of the deliveries, as the ledger calls them by identity."""

    def named(self) -> str:
        return self.ref

    def told(self) -> str:
        return self.deliveries[0] if self.deliveries else ""

    @property
    def summary(self) -> str:
        return f"{self.source}, webhook of {self.scope}: asked again for {len(self.deliveries)} deliveries"


class WebhookMended(OwnEvent):
    """A webhook of ours that was failing is as it should be."""

    type: ClassVar[str] = "webhook.mended"
    service: ClassVar[str] = "platform"

    ref: str = Field(min_length=1)
    """The webhook."""
    scope: str
    """Where it belongs to, as polls call it."""

    def named(self) -> str:
        return self.ref

    @property
    def summary(self) -> str:
        return f"{self.source}, webhook of {self.scope}: works again"
