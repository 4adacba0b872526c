"""Sessions in which a person works inside an environment: a shell, a console, SSH."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime

from contracts.own import ASKED, ENDED, RUNNING, TIMED_OUT, Name, OwnRun, Sentence, own_ref


class ExecSessionEvent(OwnRun):
    """One session. `ref` is it: `odooops:exec_session/<session id>`."""

    service: ClassVar[str] = "access"

    session_id: Name
    target: str
    """What is entered: the ref of a droplet, a container, a database."""
    requested_by: str | None = None
    reason: Sentence | None = None
    """Why it was asked for."""

    def named(self) -> str:
        return own_ref("exec_session", self.session_id)

    @property
    def summary(self) -> str:
        return f"session of {self.requested_by or 'somebody'} on {self.target} {self.outcome}"


class ExecSessionRequested(ExecSessionEvent):
    """Somebody wants in."""

    type: ClassVar[str] = "exec_session.requested"
    stage: ClassVar[int] = ASKED
    state: ClassVar[str] = "requested"


class ExecSessionOpened(ExecSessionEvent):
    """Somebody was let in. Said again with a later `expires_at`, it is an extension."""

    type: ClassVar[str] = "exec_session.opened"
    stage: ClassVar[int] = RUNNING
    state: ClassVar[str] = "open"

    approved_by: str | None = None
    expires_at: AwareDatetime | None = None


class ExecSessionEnded(ExecSessionEvent):
    """The end of a session, or of the wish for one."""

    transcript_ref: str | None = None
    """What was done: the ref of an artifact."""
    detail: Sentence | None = None
    """Why it ended, or why it was denied."""


class ExecSessionClosed(ExecSessionEnded):
    """Somebody left, or was asked to."""

    type: ClassVar[str] = "exec_session.closed"
    stage: ClassVar[int] = ENDED
    state: ClassVar[str] = "closed"


class ExecSessionExpired(ExecSessionEnded):
    """A session's time is over and nobody said that it was closed: that may still come, and counts then."""

    type: ClassVar[str] = "exec_session.expired"
    stage: ClassVar[int] = TIMED_OUT
    state: ClassVar[str] = "expired"


class ExecSessionDenied(ExecSessionEnded):
    """Somebody was not let in; `actor` is who decided."""

    type: ClassVar[str] = "exec_session.denied"
    stage: ClassVar[int] = ENDED
    state: ClassVar[str] = "denied"
