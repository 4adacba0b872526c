"""What the poller remembers: a bucket of keys and values on the broker.

It lies in the form of JetStream's key-value store, so that the broker's own tools read it. It is not written by
nats-py's client, which reads from replicas: one that lags would show a lease that is long taken.
"""

from __future__ import annotations

import asyncio

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError
from nats.nuid import NUID

from contracts.delivery import MESSAGE_ID
from runtime import streams
from runtime.bus import STREAM_FULL_CODES, BrokerAway, LogFull

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_REMOVED = ("KV-Operation", "Nats-Marker-Reason")
_OTHER_REVISION_CODES = {10071, 10164}
_NO_MESSAGE_CODE = 10037


class Moved(Exception):
    """somebody else has written this key meanwhile"""


class Bucket:
    """Keys are subject tokens with dots between. Every method raises BrokerAway, and those that write LogFull."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def get(self, key: str) -> tuple[bytes | None, int]:
        """The value and its revision, as the leader has them; None where there is none, at revision 0 if never."""
        try:
            found = await self._js.get_msg(streams.POLLER_STREAM, subject=_subject(key))
        except NotFoundError as error:
            if error.err_code != _NO_MESSAGE_CODE:
                raise BrokerAway(f"{streams.POLLER_STREAM}: {error.description}") from None
            return None, 0
        except (nats.errors.Error, APIError) as error:
            raise BrokerAway(f"{streams.POLLER_STREAM}: {str(error) or type(error).__name__}") from None
        removed = any(name in (found.headers or {}) for name in _REMOVED)
        return None if removed else found.data or b"", found.seq or 0

    async def put(self, key: str, value: bytes) -> None:
        """Write, whatever was there."""
        await self._publish(key, value, {})

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write where the key is at `revision` still, 0 for none; its new one. Raises Moved."""
        return await self._publish(key, value, {_EXPECTED: str(revision)})

    async def _publish(self, key: str, value: bytes, headers: dict[str, str]) -> int:
        """Publish until acknowledged: the message id makes a repeat harmless, and is compared before the revision."""
        once = {MESSAGE_ID: NUID().next().decode(), **headers}
        try:
            async with asyncio.timeout(streams.ACCEPT_S_MAX):
                while True:
                    try:
                        ack = await self._js.publish(
                            _subject(key),
                            value,
                            timeout=streams.PUBLISH_ATTEMPT_S,
                            stream=streams.POLLER_STREAM,
                            headers=once,
                        )
                        return ack.seq
                    except APIError as error:
                        if error.err_code in _OTHER_REVISION_CODES:
                            raise Moved(key) from None
                        if error.err_code in STREAM_FULL_CODES:
                            raise LogFull(f"{streams.POLLER_STREAM}: {error.description}") from None
                        await asyncio.sleep(streams.RECONNECT_WAIT_S)
                    except nats.errors.TimeoutError:
                        continue
                    except nats.errors.Error:
                        await asyncio.sleep(streams.RECONNECT_WAIT_S)
        except TimeoutError:
            raise BrokerAway("the broker did not acknowledge in time") from None


def _subject(key: str) -> str:
    return f"$KV.{streams.POLLER_BUCKET}.{key}"
