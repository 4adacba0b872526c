"""The body of a request: counted while it streams, against its own limit and against the memory of all."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Hashable
from io import BytesIO

from starlette.types import Receive

from providers.port import Refused
from runtime import streams


class SenderLeft(Exception):
    """the body ended before it was complete"""


class Memory:
    """The bytes of all bodies in hand, and of those whose senders are strangers."""

    def __init__(self) -> None:
        self.held = 0
        self._of: Counter[Hashable] = Counter()
        self._of_strangers = 0

    def require_room(self, more: int, stranger: Hashable | None) -> None:
        """Refuse where `more` bytes would be too many; None is no stranger."""
        full = self.held + more > streams.BODIES_IN_FLIGHT_BYTES_MAX
        if stranger is not None:
            full |= self._of_strangers + more > streams.BODIES_OF_STRANGERS_BYTES_MAX
            full |= self._of[stranger] + more > streams.BODIES_OF_A_STRANGER_BYTES_MAX
        if full:
            raise Refused(503, "too_many_bytes", "too many large bodies at once, send it again")

    def hold(self, more: int, stranger: Hashable | None) -> None:
        """Count bytes; a negative number gives them back."""
        self.held += more
        if stranger is not None:
            self._of_strangers += more
            self._of[stranger] += more
            if not self._of[stranger]:
                del self._of[stranger]


class Body:
    """One body. What it announces may refuse it early; only what came is counted, and held until `release`."""

    def __init__(
        self, receive: Receive, memory: Memory, content_length: str | None, stranger: Hashable | None = None
    ) -> None:
        self._receive = receive
        self._memory = memory
        self._stranger = stranger
        self._began = asyncio.get_running_loop().time()
        self._announced = int(content_length) if content_length and content_length.isdecimal() else None
        self._seen = 0
        self._pieces = 0
        self._held = 0
        self._over = self._announced == 0
        """Nothing more will come, or nothing more is waited for."""

    async def read(self, update: Callable[[bytes], None]) -> bytes:
        """The whole body; each chunk is given to `update` as it comes. Raises Refused, SenderLeft."""
        if self._announced is not None:
            if self._announced > streams.BODY_BYTES_MAX:
                raise _too_large()
            self._memory.require_room(self._announced, self._stranger)
        whole = BytesIO()  # grows in place: a list of chunks would be held twice when it is joined
        try:
            async with asyncio.timeout_at(self._due()) as waiting:
                while not self._over:
                    chunk = await self._next()
                    if not self._over:
                        waiting.reschedule(self._due())
                    if self._seen > streams.BODY_BYTES_MAX:
                        raise _too_large()
                    self._hold(len(chunk))
                    update(chunk)
                    whole.write(chunk)
        except TimeoutError:
            self._over = True
            sentence = (
                f"the body did not arrive within {streams.BODY_READ_S_MAX:g} s, or came at less than"
                f" {streams.BODY_BYTES_PER_S_MIN} bytes a second"
            )
            raise Refused(408, "body_too_slow", sentence) from None
        return whole.getvalue()

    async def drain(self, bytes_max: int = streams.DRAIN_BYTES_MAX, s_max: float = math.inf) -> None:
        """Read on and throw away, up to limits: a sender that is cut off while writing never sees the answer."""
        if self._over or (self._announced or 0) > bytes_max:
            return
        latest = asyncio.get_running_loop().time() + s_max
        try:
            async with asyncio.timeout_at(min(self._due(), latest)) as waiting:
                while not self._over and self._seen <= bytes_max:
                    await self._next()
                    waiting.reschedule(min(self._due(), latest))
        except (SenderLeft, TimeoutError, Refused):
            self._over = True  # whoever is still there gets the answer now

    def abandon(self) -> None:
        """Wait for nothing more."""
        self._over = True

    def release(self) -> None:
        """Give the memory back."""
        self._memory.hold(-self._held, self._stranger)
        self._held = 0

    def _due(self) -> float:
        """When more of it must have come."""
        earned_s = streams.BODY_GRACE_S + self._seen / streams.BODY_BYTES_PER_S_MIN
        return self._began + min(streams.BODY_READ_S_MAX, earned_s)

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._over = True
            raise SenderLeft
        chunk: bytes = message.get("body", b"")
        self._seen += len(chunk)
        # The server keeps to Content-Length: asking for the end as well would cost a trip between its threads.
        self._over = not message.get("more_body", False) or self._seen == self._announced
        self._pieces += 1
        if self._pieces > streams.BODY_PIECES_FREE + self._seen // streams.BODY_PIECE_BYTES_MIN:
            self._over = True
            raise Refused(400, "too_many_chunks", "the body comes in chunks that are too small")
        return chunk

    def _hold(self, more: int) -> None:
        self._memory.require_room(more, self._stranger)
        self._memory.hold(more, self._stranger)
        self._held += more


def _too_large() -> Refused:
    return Refused(413, "body_too_large", f"the body is larger than {streams.BODY_BYTES_MAX} bytes")
