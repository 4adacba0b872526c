"""What a delivery from Vercel means: one entry per type of event, and one per kind of thing that a poll shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.observation import observed_kind
from contracts.text import NotJson, parse
from providers.port import Ignored, Source, Unintelligible, problems_of
from providers.vercel import deployments, payloads, targets

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Kind(Generic[P]):
    """The shape of a body, and what such a body means."""

    shape: type[P]
    events: Callable[[P, Delivery, Source], list[Event]]


WEBHOOKS: Mapping[str, Kind[Any]] = {
    "deployment.created": Kind(payloads.DeploymentWebhook, deployments.created),
    **{
        f"deployment.{word}": Kind(payloads.DeploymentWebhook, deployments.changed)
        for word in deployments.TOLD
    },
    "deployment.promoted": Kind(payloads.DeploymentWebhook, targets.promoted),
    "deployment.rollback": Kind(payloads.RollbackWebhook, targets.rolled_back),
}
KINDS: Mapping[str, Kind[Any]] = {
    **WEBHOOKS,
    observed_kind("deployment"): Kind(payloads.ObservedDeployment, deployments.observed),
    observed_kind("project"): Kind(payloads.ObservedProject, targets.observed),
}
OLD_NAMES: Mapping[str, str] = {
    "deployment": "deployment.created",
    "deployment-canceled": "deployment.canceled",
    "deployment-error": "deployment.error",
    "deployment-prepared": "deployment.succeeded",
    "deployment-ready": "deployment.ready",
}
"""Names from before the dots: webhooks that were set up then still use them."""
FAMILIES: Mapping[str, str] = {
    "alerts": "alert_event",
    "deployment": "deployment_check_or_action",
    "domain": "domain_event",
    "firewall": "firewall_event",
    "integration": "integration_event",
    "marketplace": "marketplace_event",
    "observability": "observability_event",
    "project": "project_event",
    "test": "test_webhook",
}
"""Why the other events of a family mean nothing to us, by how their types begin."""
_FIRST_WORD = re.compile("[a-z]*")


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The events of a delivery; raises Ignored where there are none, Unintelligible to have it parked.

    Its kind is the body's own type, so it is as trustworthy as the body.
    """
    name = OLD_NAMES.get(delivery.kind, delivery.kind)
    kind = KINDS.get(name)
    if kind is None:
        raise Ignored(FAMILIES.get(_FIRST_WORD.match(name)[0], "no_such_event"))  # type: ignore[index]  # matches
    try:
        body = parse(kind.shape, delivery.body)
    except NotJson as error:
        raise Unintelligible("not_json", f"The body cannot be read: {error}.") from None
    except ValidationError as error:
        raise Unintelligible(
            "shape_mismatch", f"This is not a body of {delivery.kind}: {problems_of(error)}."
        ) from None
    return kind.events(body, delivery, source)
