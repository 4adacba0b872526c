"""What was stored last of each thing, which things each listing showed, and what parts want to know again.

Losing it costs only that things are read and stored again; so nothing is kept longer than POLLER_MEMORY_S_MAX.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.bucket import Bucket
from runtime.streams import POLLER_VALUE_BYTES_MAX

STATE_BYTES_MAX = 64 * 1024
SHOWN_COUNT_MAX = 5_000
"""Things of one scope that were seen since its last whole listing. Packed they are far below POLLER_VALUE_BYTES_MAX."""
_DIGEST_CHARS = 32

Refs = Mapping[str, Sequence[str]]
"""By kind."""


class TooLarge(Exception):
    """more than STATE_BYTES_MAX are to be kept"""


def key_of(what: str, source: str, *names: str) -> str:
    """The key of something about a source. Names are hashed: they hold characters that no key has."""
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:_DIGEST_CHARS]
    return f"{what}.{source}.{digest}"


class Memory:
    """Of one source. What it is told in a dry run it forgets at once."""

    def __init__(self, bucket: Bucket, source: str, *, dry_run: bool = False) -> None:
        self._bucket = bucket
        self._source = source
        self._dry_run = dry_run

    async def last(self, kind: str, ref: str) -> str | None:
        """The hash of the content that was stored last of a thing."""
        found, _ = await self._bucket.get(key_of("item", self._source, kind, ref))
        return None if found is None else found.decode()

    async def remember(self, kind: str, ref: str, body_sha256: str) -> None:
        """This content of a thing is stored."""
        await self._put(key_of("item", self._source, kind, ref), body_sha256.encode())

    async def listed(self, scope: str) -> Refs | None:
        """What the last whole listing of a scope showed; None where none is remembered, or not all of it."""
        pieces: list[bytes] = []
        reading, count = None, 1
        while len(pieces) < count:
            found, _ = await self._bucket.get(self._piece(scope, len(pieces)))
            # A crash between two pieces leaves some of an older listing.
            reading_id, _, rest = (found or b"").partition(b"\n")
            stated, _, piece = rest.partition(b"\n")
            if found is None or reading not in (None, reading_id):
                return None
            reading, count = reading_id, int(stated)
            pieces.append(piece)
        shown: Refs = json.loads(zlib.decompress(b"".join(pieces)))
        return shown

    async def remember_listed(self, scope: str, reading: str, shown: Refs) -> None:
        """A listing is whole; `reading` is a name that no other reading of it has."""
        packed = zlib.compress(json.dumps(shown).encode())
        size = POLLER_VALUE_BYTES_MAX
        pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
        for n, piece in enumerate(pieces):
            head = f"{reading}\n{len(pieces)}\n".encode()
            await self._put(self._piece(scope, n), head + piece)
        if await self.shown_since(scope):
            await self._put(self._since(scope), b"")

    async def shown_since(self, scope: str) -> Sequence[str]:
        """What was seen since the last whole listing of a scope, and new then."""
        found, _ = await self._bucket.get(self._since(scope))
        refs: Sequence[str] = json.loads(zlib.decompress(found)) if found else ()
        return refs

    async def remember_shown(self, scope: str, refs: Sequence[str]) -> None:
        """These are new in a scope; beyond SHOWN_COUNT_MAX they are not remembered."""
        if refs:
            known = dict.fromkeys((*await self.shown_since(scope), *refs))
            packed = zlib.compress(json.dumps(list(known)[:SHOWN_COUNT_MAX]).encode())
            await self._put(self._since(scope), packed)

    async def kept(self, scope: str, part: str) -> Mapping[str, Any]:
        """What a part kept; empty where that is nothing."""
        found, _ = await self._bucket.get(key_of("kept", self._source, scope, part))
        state: Mapping[str, Any] = {} if found is None else json.loads(found)
        return state

    async def keep(self, scope: str, part: str, state: Mapping[str, Any]) -> None:
        """A part wants to know this the next time; raises TooLarge."""
        value = json.dumps(state).encode()
        if len(value) > STATE_BYTES_MAX:
            raise TooLarge(f"{len(value)} bytes are to be kept, at most {STATE_BYTES_MAX} can be")
        await self._put(key_of("kept", self._source, scope, part), value)

    def _since(self, scope: str) -> str:
        return key_of("shown", self._source, scope)

    def _piece(self, scope: str, n: int) -> str:
        return key_of("listed", self._source, scope, str(n))

    async def _put(self, key: str, value: bytes) -> None:
        if not self._dry_run:
            await self._bucket.put(key, value)
