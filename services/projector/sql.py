"""The statements by which the projector writes, compiled once for a schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import TextClause, text

from read_models.deliveries import EXCLUDED_RANK, SECRET_EXCLUDED
from read_models.merge import merge_sql
from read_models.port import ReadModel
from read_models.registry import AUDIT, EXCLUSIONS, LEDGER, READ_MODELS
from read_models.table import SCHEMA
from services.projector.understand import REFOLD_IMPOSSIBLE

ALWAYS = frozenset((LEDGER.name, EXCLUSIONS.name))
"""Models without which no delivery can be settled."""

# A row version that no transaction has updated or deleted was inserted by this statement.
_WHICH_ARE_NEW = "\nRETURNING t.event_id, t.xmax = 0 AS inserted"


@dataclass(frozen=True)
class Sql:
    """The statements of one schema, compiled once, for `models`: the ledger always, and all unless said otherwise."""

    schema: str
    models: tuple[ReadModel[Any], ...]
    merges: Mapping[str, TextClause]
    alone: TextClause
    known: TextClause
    entries: TextClause
    marks: TextClause
    still_folded: TextClause
    exclusions: TextClause
    covered: TextClause
    exclude: TextClause
    restate: TextClause
    intend: TextClause
    still_parked: TextClause
    clears: Mapping[str, TextClause]

    @classmethod
    def of(cls, schema: str = SCHEMA, models: Collection[str] = ()) -> Sql:
        """The statements for the read models in `schema`, for some of them where `models` names any."""
        ledger = f"{schema}.{LEDGER.name}"
        chosen = tuple(
            model for model in READ_MODELS if not models or model.name in models or model.name in ALWAYS
        )
        keys = "json_to_recordset(CAST(:keys AS json)) AS s(source text, identity text"
        covered = (
            "d.verified_by = :secret AND d.received_at >= :since AND d.received_at < :until"
            " AND d.status IN ('projected', 'parked', 'ignored')"
            f" AND d.reason IS DISTINCT FROM '{REFOLD_IMPOSSIBLE}'"
        )
        entry = "d.source, d.identity, d.body_sha256, d.stream_seq, d.status, d.reason, d.refs, d.event_count"
        return cls(
            schema=schema,
            models=chosen,
            merges={
                model.name: text(merge_sql(model, schema) + (_WHICH_ARE_NEW if model is AUDIT else ""))
                for model in chosen
            },
            alone=text(f"LOCK TABLE {ledger} IN ACCESS EXCLUSIVE MODE"),
            known=text(
                "SELECT d.source, d.identity, d.body_sha256, d.stream_seq, d.status, d.refs, d.reason"
                f" FROM {keys}) JOIN {ledger} AS d ON d.source = s.source AND d.identity = s.identity"
                f" WHERE d.reason IS DISTINCT FROM '{REFOLD_IMPOSSIBLE}'"
            ),
            entries=text(
                f"SELECT {entry} FROM {ledger} AS d WHERE d.stream_seq = ANY(CAST(:seqs AS bigint[]))"
                " ORDER BY d.stream_seq"
            ),
            marks=text(
                "SELECT d.stream_seq, hashtextextended(CAST(ROW(d.status, d.reason, d.refs, d.event_count) AS text), 0)"
                f" AS mark FROM {ledger} AS d"
                " WHERE (d.status = 'projected' AND d.refs && CAST(:refs AS text[]))"
                " OR (d.stream_seq = ANY(CAST(:seqs AS bigint[])) AND d.status IN ('projected', 'ignored', 'parked')"
                f" AND d.reason IS DISTINCT FROM '{REFOLD_IMPOSSIBLE}')"
                " LIMIT :most"
            ),
            still_folded=text(
                f"SELECT d.refs FROM {keys}, body_sha256 text)"
                f" JOIN {ledger} AS d USING (source, identity, body_sha256)"
            ),
            exclusions=text(f"SELECT secret, since, until FROM {schema}.{EXCLUSIONS.name}"),
            covered=text(f"SELECT d.stream_seq, d.refs FROM {ledger} AS d WHERE {covered}"),
            exclude=text(
                f"UPDATE {ledger} AS d SET version = ARRAY[-d.stream_seq, {', '.join(map(str, EXCLUDED_RANK))}],"
                f" status = 'discarded', reason = '{SECRET_EXCLUDED}', event_count = 0"
                f" WHERE {covered} RETURNING d.refs"
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
            intend=text(
                f"UPDATE {ledger} AS t SET refs = s.refs"
                " FROM json_to_recordset(CAST(:rows AS json)) AS s(source text, identity text,"
                " body_sha256 text, refs text[])"
                " WHERE t.source = s.source AND t.identity = s.identity AND t.body_sha256 = s.body_sha256"
                " AND t.status = 'parked' AND t.refs IS DISTINCT FROM s.refs"
            ),
            still_parked=text(
                f"UPDATE {ledger} AS t SET reason = s.reason, last_error = s.last_error,"
                " attempts = t.attempts + 1, first_tried_at = COALESCE(t.first_tried_at, now())"
                " FROM json_to_recordset(CAST(:rows AS json)) AS s(source text, identity text,"
                " body_sha256 text, reason text, last_error text)"
                " WHERE t.source = s.source AND t.identity = s.identity AND t.body_sha256 = s.body_sha256"
                " AND t.status = 'parked'"
            ),
            clears={
                model.name: text(
                    f"DELETE FROM {schema}.{model.name} WHERE {model.ref_column} = ANY(CAST(:refs AS text[]))"
                )
                for model in chosen
                if model.ref_column is not None
            },
        )


def as_json(rows: object) -> str:
    """Rows as a parameter of a merge; a row's `bytes` are a JSON text already."""
    return orjson.dumps(rows, default=orjson.Fragment).decode()
