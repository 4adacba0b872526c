"""What a delivery of Supabase's management API means: there is none, as all that a poll finds we say ourselves."""

from __future__ import annotations

from contracts.delivery import Delivery
from contracts.envelope import Event
from providers.port import Ignored, Source


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """Raises Ignored."""
    raise Ignored("no_such_kind")
