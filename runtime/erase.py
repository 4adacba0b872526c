"""Erasing from the broker: overwritten in its files, not only marked as deleted. Only the operator may.

What is not there any more is no error: whoever was interrupted while erasing does it all again.
"""

from __future__ import annotations

import json

from nats.js import JetStreamContext
from nats.js.api import ObjectInfo
from nats.js.errors import APIError, NotFoundError

from runtime import streams
from runtime.bus import description_subject, first_of_bodies, pieces_subject


async def erase_message(js: JetStreamContext, stream: str, seq: int) -> bool:
    """Overwrite the message at `seq`; whether there was one."""
    try:
        # Without `no_erase`: with it, the bytes would stay in the file until that is compacted.
        await js.delete_msg(stream, seq)
    except APIError:
        # The server has one code for whatever keeps it from deleting, a message that is not there among it.
        if await _is_there(js, stream, seq):
            raise
        return False
    return True


async def _is_there(js: JetStreamContext, stream: str, seq: int) -> bool:
    try:
        await js.get_msg(stream, seq)
    except NotFoundError:
        return False
    return True


async def erase_body(js: JetStreamContext, name: str) -> int:
    """Overwrite the large body stored under `name`, however often it was stored; how many messages that were.

    Equal bodies of other deliveries have names of their own, and stay.
    """
    erased = 0
    while (found := await first_of_bodies(js, description_subject(name))) is not None:
        # Its pieces first: whoever comes again finds the rest of them by what describes them.
        if (nuid := _nuid(found.data or b"")) is not None:
            erased += await _erase_all(js, pieces_subject(nuid))
        erased += await erase_message(js, streams.BODIES_STREAM, found.seq or 0)
    return erased


def _nuid(description: bytes) -> str | None:
    try:
        info: ObjectInfo = ObjectInfo.from_response(json.loads(description))
    except (ValueError, TypeError):
        return None
    return info.nuid


async def _erase_all(js: JetStreamContext, subject: str) -> int:
    erased = 0
    while (found := await first_of_bodies(js, subject)) is not None:
        erased += await erase_message(js, streams.BODIES_STREAM, found.seq or 0)
    return erased
