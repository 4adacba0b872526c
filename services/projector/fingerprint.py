"""Which code and SSOT made the rows of a model: a hash for each model of what could change them.

A hash that differs says that rows may differ, never that they do: `verify` says that, and `rebuild` mends it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

import contracts
import providers
import read_models
from providers.port import Source
from read_models.registry import LEDGER, READ_MODELS
from read_models.table import SCHEMA

HERE = Path(__file__).parent
_COMMON = (
    *(HERE / name for name in ("exclusions.py", "settle.py", "understand.py")),
    *(Path(read_models.__path__[0]) / name for name in ("merge.py", "port.py")),
    Path(providers.__path__[0]) / "port.py",
)
CODE = "*"
"""In the place of a model: the code that ran last, all of it."""
_RECORD = text(
    "INSERT INTO projector.models AS t (model, fingerprint) VALUES (:model, :fingerprint)"
    " ON CONFLICT (model) DO UPDATE SET fingerprint = excluded.fingerprint, since = now()"
    " WHERE t.fingerprint <> excluded.fingerprint"
)
_CLAIM = text(f"{_RECORD.text} RETURNING t.model")
_BEGIN = text(
    "INSERT INTO projector.models (model, fingerprint) VALUES"
    f" (:model, CASE WHEN EXISTS (SELECT FROM {SCHEMA}.{LEDGER.name}) THEN '' ELSE :fingerprint END)"
    " ON CONFLICT (model) DO NOTHING"
)


def fingerprints(sources: Mapping[str, Source]) -> dict[str, str]:
    """The hash of today's code and SSOT for each model: its own file, what all share, and the sources that feed it."""
    common = _hash_of([*_COMMON, *sorted(Path(contracts.__path__[0]).glob("*.py"))])
    of_sources = {name: _of_source(source) for name, source in sorted(sources.items())}
    found = {}
    for model in READ_MODELS:
        own = _hash_of([Path(read_models.__path__[0]) / f"{model.name}.py"])
        fed = [
            value
            for name, value in of_sources.items()
            if model is LEDGER or model.name in sources[name].file.feeds
        ]
        found[model.name] = _hash([common, own, *fed])
    return found


def _of_source(source: Source) -> str:
    """Everything of a source that decides what its deliveries mean."""
    folder = Path(providers.__path__[0]) / source.provider.name
    said = (source.name, source.options, source.environments, source.file.quiet_s_max)
    return _hash([_hash_of(sorted(folder.glob("*.py"))), *map(repr, said)])


def _hash_of(paths: Iterable[Path]) -> str:
    return _hash(path.read_text(encoding="utf-8") for path in paths)


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


async def recorded(connection: AsyncConnection) -> dict[str, str]:
    """The hash of what made all rows of a model, by model; empty or missing where that is not known."""
    rows = await connection.execute(
        text("SELECT model, fingerprint FROM projector.models WHERE model <> :code"), {"code": CODE}
    )
    return {row.model: row.fingerprint for row in rows}


async def record(connection: AsyncConnection, made_by: Mapping[str, str]) -> None:
    """Write down what has made all rows of some models."""
    for model, fingerprint in sorted(made_by.items()):
        await connection.execute(_RECORD, {"model": model, "fingerprint": fingerprint})


async def begin(connection: AsyncConnection, today: Mapping[str, str]) -> None:
    """Write down what makes the rows of models of which nothing is written yet.

    That is today's code where nothing was folded before; else their rows have to be made anew, and who made those
    that there are is not known.
    """
    for model, fingerprint in sorted(today.items()):
        await connection.execute(_BEGIN, {"model": model, "fingerprint": fingerprint})


async def claim(connection: AsyncConnection, today: Mapping[str, str]) -> bool:
    """Write down which code runs; whether that is other code than ran last. Of several who ask, one is told so."""
    code = _hash(value for _, value in sorted(today.items()))
    claimed = await connection.execute(_CLAIM, {"model": CODE, "fingerprint": code})
    return claimed.first() is not None
