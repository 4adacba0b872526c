"""Ports of this machine: hold one for a service that will listen there, and ask a service how it is."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import sys
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from runtime.settings import BadSettings

LISTEN_BACKLOG = 1024
"""Connections that wait to be taken."""
ANSWER_S_MAX = 6.0
"""A service asks its own servers first, each for up to 2 s."""
ANSWER_BYTES_MAX = 64 * 1024
METRICS_BYTES_MAX = 4_000_000


def listen(host: str, port: int) -> socket.socket | None:
    """A socket that listens on `port` (0: any), for a service to inherit; None where it is in use.

    Whoever connects while the service restarts waits in its queue and is not refused.
    """
    listener, address = _socket(host)
    # A connection of an earlier run that lingers is in nobody's way.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not _bound(listener, (address, port), host):
        return None
    listener.listen(LISTEN_BACKLOG)
    return listener


def reserve(host: str, port: int) -> socket.socket | None:
    """A socket that holds `port` (0: any) for this user until it is closed; None where it is in use.

    The services share their ports (SO_REUSEPORT), so two of them on one port would not fail but split the
    requests. The holder is bound alone and shared only afterwards: the second start sees a busy port, and
    nobody takes it while the service restarts.
    """
    holder, address = _socket(host)
    if not _bound(holder, (address, port), host):
        return None
    if sys.platform != "linux":
        holder.close()  # elsewhere a port cannot be shared after it was bound alone
    else:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return holder


def _socket(host: str) -> tuple[socket.socket, str]:
    """A socket for an address of `host`, and that address; raises BadSettings."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise BadSettings(f"ODOOOPS_HOST or ODOOOPS_OPS_HOST is {host!r}: {error.strerror}") from None
    return socket.socket(family, kind), str(address[0])


def _bound(made: socket.socket, address: tuple[str, int], host: str) -> bool:
    """Whether the socket has the address now; else it is closed, and somebody else has it. Raises BadSettings."""
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            return False
        raise BadSettings(f"cannot use port {address[1]} of {host}: {error.strerror}") from None
    return True


async def problems_at(host: str, port: int) -> dict[str, str] | None:
    """What the service with this ops port says is wrong with it; None where it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            answer = await _get(host, port, "/readyz")
        problems = json.loads(answer.partition(b"\r\n\r\n")[2])["problems"]
    except (OSError, ValueError, KeyError):
        return None
    return {str(part): str(sentence) for part, sentence in problems.items()}


Labels = Mapping[str, str]


async def metrics_at(host: str, port: int, name: str) -> list[tuple[Labels, float]] | None:
    """The samples called `name` of the service with this ops port; None where it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            answer = await _get(host, port, "/metrics", METRICS_BYTES_MAX)
        families = text_string_to_metric_families(answer.partition(b"\r\n\r\n")[2].decode())
        return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]
    except (OSError, ValueError):
        return None


async def _get(host: str, port: int, path: str, bytes_max: int = ANSWER_BYTES_MAX) -> bytes:
    """A whole answer, headers and body, of at most `bytes_max`."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := await reader.read(bytes_max - len(answer)):
            answer += chunk
        return answer
    finally:
        writer.close()
        await writer.wait_closed()
