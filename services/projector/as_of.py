"""The tables as they were at a moment, in a schema of their own: the log up to there, folded by today's code.

What was received later does not count, operators' words among it; only what was erased is not even there to be left
out. Our views are made over these tables too, and `now()` in them is that moment: what is called late, live or gone
is what was so then.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from read_models.registry import LEDGER
from read_models.table import SCHEMA
from runtime.postgres import OWNER
from services.projector import shadow
from services.projector.blocks import Until
from services.projector.replaying import replaying
from services.projector.shadow import About, InTheWay
from services.projector.sql import ALWAYS
from services.projector.swap import SWAP_S_MAX
from services.projector.work import Work, alone

_NAME = re.compile(r"[a-z][a-z0-9_]{0,50}")
_TAKEN = re.compile(r"ops|ops_rebuild|ops_before_.*|notify|projector|public|information_schema|pg_.*")

_EXISTS = text("SELECT to_regnamespace(:schema) IS NOT NULL")
_LEFT_OUT = text(
    "SELECT count(*) FILTER (WHERE status = 'redacted') AS erased,"
    f" count(*) FILTER (WHERE status <> 'redacted' AND stream_seq < :first) AS trimmed FROM {SCHEMA}.{LEDGER.name}"
    " WHERE (CAST(:received_at AS timestamptz) IS NULL OR received_at <= :received_at)"
    " AND (CAST(:seq AS bigint) IS NULL OR stream_seq <= :seq)"
)
_NEWEST = f"SELECT max(received_at) FROM {{schema}}.{LEDGER.name}"
_USERS = text(
    "SELECT g.grantee::regrole::text AS role FROM pg_namespace AS n, aclexplode(n.nspacl) AS g"
    " WHERE n.oid = to_regnamespace(:schema) AND g.privilege_type = 'USAGE' AND g.grantee NOT IN (0, n.nspowner)"
)
# A definition names what is on the path without its schema, so that with another path it is about other tables.
_VIEWS = text(
    "SELECT c.relname AS name, pg_get_viewdef(c.oid) AS query FROM pg_class AS c"
    " WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'v' ORDER BY c.oid"
)


class BadName(Exception):
    """a schema cannot have this name; the message says why"""


@dataclass(frozen=True, slots=True)
class AsOf:
    """The schema that was made, and what it is of."""

    schema: str
    moment: datetime | None
    """What `now()` is in its views. None where nothing had been received."""
    deliveries: int
    seconds: float
    erased: int
    """Deliveries of that time that are left out because they were erased since."""
    trimmed: int
    """Deliveries of that time that are left out because the log no longer holds them."""
    views: int


def require_name(name: str) -> None:
    """Raise BadName where no schema for a past moment may be called so."""
    if not _NAME.fullmatch(name) or _TAKEN.fullmatch(name):
        raise BadName(
            f"{name} cannot be the schema: one like ops_asof can, of up to 51 characters of a-z, 0-9 and _,"
            " a letter first, and none that is used otherwise"
        )


async def build(work: Work, until: Until, into: str, models: Collection[str] = ()) -> AsOf:
    """Fold the log up to `until` into the schema `into`, which is there once it is complete.

    An older one of that name stays until then. Raises BadName, InTheWay where the name belongs to something else, and
    RebuildRunning.
    """
    require_name(into)
    started = monotonic()
    async with alone(work.engine) as process:
        async with work.engine.connect() as connection:
            await _require_free(connection, into)
        async with replaying(work, models, process, until) as replay:
            await replay.run()
            await replay.index()
            async with work.engine.begin() as connection:
                found = await connection.execute(
                    _LEFT_OUT,
                    {"first": replay.first_seq, "received_at": until.received_at, "seq": until.seq},
                )
                left_out = found.one()
                newest = (await connection.execute(text(_NEWEST.format(schema=replay.schema)))).scalar_one()
                moment = until.received_at or newest
                views = await _put(connection, replay.schema, into, until, moment, models)
            return AsOf(
                into,
                moment,
                replay.done,
                monotonic() - started,
                left_out.erased,
                left_out.trimmed,
                views,
            )


async def _require_free(connection: AsyncConnection, into: str) -> bool:
    """Whether there is an older one of that name. Raises InTheWay where the name is taken by anything else."""
    ours = await shadow.ours(connection)
    if into in ours and ours[into].purpose == "as_of":
        return True
    if (await connection.execute(_EXISTS, {"schema": into})).scalar_one():
        raise InTheWay(f"there is a schema {into} that no rebuild --as-of has made: choose another --into")
    return False


async def _put(
    connection: AsyncConnection,
    shadowed: str,
    into: str,
    until: Until,
    moment: datetime | None,
    models: Collection[str],
) -> int:
    """Give the complete shadow its name, views and rights; the number of views."""
    await connection.execute(text(f"SET LOCAL lock_timeout = '{SWAP_S_MAX:.0f}s'"))
    replaces = await _require_free(connection, into)
    await connection.execute(text(f"SET LOCAL ROLE {OWNER}"))
    if replaces:
        if others := await shadow.in_the_way(connection, [each.name for each in shadow.chosen(())], into):
            raise InTheWay(f"{'; '.join(others)}: it would go with the older {into}")
        await connection.execute(text(f"DROP SCHEMA {into} CASCADE"))
    await connection.execute(text(f"ALTER SCHEMA {shadowed} RENAME TO {into}"))
    views = [] if models or moment is None else await _make_views(connection, into, moment)
    tables = [model.name for model in shadow.chosen({*models, *ALWAYS} if models else ())]
    await shadow.grant_alike(connection, SCHEMA, into, [*tables, *views])
    for row in (await connection.execute(_USERS, {"schema": SCHEMA})).all():
        await connection.execute(text(f"GRANT USAGE ON SCHEMA {into} TO {row.role}"))
    what = ", ".join(
        said
        for said in (
            f"received until {until.received_at.isoformat()}" if until.received_at else "",
            f"up to sequence {until.seq}" if until.seq is not None else "",
        )
        if said
    )
    about = About("as_of", datetime.now(UTC).isoformat(), tuple(sorted(models)), what=what)
    await shadow.say(connection, into, about)
    return len(views)


async def _make_views(connection: AsyncConnection, into: str, moment: datetime) -> list[str]:
    """Our views over the tables of `into`; `now()` in them is its own, which returns `moment`."""
    await connection.execute(text(f"SET LOCAL search_path = {SCHEMA}, pg_catalog"))
    views = (await connection.execute(_VIEWS, {"schema": SCHEMA})).all()
    await connection.execute(text(f"SET LOCAL search_path = {into}, pg_catalog"))
    await connection.exec_driver_sql(
        f"CREATE FUNCTION {into}.now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE"
        f" RETURN timestamptz '{moment.astimezone(UTC).isoformat()}'"
    )
    for view in views:
        await connection.exec_driver_sql(f"CREATE VIEW {into}.{view.name} AS {view.query}")
    return [view.name for view in views]
