"""What a delivery from Slack means: nothing yet. Each kind is stored, and set aside by a name of its own."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.delivery import Delivery
from contracts.envelope import Event
from providers.port import Ignored, Source
from providers.slack.body import COMMAND, EVENT, INTERACTION, SSL_CHECK, URL_VERIFICATION

REASONS: Mapping[str, str] = {
    COMMAND: "commands_do_nothing_yet",
    INTERACTION: "interactions_do_nothing_yet",
    EVENT: "slack_events_do_nothing_yet",
    URL_VERIFICATION: "endpoint_verified",
    SSL_CHECK: "certificate_checked",
    "app_rate_limited": "events_withheld_by_slack",
}


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """Raises Ignored, with the reason by which what will be understood later can be found and replayed."""
    raise Ignored(REASONS.get(delivery.kind.partition(".")[0], "no_such_event"))
