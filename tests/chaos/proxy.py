"""A TCP proxy on loopback that cuts, slows, swallows and forgets connections as it is told."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from functools import partial

from runtime.embedded import LOOPBACK, free_port

CHUNK_BYTES = 64 * 1024
SLOW_S = 0.15
SLOW_BYTES_PER_S = 200_000
_RESET = struct.pack("ii", 1, 0)
"""A connection that is closed with it ends with an error at the other side."""


class Link:
    """The way of one client to one server, or to several that are alike, each by a port of its own.

    What passes is forwarded in order, whatever is done to it.
    """

    def __init__(self, *to_ports: int) -> None:
        self.ports = {to_port: free_port() for to_port in to_ports}
        """Where to connect, by the server's own port."""
        self._servers: list[asyncio.Server] = []
        self._passes = asyncio.Event()
        self._passes.set()
        self._slow = self._refuses = self._forgets_next = False
        self.hurt = 0
        """How many connections, or pieces of what they carried, were cut, held back, slowed or swallowed."""
        self._lines: set[_Line] = set()

    @property
    def port(self) -> int:
        """Where to connect, if there is one server."""
        (port,) = self.ports.values()
        return port

    async def open(self) -> None:
        for to_port, port in self.ports.items():
            self._servers.append(await asyncio.start_server(partial(self._accept, to_port), LOOPBACK, port))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self.heal()
        self.reset()
        await asyncio.gather(*(line.ended.wait() for line in self._lines))

    def reset(self) -> None:
        """Cut whoever is connected now."""
        self.hurt += len(self._lines)
        for line in tuple(self._lines):
            line.abort()

    def refuse(self) -> None:
        """Cut whoever is connected, and from now on whoever connects."""
        self._refuses = True
        self.reset()

    def swallow(self) -> None:
        """Let nothing through, neither bytes nor an end, until it is healed: then what was held back goes on."""
        self._passes.clear()

    def forget(self) -> None:
        """Let nothing through on today's connections for ever, as a firewall that lost its table does.

        Where nobody is connected, that happens to the next who comes before it is healed.
        """
        self._forgets_next = not self._lines
        for line in self._lines:
            self._forget(line)

    def _forget(self, line: _Line) -> None:
        line.dead = True
        self.hurt += 1

    def slow(self) -> None:
        """Hold back each chunk, and let little through in a second."""
        self._slow = True

    def heal(self) -> None:
        """All is well for whoever is connected and not forgotten."""
        self._refuses = self._slow = self._forgets_next = False
        self._passes.set()

    async def _accept(self, to_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line(self, [writer])
        self._lines.add(line)
        if self._forgets_next:
            self._forgets_next = False
            self._forget(line)
        try:
            if self._refuses:
                self.hurt += 1
                return
            await self._to_pass()
            away_reader, away = await asyncio.open_connection(LOOPBACK, to_port)
            line.writers.append(away)
            line.pumps = [
                asyncio.create_task(line.pump(reader, away)),
                asyncio.create_task(line.pump(away_reader, writer)),
            ]
            await asyncio.wait(line.pumps)
        except OSError:
            pass  # nobody listens there
        finally:
            line.abort()
            self._lines.discard(line)
            line.ended.set()

    async def passing(self, count: int) -> None:
        """Wait until `count` bytes may pass."""
        await self._to_pass()
        if self._slow:
            self.hurt += 1
            await asyncio.sleep(SLOW_S + count / SLOW_BYTES_PER_S)
            await self._to_pass()

    async def _to_pass(self) -> None:
        if not self._passes.is_set():
            self.hurt += 1
            await self._passes.wait()


class _Line:
    """One connection, both ways."""

    def __init__(self, link: Link, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.pumps: list[asyncio.Task[None]] = []
        self.dead = False
        self.ended = asyncio.Event()
        self._link = link

    def abort(self) -> None:
        for writer in self.writers:
            with suppress(OSError, ValueError, AttributeError):  # it has ended
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        for pump in self.pumps:
            pump.cancel()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one way; its end, and only that, is passed on, too."""
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._passing(len(data))
                writer.write(data)
                await writer.drain()
            await self._passing(0)
            with suppress(OSError):
                writer.write_eof()
        except OSError:
            await self._passing(0)
            self.abort()

    async def _passing(self, count: int) -> None:
        await self._link.passing(count)
        if self.dead:
            await asyncio.Event().wait()  # until it is aborted
