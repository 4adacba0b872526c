"""What Supabase's advisors find in a project: one scan of ours for each answer."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Literal

from contracts.advisor import AdvisorFindingFound, AdvisorRunFinished, fingerprint_of
from contracts.own import SENTENCE_CHARS_MAX
from contracts.version import micros
from providers.polling import Ask, Look, Say, Step, ask
from providers.supabase_management.payloads import Lint, Lints, parsed
from providers.supabase_management.target import Target, remembered

Advisor = Literal["security", "performance"]
SEVERITY: Mapping[str, str] = {"ERROR": "high", "WARN": "medium", "INFO": "info"}


def security(
    look: Look, target: Target, before: Mapping[str, Any]
) -> Generator[Step, Any, Mapping[str, Any]]:
    """What the security advisor finds."""
    return (yield from _scan(look, target, before, "security"))


def performance(
    look: Look, target: Target, before: Mapping[str, Any]
) -> Generator[Step, Any, Mapping[str, Any]]:
    """What the performance advisor finds."""
    return (yield from _scan(look, target, before, "performance"))


def _scan(
    look: Look, target: Target, before: Mapping[str, Any], advisor: Advisor
) -> Generator[Step, Any, Mapping[str, Any]]:
    """All findings and the end of the scan, once they have changed or a day has passed: what is missing is resolved."""
    reply = yield from ask(Ask(path=f"{target.path}/advisors/{advisor}"))
    found = {fingerprint_of(lint.name, lint.cache_key): lint for lint in parsed(Lints, reply).lints}
    kept = remembered(look, before, [(fingerprint, lint.level) for fingerprint, lint in found.items()])
    if kept is None:
        return before
    scan = {
        "source": look.source.name,
        "env": target.env,
        "occurred_at": reply.fetched_at,
        "advisor": f"supabase_{advisor}.{target.ref}",
        "run_id": f"supabase-{advisor}-{target.ref}-{micros(look.started_at)}",
    }
    for fingerprint, lint in found.items():
        yield Say(
            AdvisorFindingFound(
                **scan,
                rule=lint.name,
                resource_ref=_subject(target, lint),
                fingerprint=fingerprint,
                pillar=advisor,
                severity=SEVERITY.get(lint.level, "unknown"),
                stated_severity=lint.level,
                title=lint.title,
                remediation=lint.remediation,
                evidence={"detail": lint.detail[:SENTENCE_CHARS_MAX]} if lint.detail else {},
                url=lint.remediation if (lint.remediation or "").startswith("https://") else None,
            )
        )
    yield Say(
        AdvisorRunFinished(
            **scan, status="success", started_at=reply.asked_at, finding_count=len(found), triggered_by="poll"
        )
    )
    return kept


def _subject(target: Target, lint: Lint) -> str:
    about = lint.metadata
    names = [name for name in (about.schema_name, about.name or about.entity) if name] if about else []
    return f"{target.name}/{'.'.join(names)}" if names else target.name
