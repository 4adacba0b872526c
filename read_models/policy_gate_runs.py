"""ops.policy_gate_runs: one row per question to a gate: its version, a subject, and the hash of what it looked at."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.gates import GateEvaluated
from contracts.record import record
from contracts.version import Version
from read_models.port import (
    EARLIEST,
    FACT,
    GREATEST,
    KEY,
    LATEST,
    VERSION,
    Index,
    ReadModel,
    Statement,
    as_json,
)

NO_VERDICTS = ("error", "unknown")


@record
class PolicyGateRun:
    """A question and its answer.

    `verdict` is the answer, which does not change for equal inputs; where a gate contradicts itself, the least word
    stays: fail before pass. A run that could not judge gives none. `status` and what goes with it are the newest run's.
    """

    ref: Annotated[str, KEY]
    gate: Annotated[str | None, FACT] = None
    gate_version: Annotated[str | None, FACT] = None
    subject_ref: Annotated[str | None, FACT] = None
    input_hash: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    correlation_id: Annotated[str | None, FACT] = None
    verdict: Annotated[str | None, FACT] = None
    """pass, warn, fail, skipped; NULL where no run could judge."""
    first_run_at: Annotated[datetime | None, EARLIEST] = None
    last_run_at: Annotated[datetime | None, GREATEST] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    """pass, warn, fail, error, skipped, unknown."""
    stated_status: Annotated[str | None, LATEST] = None
    observed: Annotated[bytes | None, LATEST] = None
    threshold: Annotated[bytes | None, LATEST] = None
    reasons: Annotated[list[str] | None, LATEST] = None
    evidence_ref: Annotated[str | None, LATEST] = None
    url: Annotated[str | None, LATEST] = None
    actor: Annotated[str | None, LATEST] = None


def _evaluated(statement: Statement[GateEvaluated]) -> PolicyGateRun:
    event = statement.event
    return PolicyGateRun(
        ref=event.ref,
        gate=event.gate,
        gate_version=event.gate_version,
        subject_ref=event.subject_ref,
        input_hash=event.input_hash,
        env=event.env,
        correlation_id=event.correlation_id,
        verdict=None if event.status in NO_VERDICTS else event.status,
        first_run_at=event.occurred_at,
        last_run_at=event.occurred_at,
        version=statement.version,
        status=event.status,
        stated_status=event.stated_status,
        observed=as_json(event.observed),
        threshold=as_json(event.threshold),
        reasons=event.reasons,
        evidence_ref=event.evidence_ref,
        url=event.url,
        actor=event.actor,
    )


READ_MODEL = ReadModel(
    name="policy_gate_runs",
    row=PolicyGateRun,
    folds={GateEvaluated: _evaluated},
    ref_column="ref",
    indexes=(
        Index("policy_gate_runs_gate", ("gate", "env")),
        Index("policy_gate_runs_subject_ref", ("subject_ref",)),
    ),
)
