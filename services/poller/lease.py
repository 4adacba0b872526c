"""One run per source and scope at a time, however many pollers there are.

A lease is a record in the bucket, and whoever changed it last at the revision that it knew holds it. The holder writes
it again and again. Who wants it compares no clock with another machine's: a lease that says `running` is free once
its revision has been the same for LEASE_S by one's own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from runtime.bucket import Bucket, Moved
from runtime.bus import BrokerAway
from services.poller.memory import key_of

LEASE_S = 60.0
RENEW_S = 15.0
AGAIN_S = 0.5
"""After a renewal that the broker did not take."""

Ended = Literal["success", "partial", "failed", "interrupted"]


class Record(BaseModel):
    """What a lease says: whose run this is or, once it has ended, how, and when the next one may begin."""

    model_config = ConfigDict(frozen=True)

    source: str
    scope: str
    run_id: str
    owner: str
    triggered_by: str
    started_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    """None while it runs."""
    ended: Ended | None = None
    """`interrupted`: it was stopped before its end, for no fault of the API."""
    not_before: AwareDatetime | None = None
    failures: int = 0
    """Failed runs in a row."""
    well_at: AwareDatetime | None = None
    """When a run last succeeded; before the first that did, when the first one began."""

    def end(self, ended_at: datetime, ended: Ended, not_before: datetime | None = None) -> Self:
        """The same run at its end."""
        # A run that had to end because the API wants to be left alone is no reason to wait for longer than that.
        failed = ended == "failed" and not_before is None
        failures = self.failures + 1 if failed else 0 if ended in ("success", "partial") else self.failures
        well_at = ended_at if ended == "success" else self.well_at
        changes = {"ended_at": ended_at, "ended": ended, "not_before": not_before, "failures": failures}
        return self.model_copy(update={**changes, "well_at": well_at})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A lease as it was just read."""

    record: Record | None
    """None where there has been no run yet, or nobody knows of it any more."""
    revision: int
    abandoned_at: datetime | None = None
    """When it was noticed that its run has no holder any more; the same however often one looks."""

    @property
    def abandoned(self) -> bool:
        return self.abandoned_at is not None

    @property
    def running(self) -> bool:
        return self.record is not None and self.record.ended_at is None


class Leases:
    """What one process knows of leases: since when each has been at the revision that it has."""

    def __init__(
        self, bucket: Bucket, owner: str, lease_s: float = LEASE_S, renew_s: float = RENEW_S
    ) -> None:
        self._bucket = bucket
        self._owner = owner
        self.lease_s = lease_s
        self._renew_s = renew_s
        self._since: dict[str, tuple[int, float]] = {}
        self._abandoned: dict[str, tuple[int, datetime]] = {}

    async def look(self, source: str, scope: str) -> Seen:
        """The lease of a scope; raises BrokerAway."""
        key = _key(source, scope)
        value, revision = await self._bucket.get(key)
        read_at = monotonic()
        met, since = self._since.get(key, (0, 0.0))
        if met != revision:
            since = read_at
            self._since[key] = (revision, since)
        found = Seen(record=_record(value), revision=revision)
        if found.running and read_at - since >= self.lease_s:
            if self._abandoned.get(key, (0,))[0] != revision:
                self._abandoned[key] = (revision, datetime.now(UTC))
            return Seen(record=found.record, revision=revision, abandoned_at=self._abandoned[key][1])
        return found

    async def take(
        self, seen: Seen, source: str, scope: str, *, run_id: str, triggered_by: str, started_at: datetime
    ) -> Held | None:
        """The lease for a run that begins; None where somebody else was faster. Raises BrokerAway."""
        before = seen.record
        taken = Record(
            source=source,
            scope=scope,
            run_id=run_id,
            owner=self._owner,
            triggered_by=triggered_by,
            started_at=started_at,
            failures=before.failures if before else 0,
            well_at=(before.well_at if before else None) or started_at,
        )
        held = Held(self._bucket, taken, seen.revision, self.lease_s, self._renew_s)
        return held if await held.write(taken) else None

    async def bury(self, seen: Seen, noticed_at: datetime) -> Seen | None:
        """End the run that nobody holds; None where somebody else has, or it lives after all.

        Raises BrokerAway or LogFull.
        """
        assert seen.record is not None
        ended = seen.record.end(noticed_at, "failed")
        try:
            revision = await self._bucket.update(
                _key(ended.source, ended.scope), ended.model_dump_json().encode(), seen.revision
            )
        except Moved:
            return None
        return Seen(record=ended, revision=revision)


class Held:
    """A lease of ours."""

    def __init__(self, bucket: Bucket, record: Record, revision: int, lease_s: float, renew_s: float) -> None:
        self.record = record
        self._bucket = bucket
        self._key = _key(record.source, record.scope)
        self._revision = revision
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._written_at = monotonic()

    async def keep(self) -> None:
        """Renew it for as long as nobody else takes it; returns when it is lost."""
        while True:
            await asyncio.sleep(max(0.0, self._written_at + self._renew_s - monotonic()))
            left_s = self._written_at + self._lease_s - monotonic()
            if left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    if not await self.write(self.record):
                        return
            except TimeoutError:
                return
            except BrokerAway:
                await asyncio.sleep(AGAIN_S)

    async def release(self, ended: Record) -> bool:
        """End it with this record; whether it was still ours. Raises BrokerAway."""
        self.record = ended
        return await self.write(ended)

    async def write(self, record: Record) -> bool:
        """Write it where it is still ours; raises BrokerAway."""
        while True:
            began = monotonic()
            try:
                self._revision = await self._bucket.update(
                    self._key, record.model_dump_json().encode(), self._revision
                )
            except Moved:
                value, revision = await self._bucket.get(self._key)
                found = _record(value)
                ours = found is not None and found.run_id == record.run_id and found.ended_at is None
                if not ours or revision == self._revision:
                    return False
                # Our own last write was taken, though the broker had no time to say so.
                self._revision = revision
            else:
                self._written_at = began
                return True


def _key(source: str, scope: str) -> str:
    return key_of("lease", source, scope)


def _record(value: bytes | None) -> Record | None:
    """What a value says; one that another version wrote in another way is as good as none."""
    try:
        return None if value is None else Record.model_validate_json(value)
    except ValidationError:
        return None
