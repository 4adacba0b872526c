"""Processes that are kept running, and what is done to them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from runtime.supervisor import dies_with_us

ROOT = Path(__file__).parents[2]
AGAIN_S = 0.3
PROMISED_STOP_S = 10.0
STOP_S_MAX = 20.0
GONE_S_MAX = 5.0
LAST_WORDS_CHARS = 600

Known = tuple[int, str]
"""A process by its id and the time of its start: ids come again."""


class Kept:
    """A process that is started whenever it has ended, unless it is held down."""

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        folder: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.troubles: list[str] = []
        """Ends that nobody asked for, and stops that took too long."""
        self.log = folder / f"{name}.log"
        self.seen: set[Known] = set()
        """All that it ever was, and its children where they were looked for."""
        self._command = command
        self._environment = environment
        self._stop_signal = stop_signal
        self._process: Process | None = None
        self._wanted = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Let it run."""
        self._wanted.set()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            with self.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *self._command(),
                    env=self._environment,
                    cwd=ROOT,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=dies_with_us(signal.SIGKILL),
                )
            self._process = process
            self._ended.clear()
            self._look()
            code = await process.wait()
            self._process = None
            self._ended.set()
            if self._wanted.is_set():
                self.troubles.append(f"{self.name} ended by itself with {code}: {self._last_words()}")
                await asyncio.sleep(AGAIN_S)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-LAST_WORDS_CHARS:]

    async def kill(self) -> None:
        """End it and its children at once, and hold it down."""
        self._wanted.clear()
        for pid in self._look():
            send(pid, signal.SIGKILL)
        await self._ended.wait()

    async def ask_to_stop(self) -> None:
        """Have it end as it likes, and hold it down; how long that takes is looked at."""
        self._wanted.clear()
        self._look()
        began = time.monotonic()
        if self._process is not None:
            send(self._process.pid, self._stop_signal)
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self._ended.wait()
        except TimeoutError:
            await self.kill()
        if (took := time.monotonic() - began) > PROMISED_STOP_S:
            self.troubles.append(f"{self.name} took {took:.1f} s to stop: {self._last_words()}")

    def freeze(self) -> None:
        for pid in self._look():
            send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in reversed(self._look()):
            send(pid, signal.SIGCONT)

    def crash_a_child(self) -> None:
        """Kill the youngest of its children."""
        if len(pids := self._look()) > 1:
            send(max(pids[1:]), signal.SIGKILL)

    async def end(self) -> None:
        """It is not needed any more."""
        await self.kill()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    def _look(self) -> list[int]:
        """Its id and its children's, the eldest first."""
        if self._process is None:
            return []
        found = family(self._process.pid)
        self.seen |= {(pid, started) for pid in found if (started := _started(pid)) is not None}
        return found


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (fields := _stat(int(path.name))):
            parents.setdefault(int(fields[1]), []).append(int(path.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


async def left_alive(seen: set[Known]) -> set[Known]:
    """Those that still run after a moment."""
    deadline = time.monotonic() + GONE_S_MAX
    while left := {(pid, started) for pid, started in seen if _started(pid) == started}:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.05)
    return left


def _started(pid: int) -> str | None:
    """When it was started; None where it runs no more."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def _stat(pid: int) -> list[str]:
    """From the state on, without the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
