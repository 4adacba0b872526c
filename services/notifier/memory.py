"""`notify.messages`: what the notifier has said, or is about to, one row per (destination, ref, kind).

`ref` is what a message is about: the event's ref, or what several providers' reports of one thing have in common.

The table is the notifier's own and no read model: it remembers what was done to the world, which the log
cannot tell, so a rebuild leaves it alone. Two transactions make a message: the first commits the row as
`posting`, the second holds the row's lock while Slack is asked and commits what became of it. A row that is
`posting` and not locked therefore means that a try ended without a known end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.elements import ColumnElement

from services.notifier.message import Block

Status = Literal["posting", "posted", "dry_run", "too_old", "failed"]
"""`posting` is the only one that is not final."""

LAST_ERROR_CHARS_MAX = 500

METADATA = MetaData(schema="notify")

messages = Table(
    "messages",
    METADATA,
    Column(
        "destination",
        Text,
        primary_key=True,
        comment="slack:<channel>, webhook:<hash of its address> or dry_run",
    ),
    Column("ref", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("message_id", Text, nullable=False, comment="uuid5 of the key; stands in the message's metadata"),
    Column("event_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("blocks", JSONB, nullable=False),
    Column("channel", Text),
    Column("slack_ts", Text),
    Column(
        "attempts", Integer, nullable=False, server_default=text("0"), comment="tries that came to an end"
    ),
    Column("last_error", Text),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint(
        "status IN ({})".format(", ".join(f"'{status}'" for status in get_args(Status))),
        name="messages_status_check",
    ),
)


@dataclass(frozen=True, slots=True)
class Key:
    """What a message is known by."""

    destination: str
    ref: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message as it is first written down."""

    key: Key
    message_id: str
    event_id: str
    text: str
    blocks: list[Block]
    channel: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """A row whose lock this transaction has."""

    status: Status
    attempts: int
    created_at: datetime


async def enter(connection: AsyncConnection, entry: Entry) -> bool:
    """Write `entry` down as `posting` unless its key is known; says whether it was new."""
    made = await connection.execute(
        insert(messages)
        .values(
            destination=entry.key.destination,
            ref=entry.key.ref,
            kind=entry.key.kind,
            message_id=entry.message_id,
            event_id=entry.event_id,
            status="posting",
            text=entry.text,
            blocks=entry.blocks,
            channel=entry.channel,
            occurred_at=entry.occurred_at,
        )
        .on_conflict_do_nothing()
    )
    return made.rowcount == 1


async def hold(connection: AsyncConnection, key: Key) -> Held | None:
    """Lock the row of `key` until the transaction ends; None where another process has it in hand."""
    found = await connection.execute(
        select(messages.c.status, messages.c.attempts, messages.c.created_at)
        .where(_is(key))
        .with_for_update(skip_locked=True)
    )
    row = found.one_or_none()
    return None if row is None else Held(row.status, row.attempts, row.created_at)


async def mark(
    connection: AsyncConnection,
    key: Key,
    status: Status,
    *,
    slack_ts: str | None = None,
    last_error: str | None = None,
) -> None:
    """State what became of a try. An earlier `last_error` stays unless there is a newer one."""
    stated: dict[str, object] = {
        "status": status,
        "attempts": messages.c.attempts + 1,
        "updated_at": func.now(),
    }
    if slack_ts is not None:
        stated["slack_ts"] = slack_ts
    if last_error is not None:
        stated["last_error"] = last_error[:LAST_ERROR_CHARS_MAX]
    await connection.execute(messages.update().where(_is(key)).values(stated))


async def require_readable(engine: AsyncEngine) -> None:
    """Raise where the table cannot be read: no database, no table or no right."""
    async with engine.connect() as connection:
        await connection.execute(select(messages.c.status).limit(0))


def _is(key: Key) -> ColumnElement[bool]:
    return and_(
        messages.c.destination == key.destination, messages.c.ref == key.ref, messages.c.kind == key.kind
    )
