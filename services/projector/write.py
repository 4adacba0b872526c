"""The projector's transactions: fold a batch, refold some refs. The schema is an argument.

Order of locks, the same for every writer: the fold lock, the identities (sorted), the tables in the
registry's order, the rows of a table by key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.delivery import Delivery
from providers.port import Source
from read_models.freshness import Freshness, heard
from read_models.merge import join_all, join_into, joiner, merge_sql
from read_models.registry import AUDIT, FRESHNESS, LEDGER, READ_MODELS
from read_models.table import SCHEMA
from runtime.postgres import own_fold_lock, share_fold_lock
from services.projector.settle import Identity, Known, Settled, identity_of, settle
from services.projector.understand import REFOLD_IMPOSSIBLE, Understood, ledger_row, understand

REFOLD_REFS_MAX = 1_000
REFOLD_ROUNDS_MAX = 10

# A row version that no transaction has updated or deleted was inserted by this statement.
_WHICH_ARE_NEW = "\nRETURNING t.event_id, t.xmax = 0 AS inserted"

ReadLog = Callable[[int], Awaitable[Delivery]]
"""From a sequence to its delivery, read from the log."""


class RefoldTooWide(Exception):
    """today's code states ever more refs for these deliveries: rebuild instead"""


class _EarlierBodyCameLate(Exception):
    """the batch needs a refold, hence the fold lock alone"""


@dataclass(frozen=True, slots=True)
class Folded:
    """What a committed batch leaves to do: publish the events of `deliveries`; those in `new` were never published."""

    deliveries: Sequence[Understood]
    new: frozenset[str]


@dataclass(frozen=True)
class Sql:
    """The statements of one schema, compiled once."""

    schema: str
    merges: Mapping[str, TextClause]
    known: TextClause
    of_refs: TextClause
    restate: TextClause
    clears: Mapping[str, TextClause]

    @classmethod
    def of(cls, schema: str = SCHEMA) -> Sql:
        """The statements for the read models in `schema`."""
        ledger = f"{schema}.{LEDGER.name}"
        return cls(
            schema=schema,
            merges={
                model.name: text(merge_sql(model, schema) + (_WHICH_ARE_NEW if model is AUDIT else ""))
                for model in READ_MODELS
            },
            known=text(
                "SELECT d.source, d.identity, d.body_sha256, d.stream_seq, d.refs"
                " FROM json_to_recordset(CAST(:keys AS json)) AS s(source text, identity text)"
                f" JOIN {ledger} AS d ON d.source = s.source AND d.identity = s.identity"
                f" WHERE d.reason IS DISTINCT FROM '{REFOLD_IMPOSSIBLE}'"
            ),
            of_refs=text(
                "SELECT source, identity, body_sha256, stream_seq, refs"
                f" FROM {ledger} WHERE status = 'projected' AND refs && CAST(:refs AS text[])"
            ),
            restate=text(
                f"UPDATE {ledger} AS t SET version = s.version, status = s.status, reason = s.reason,"
                " refs = s.refs, event_count = s.event_count, last_error = s.last_error"
                " FROM json_to_recordset(CAST(:rows AS json)) AS s(source text, identity text,"
                " body_sha256 text, version bigint[], status text, reason text, refs text[],"
                " event_count bigint, last_error text)"
                " WHERE t.source = s.source AND t.identity = s.identity AND t.body_sha256 = s.body_sha256"
                " AND (t.status, t.reason, t.refs, t.event_count)"
                " IS DISTINCT FROM (s.status, s.reason, s.refs, s.event_count)"
            ),
            clears={
                model.name: text(
                    f"DELETE FROM {schema}.{model.name} WHERE {model.ref_column} = ANY(CAST(:refs AS text[]))"
                )
                for model in READ_MODELS
                if model.ref_column is not None
            },
        )


@dataclass(frozen=True)
class Writer:
    """What folding needs: a database, the statements for a schema, today's sources, and the log to read back from."""

    engine: AsyncEngine
    sql: Sql
    sources: Mapping[str, Source]
    read_log: ReadLog

    async def fold(self, batch: Sequence[Understood]) -> Folded:
        """Fold a batch in one transaction."""
        tried_at = datetime.now(UTC)
        try:
            async with self.engine.begin() as connection:
                await share_fold_lock(connection)
                await _lock_identities(connection, batch)
                settled = settle(batch, await self._known(connection, batch), tried_at)
                if settled.refold:
                    raise _EarlierBodyCameLate
                new = await self._merge(connection, batch, settled)
        except _EarlierBodyCameLate:
            async with self.engine.begin() as connection:
                await own_fold_lock(connection)
                settled = settle(batch, await self._known(connection, batch), tried_at)
                new = await self._merge(connection, batch, settled)
                await self._refold(connection, settled.refold)
        return Folded(settled.fold, new)

    async def refold(self, refs: Collection[str]) -> int:
        """Replace every row of `refs` by what the log says, folded from nothing by today's code.

        One transaction per REFOLD_REFS_MAX refs, in which nobody else folds. Returns how many deliveries were
        read. Raises LogTrimmed where the log no longer holds one of them: their rows stay as they are.
        """
        wanted, read = sorted(set(refs)), 0
        for start in range(0, len(wanted), REFOLD_REFS_MAX):
            async with self.engine.begin() as connection:
                await own_fold_lock(connection)
                read += await self._refold(connection, set(wanted[start : start + REFOLD_REFS_MAX]))
        return read

    async def _known(
        self, connection: AsyncConnection, batch: Iterable[Understood]
    ) -> dict[Identity, list[Known]]:
        keys = [
            {"source": source, "identity": name} for source, name in sorted({identity_of(u) for u in batch})
        ]
        found: dict[Identity, list[Known]] = {}
        for row in await connection.execute(self.sql.known, {"keys": _json(keys)}):
            known = Known(row.body_sha256, row.stream_seq, tuple(row.refs or ()))
            found.setdefault((row.source, row.identity), []).append(known)
        return found

    async def _merge(
        self, connection: AsyncConnection, batch: Iterable[Understood], settled: Settled
    ) -> frozenset[str]:
        rows: dict[str, list[Any]] = {LEDGER.name: list(settled.ledger)}
        # Whatever becomes of a webhook, its sender was heard.
        if heard_of := [self._heard(each.delivery) for each in batch if each.delivery.via == "webhook"]:
            rows[FRESHNESS.name] = heard_of
        for understood in settled.fold:
            for name, row in understood.rows:
                rows.setdefault(name, []).append(row)
        return await self._merge_rows(connection, rows)

    def _heard(self, delivery: Delivery) -> Freshness:
        source = self.sources.get(delivery.source)
        quiet_s_max = source.file.quiet_s_max if source else None
        return heard(delivery.source, delivery.received_at, delivery.seq, quiet_s_max)

    async def _merge_rows(
        self, connection: AsyncConnection, rows: Mapping[str, Sequence[Any]]
    ) -> frozenset[str]:
        """Merge rows in the registry's order of tables; returns the ids of events that had no row before."""
        new: frozenset[str] = frozenset()
        for model in READ_MODELS:
            if model.name in rows:
                joined = join_all(model, rows[model.name])
                merged = await connection.execute(
                    self.sql.merges[model.name], {"rows": _json(list(joined.values()))}
                )
                if model is AUDIT:
                    new = frozenset(row.event_id for row in merged if row.inserted)
        return new

    async def _refold(self, connection: AsyncConnection, refs: set[str]) -> int:
        wanted = set(refs)
        for _ in range(REFOLD_ROUNDS_MAX):
            rows, verdicts, grown, read = await self._read_back(connection, wanted)
            if grown <= wanted:
                break
            wanted |= grown
        else:
            raise RefoldTooWide(f"{len(wanted)} refs and still growing")
        for model in READ_MODELS:
            if model.name in self.sql.clears:
                await connection.execute(self.sql.clears[model.name], {"refs": sorted(wanted)})
        await self._merge_rows(connection, {name: list(joined.values()) for name, joined in rows.items()})
        if verdicts:
            await connection.execute(self.sql.restate, {"rows": _json(verdicts)})
        return read

    async def _read_back(
        self, connection: AsyncConnection, wanted: set[str]
    ) -> tuple[dict[str, dict[Any, Any]], list[Any], set[str], int]:
        """Rows of `wanted` by model and key, the ledger's new verdicts, further refs concerned, deliveries read."""
        rows: dict[str, dict[Any, Any]] = {}
        verdicts, grown, read = [], set[str](), 0
        models = {model.name: (model, joiner(model)) for model in READ_MODELS}
        found = (await connection.execute(self.sql.of_refs, {"refs": sorted(wanted)})).all()
        for entry in found:
            understood = understand(self.sources, await self.read_log(entry.stream_seq))
            read += 1
            verdicts.append(ledger_row(understood, datetime.now(UTC)))
            if set(understood.refs) - set(entry.refs):
                grown |= set(understood.refs) | set(entry.refs)
            for name, row in understood.rows:
                model, join = models[name]
                if model.ref_column is not None and getattr(row, model.ref_column) in wanted:
                    join_into(rows.setdefault(name, {}), model, join, row)
        return rows, verdicts, grown, read


async def _lock_identities(connection: AsyncConnection, batch: Iterable[Understood]) -> None:
    """Hold other projectors off the same identities: two bodies of one identity must not be folded side by side."""
    keys = sorted({_lock_key(identity_of(understood)) for understood in batch})
    await connection.execute(
        text("SELECT count(pg_advisory_xact_lock(k)) FROM unnest(CAST(:keys AS bigint[])) AS k"),
        {"keys": keys},
    )


def _lock_key(identity: Identity) -> int:
    digest = hashlib.blake2b("\x1f".join(identity).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _json(rows: object) -> str:
    # A row's `bytes` are a JSON text already.
    return orjson.dumps(rows, default=orjson.Fragment).decode()
