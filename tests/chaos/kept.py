"""Processes that are kept running, and what is done to them."""

from __future__ import annotations

import asyncio
import os
import resource
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


class Kept:
    """A process that is started whenever it has ended, unless it is held down."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.troubles: list[str] = []
        """Ends that nobody asked for, and stops that took too long."""
        self.log = folder / f"{name}.log"
        self._command = command
        self._environment = environment
        self._stop_signal = stop_signal
        self._process: Process | None = None
        self._said_before = 0
        """Bytes of the log that those before it wrote."""
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
            self._ended.clear()
            with self.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=self._environment,
                    cwd=ROOT,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=dies_with_us(signal.SIGKILL),
                )
            self._said_before = self.log.stat().st_size
            self._process = process
            code = await process.wait()
            self._process = None
            self._ended.set()
            if self._wanted.is_set():
                self.troubles.append(f"{self.name} ended by itself with {code}: {self._last_words()}")
                await asyncio.sleep(AGAIN_S)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-LAST_WORDS_CHARS:]

    @property
    def runs(self) -> bool:
        return self._process is not None

    async def kill(self) -> bool:
        """End it and its children at once, and hold it down; whether it ran."""
        ran = self.runs
        self._wanted.clear()
        while not self._ended.is_set():  # it may be about to start, or to have one child more
            for pid in self._family():
                send(pid, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await self._ended.wait()
        return ran

    async def ask_to_stop(self) -> bool:
        """Have it end as it likes, and hold it down; whether it ran. How long that takes is looked at."""
        ran = self.runs
        self._wanted.clear()
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
        return ran

    def freeze(self) -> bool:
        """Stop it and its children where they are; whether it ran."""
        for pid in self._family():
            send(pid, signal.SIGSTOP)
        return self.runs

    def thaw(self) -> None:
        for pid in reversed(self._family()):
            send(pid, signal.SIGCONT)

    def crash_a_child(self) -> bool:
        """Kill the youngest of its children; whether there was one."""
        children = self._family()[1:]
        if children:
            send(max(children), signal.SIGKILL)
        return bool(children)

    def starve(self) -> bool:
        """Let it open no file and no connection more; whether it ran. One that still reads its code is spared."""
        return self.log.stat().st_size > self._said_before and self._may_open(_lowest_free)

    def feed(self) -> None:
        """Let it open again what it may."""
        self._may_open(lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE)[1])

    def _may_open(self, count: Callable[[int], int]) -> bool:
        if self._process is None:
            return False
        pid = self._process.pid
        try:
            _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (count(pid), most))
        except (ProcessLookupError, FileNotFoundError):
            return False
        return True

    async def end(self) -> None:
        """It is not needed any more."""
        await self.kill()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None

    def _family(self) -> list[int]:
        """Its id and its children's, the eldest first."""
        return [] if self._process is None else family(self._process.pid)


def _lowest_free(pid: int) -> int:
    """The number that the next thing would get that a process opens."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(n for n in range(len(taken) + 1) if n not in taken)


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


async def left_alive(folder: Path) -> list[str]:
    """Those that still run after a moment and have to do with `folder`: by what they were called, told or work in."""
    deadline = time.monotonic() + GONE_S_MAX
    while (left := _about(folder)) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return left


def _about(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            known_by = command + (path / "environ").read_bytes() + bytes((path / "cwd").readlink())
        except OSError:
            continue  # it has ended, or is somebody else's
        if bytes(folder) in known_by and path.name != str(os.getpid()):
            found.append(f"process {path.name}: {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def _stat(pid: int) -> list[str]:
    """From the state on, without the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
