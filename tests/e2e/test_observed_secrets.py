"""A cluster's password goes into `odooops observe` and is nowhere afterwards: not in the log, the tables, a file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from runtime import bus, streams
from tests.e2e.commands import command
from tests.e2e.test_up import Up, asked, clean_env, eventually, odooops, running
from tests.providers.digitalocean.answers import FIXTURES, PASSWORD, USER, answer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes as Linux shows them")

HOST = "backend-do-user-19081923-0.db.ondigitalocean.com"
SECRETS = (PASSWORD, USER, f"@{HOST}", f"{HOST}:25060/defaultdb", "postgres://doadmin")
"""The password, the user, and each part of a URI that nothing else of ours holds."""
STORED = 4
"""Deliveries of the ways below: three sights of the cluster and a listing."""
OBSERVE = ("observe", "digitalocean", "databases")
BLOCK_BYTES = 1 << 20


def test_a_cluster_leaves_no_trace_of_its_password(data_dir: Path) -> None:
    with running(data_dir) as up:
        said = observe_all(up)
        eventually(lambda: STORED == len(asyncio.run(statuses(up))), "all is in the ledger")
        assert {"projected"} == set(asyncio.run(statuses(up)))
        listed = asked(up, "deliveries", "list", "--source", "digitalocean")
        said += [shown(up, str(row["stream_seq"])) for row in listed]
        said += [shown(up, str(listed[0]["stream_seq"]), how) for how in ("--raw", "--json")]
        messages = asyncio.run(everything_in_the_streams(up))
        tables = asyncio.run(everything_in_the_tables(up))

    # The search finds what is there: else it would prove nothing.
    for text in (*answer_texts(), "\n".join(messages), tables, "\n".join(said)):
        assert HOST in text
    for secret in SECRETS:
        assert all(secret in text for text in answer_texts())
        assert [] == [text[:200] for text in (*messages, tables, *said) if secret in text], secret
    # Bytes of the servers' own files, after they have stopped: write-ahead log, streams and logs among them.
    assert set() != files_with(HOST, up.data_dir)
    assert set() == files_with(PASSWORD, up.data_dir) | files_with(USER, up.data_dir)


def answer_texts() -> list[str]:
    return [answer(name).decode() for name in ("database_cluster", "database_clusters")]


def observe_all(up: Up) -> list[str]:
    """Every way in; what the command said."""
    cluster, clusters = FIXTURES / "database_cluster.json", FIXTURES / "database_clusters.json"
    ways: tuple[tuple[list[str], bytes, int], ...] = (
        ([str(cluster)], b"", 0),
        (["--complete", "-"], clusters.read_bytes(), 0),
        (["--dry-run"], clusters.read_bytes(), 0),
        (["--scope", "eu", str(cluster), str(clusters)], b"", 0),
        # Refused ones are not to quote it either.
        (["--complete", str(cluster)], b"", 1),
        ([], clusters.read_bytes()[:-9], 1),
    )
    said = []
    for arguments, given, code in ways:
        done = command([*OBSERVE, *arguments, "--data-dir", str(up.data_dir)], clean_env(), given)
        said.append(done.stdout + done.stderr)
        assert code == done.returncode, said[-1]
    return said


def shown(up: Up, name: str, *how: str) -> str:
    done = odooops(up, "deliveries", "show", name, *how)
    assert 0 == done.returncode, done.stderr
    return done.stdout + done.stderr


async def statuses(up: Up) -> list[str]:
    """What became of each delivery."""
    connection = await asyncpg.connect(up.state["database"]["operator"])
    found = await connection.fetch("SELECT status FROM ops.deliveries")
    await connection.close()
    return [row["status"] for row in found]


async def everything_in_the_streams(up: Up) -> list[str]:
    """Subject, headers and data of each message, decompressed by the server."""
    client = await bus.connect(up.state["nats"]["operator"], "operator")
    js = client.jetstream()
    found = []
    for stream in (streams.DELIVERIES, streams.EVENTS, streams.BODIES_STREAM):
        for seq in range(1, (await js.stream_info(stream)).state.last_seq + 1):
            message = await js.get_msg(stream, seq)
            found.append(f"{message.subject} {message.headers} {(message.data or b'').decode()}")
    await client.close()
    return found


async def everything_in_the_tables(up: Up) -> str:
    """Each row of each table and view of ours, as text."""
    connection = await asyncpg.connect(up.state["database"]["operator"])
    found = []
    for table in await connection.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ('ops', 'notify') AND c.relkind IN ('r', 'v')"
    ):
        found += await connection.fetch(f"SELECT t::text FROM {table['name']} AS t")
    await connection.close()
    return "\n".join(row[0] for row in found)


def files_with(text: str, folder: Path) -> set[str]:
    """The files below `folder` whose bytes hold `text`."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(text.encode() in block for block in blocks(path, len(text)))
    }


def blocks(path: Path, overlap: int) -> Iterator[bytes]:
    """The bytes of a file, in pieces that overlap."""
    with path.open("rb") as opened:
        kept = b""
        while read := opened.read(BLOCK_BYTES):
            yield kept + read
            kept = read[-overlap:]
