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

HERE = Path(__file__).parent
_COMMON = (
    *(HERE / name for name in ("exclusions.py", "settle.py", "understand.py")),
    *(Path(read_models.__path__[0]) / name for name in ("merge.py", "port.py")),
    Path(providers.__path__[0]) / "port.py",
)
_RECORD = text(
    "INSERT INTO projector.models AS t (model, fingerprint) VALUES (:model, :fingerprint)"
    " ON CONFLICT (model) DO UPDATE SET fingerprint = excluded.fingerprint, since = now()"
    " WHERE t.fingerprint <> excluded.fingerprint"
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
    rows = await connection.execute(text("SELECT model, fingerprint FROM projector.models"))
    return {row.model: row.fingerprint for row in rows}


async def record(connection: AsyncConnection, made_by: Mapping[str, str]) -> None:
    """Write down what has made all rows of some models."""
    for model, fingerprint in sorted(made_by.items()):
        await connection.execute(_RECORD, {"model": model, "fingerprint": fingerprint})
