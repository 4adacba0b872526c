"""What a delivery from GitHub means: one entry per event name, one module per family of events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from contracts.delivery import Delivery, media_type
from contracts.envelope import Event
from contracts.text import NotJson, parse
from providers.github import audit, builds, checks, deployments, observed, payloads, work_items
from providers.github.body import FORM_TYPE, MalformedForm, form_payload
from providers.github.verify import CONTENT_TYPE, EVENT
from providers.port import Ignored, Source, Unintelligible, problems_of

P = TypeVar("P", bound=payloads.Payload)


@dataclass(frozen=True, slots=True)
class Kind(Generic[P]):
    """One event name: the shape of its body, and what such a body means."""

    payload: type[P]
    events: Callable[[P, Delivery, Source], list[Event]]


KINDS: Mapping[str, Kind[Any]] = {
    "check_run": Kind(payloads.CheckRunPayload, checks.check_run),
    "check_suite": Kind(payloads.CheckSuitePayload, checks.check_suite),
    "deployment": Kind(payloads.DeploymentPayload, deployments.deployment),
    "deployment_status": Kind(payloads.DeploymentStatusPayload, deployments.deployment_status),
    "installation": Kind(payloads.InstallationPayload, audit.installation),
    "issue_comment": Kind(payloads.IssueCommentPayload, work_items.issue_comment),
    "issues": Kind(payloads.IssuePayload, work_items.issue),
    "meta": Kind(payloads.MetaPayload, audit.meta),
    "ping": Kind(payloads.PingPayload, audit.ping),
    "pull_request": Kind(payloads.PullRequestPayload, work_items.pull_request),
    "push": Kind(payloads.PushPayload, audit.push),
    "repository": Kind(payloads.RepositoryPayload, audit.repository),
    "workflow_job": Kind(payloads.WorkflowJobPayload, builds.workflow_job),
    "workflow_run": Kind(payloads.WorkflowRunPayload, builds.workflow_run),
}


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The events of a delivery; raises Ignored where there are none, Unintelligible to have it parked."""
    # What a sender calls its event comes in a header: an observation is never anybody's but ours.
    if delivery.kind in observed.KINDS and EVENT not in delivery.headers:
        return observed.normalize_observed(delivery, source)
    name = delivery.headers.get(EVENT, delivery.kind).lower()
    kind = KINDS.get(name)
    if kind is None:
        raise Ignored("no_such_event")
    try:
        payload = parse(kind.payload, _json_text(delivery))
    except (MalformedForm, NotJson) as error:
        raise Unintelligible("not_json", f"The body of this {name} cannot be read: {error}.") from None
    except ValidationError as error:
        raise Unintelligible(
            "shape_mismatch", f"This is not a body of {name}: {problems_of(error)}."
        ) from None
    return kind.events(payload, delivery, source)


def _json_text(delivery: Delivery) -> bytes:
    if media_type(delivery.headers.get(CONTENT_TYPE, "")) == FORM_TYPE:
        return form_payload(delivery.body)
    return delivery.body
