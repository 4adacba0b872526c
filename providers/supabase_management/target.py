"""A project that is polled, and what all parts of its poll have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from contracts.envelope import Env
from providers.polling import Look, Step

ANSWERING = frozenset(("ACTIVE_HEALTHY", "ACTIVE_UNHEALTHY"))
"""The words for a project of which more can be asked. One that is paused or being made says so itself."""
AGAIN = timedelta(days=1)
"""After how long a state that has not changed is said again, so that it does not look forgotten."""


@dataclass(frozen=True, slots=True)
class Target:
    """A project: what it is called, how it is by its own word (None: unknown), and when that was seen."""

    ref: str
    status: str | None
    env: Env
    seen_at: datetime

    @property
    def name(self) -> str:
        """Its ref, as tables speak of it."""
        return f"supabase:project/{self.ref}"

    @property
    def path(self) -> str:
        """Where the API answers about it."""
        return f"/v1/projects/{self.ref}"


Of = Callable[[Look, Target, Mapping[str, Any]], Generator[Step, Any, Mapping[str, Any]]]
"""Polls one thing of a project, given what was kept of it, and returns what is to be kept."""


def remembered(
    look: Look, before: Mapping[str, Any], content: Iterable[tuple[str, ...]]
) -> Mapping[str, Any] | None:
    """What to keep of a state that is to be said now; None where it was said lately and has not changed."""
    digest = hashlib.sha256(repr(sorted(content)).encode()).hexdigest()
    lately = before and look.started_at - datetime.fromisoformat(before["said_at"]) < AGAIN
    if lately and look.since is None and before["digest"] == digest:
        return None
    return {"digest": digest, "said_at": look.started_at.isoformat()}
