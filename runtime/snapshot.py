"""A stream as bytes, and back: the broker's own snapshot, taken while everything runs.

What comes is a compressed tar of the stream's files as they lie on the broker's disk, meant for a broker and opaque to
all else. The broker stops sending when too much is on its way and not confirmed, so memory is bounded on both sides.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError

from runtime.bus import BrokerAway

API = "$JS.API.STREAM"
PIECE_BYTES = 128 * 1024
"""Of a snapshot: a message must stay below what a broker takes at once, which is 1 MB by default."""
GIVEN_BYTES = 32 * 1024
"""Of a piece that is restored: a broker that syncs each message has a thousand small ones in it to sync."""
PIECE_WAIT_S_MAX = 60.0
"""A broker first makes sure that the stream's files are whole, and syncs a restored one before it says so."""
RETRY_S = 0.05
STATUS = "Status"
STATUS_END = "204"


async def take(
    nc: Client, stream: str, *, consumers: bool
) -> tuple[Mapping[str, Any], AsyncGenerator[bytes, None]]:
    """What the stream is (`config` and `state`, as the broker says it), and its snapshot in pieces, to be closed.

    With `consumers`, the durable ones come along, each with its position. The pieces raise BrokerAway where one does
    not come in time or the broker gives up. Raises APIError where the broker refuses, one being NotFoundError.
    """
    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox)
    try:
        wanted = {
            "deliver_subject": inbox,
            "no_consumers": not consumers,
            "chunk_size": PIECE_BYTES,
            "jsck": True,
        }
        answer = await ask(nc, f"{API}.SNAPSHOT.{stream}", wanted)
    except BaseException:
        await subscription.unsubscribe()
        raise

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                try:
                    piece = await subscription.next_msg(timeout=PIECE_WAIT_S_MAX)
                except nats.errors.TimeoutError:
                    raise BrokerAway(
                        f"the broker stopped in the middle of the snapshot of {stream}"
                    ) from None
                if not piece.data:
                    _require_end(piece, stream)
                    return
                yield piece.data
                if piece.reply:
                    await nc.publish(piece.reply)
        finally:
            await subscription.unsubscribe()

    return answer, pieces()


def _require_end(piece: Msg, stream: str) -> None:
    status = (piece.headers or {}).get(STATUS, STATUS_END)
    if status != STATUS_END:
        why = (piece.headers or {}).get("Description", status)
        raise BrokerAway(f"the broker gave up the snapshot of {stream}: {why}")


async def give(
    nc: Client, config: Mapping[str, Any], state: Mapping[str, Any], pieces: Iterable[bytes]
) -> Mapping[str, Any]:
    """Make a stream that is not there of its snapshot, set as `config` says; what the broker says it is then.

    The stream is there whole, or not at all. Raises APIError where the broker refuses, BrokerAway where it is silent.
    """
    stream = str(config["name"])
    opened = await ask(nc, f"{API}.RESTORE.{stream}", {"config": config, "state": state})
    subject = str(opened["deliver_subject"])
    for piece in pieces:
        for at in range(0, len(piece), GIVEN_BYTES):
            await ask(nc, subject, piece[at : at + GIVEN_BYTES])
    return await ask(nc, subject, b"")


async def info(nc: Client, stream: str) -> dict[str, Any]:
    """What a stream is, with every setting as the broker says it: nats-py leaves out those that it does not know."""
    return dict(await ask(nc, f"{API}.INFO.{stream}", b""))


async def ask(nc: Client, subject: str, question: Mapping[str, Any] | bytes) -> Mapping[str, Any]:
    """The broker's answer to a question by its API. Raises APIError where it refuses, BrokerAway where it is silent."""
    payload = question if isinstance(question, bytes) else json.dumps(question).encode()
    try:
        async with asyncio.timeout(PIECE_WAIT_S_MAX):
            answer = await _answer(nc, subject, payload)
    except (TimeoutError, nats.errors.TimeoutError):
        raise BrokerAway(
            f"the broker did not answer within {PIECE_WAIT_S_MAX:g} s, or the connection to it was lost"
        ) from None
    said: Mapping[str, Any] = json.loads(answer.data) if answer.data else {}
    if "error" in said:
        APIError.from_error(said["error"])  # raises
    return said


async def _answer(nc: Client, subject: str, payload: bytes) -> Msg:
    """In a cluster, the node that we talk to hears a moment later that another one waits for the first piece."""
    while True:
        try:
            return await nc.request(subject, payload, timeout=PIECE_WAIT_S_MAX)
        except nats.errors.NoRespondersError:
            await asyncio.sleep(RETRY_S)
