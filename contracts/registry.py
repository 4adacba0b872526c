"""Every event type by its name on the wire, and the only decoder of events."""

from __future__ import annotations

from collections.abc import Mapping

from contracts import (
    advisor,
    audit,
    backups,
    builds,
    catalogue,
    deployments,
    drift,
    exec_sessions,
    external,
    gates,
    health,
    infrastructure,
    jobs,
    ledger,
    mail,
    polls,
    rows,
    runs,
    secret_sync,
    webhooks,
    work_items,
)
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
        deployments.DeploymentTargetChanged,
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
        mail.MailAccepted,
        mail.MailDelivered,
        mail.MailFailed,
        mail.MailOpened,
        mail.MailClicked,
        mail.MailComplained,
        mail.MailUnsubscribed,
        mail.MailStored,
        mail.MailRejected,
        rows.RowInserted,
        rows.RowUpdated,
        rows.RowDeleted,
        external.ExternalReceived,
        infrastructure.DropletObserved,
        infrastructure.DatabaseClusterObserved,
        infrastructure.FirewallObserved,
        infrastructure.CloudActionObserved,
        polls.PollStarted,
        polls.PollFinished,
        polls.ListingCompleted,
        backups.BackupStarted,
        backups.BackupFinished,
        backups.BackupExpired,
        backups.BackupJobQueued,
        backups.BackupJobStarted,
        backups.BackupJobFinished,
        advisor.AdvisorRunStarted,
        advisor.AdvisorRunFinished,
        advisor.AdvisorFindingFound,
        advisor.AdvisorFindingDismissed,
        advisor.AdvisorFindingReopened,
        secret_sync.SecretSyncStarted,
        secret_sync.SecretSyncFinished,
        gates.GateEvaluated,
        exec_sessions.ExecSessionRequested,
        exec_sessions.ExecSessionOpened,
        exec_sessions.ExecSessionClosed,
        exec_sessions.ExecSessionExpired,
        exec_sessions.ExecSessionDenied,
        jobs.JobQueued,
        jobs.JobStarted,
        jobs.JobFinished,
        jobs.JobRunStarted,
        jobs.JobRunProgressed,
        jobs.JobRunFinished,
        jobs.ArtifactStored,
        health.HealthcheckCompleted,
        health.MetricRecorded,
        catalogue.IntegrationDeclared,
        catalogue.IntegrationObserved,
        catalogue.CapabilityDeclared,
        catalogue.CapabilityObserved,
        catalogue.StarterDeclared,
        catalogue.StarterObserved,
        ledger.DeliveryParked,
        ledger.DeliveryDiscarded,
        ledger.DeliveryRedacted,
        ledger.SecretExcluded,
        drift.DriftFound,
        drift.ResourceGone,
        webhooks.WebhookFailing,
        webhooks.WebhookMended,
        webhooks.RedeliveryAsked,
    )
}


class UnknownEvent(ValueError):
    """no event type of this name is known"""


def event_type(name: str) -> type[Event]:
    """The event type of this name; raises UnknownEvent."""
    event = EVENTS.get(name)
    if event is None:
        raise UnknownEvent(f"no event type is called {name!r}; known: {', '.join(EVENTS)}")
    return event


def decode(type_name: str, data: bytes) -> Event:
    """The event that a message of `type_name` carries; raises UnknownEvent or pydantic's ValidationError."""
    return event_type(type_name).model_validate_json(data)
