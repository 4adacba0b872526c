"""Every event type by its name on the wire, and the only decoder of events."""

from __future__ import annotations

from collections.abc import Mapping

from contracts import audit, builds, deployments, polls, runs, work_items
from contracts.envelope import Event

EVENTS: Mapping[str, type[Event]] = {
    event.type: event
    for event in (
        builds.BuildQueued,
        builds.BuildStarted,
        builds.BuildFinished,
        builds.BuildJobQueued,
        builds.BuildJobStarted,
        builds.BuildJobFinished,
        deployments.DeploymentCreated,
        deployments.DeploymentStatusChanged,
        work_items.WorkItemOpened,
        work_items.WorkItemUpdated,
        work_items.WorkItemClosed,
        work_items.WorkItemReopened,
        work_items.WorkItemDeleted,
        work_items.WorkItemCommented,
        work_items.WorkItemObserved,
        work_items.ProjectChanged,
        runs.RunQueued,
        runs.RunStarted,
        runs.RunFinished,
        audit.CodePushed,
        audit.RepositoryChanged,
        audit.InstallationChanged,
        audit.WebhookPinged,
        audit.WebhookRemoved,
        polls.PollStarted,
        polls.PollFinished,
        polls.ListingCompleted,
    )
}


class UnknownEvent(ValueError):
    """no event type of this name is known"""


def decode(type_name: str, data: bytes) -> Event:
    """The event that a message of `type_name` carries; raises UnknownEvent or pydantic's ValidationError."""
    event = EVENTS.get(type_name)
    if event is None:
        raise UnknownEvent(f"no event type is called {type_name!r}; known: {', '.join(EVENTS)}")
    return event.model_validate_json(data)
