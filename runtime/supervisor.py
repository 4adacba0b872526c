"""Starts processes, keeps them running, and stops those first that use the others.

Every child leads a session of its own, so that Ctrl-C reaches the supervisor alone and the order of stopping
is kept. On Linux the kernel signals a child when its supervisor dies by whatever cause (PR_SET_PDEATHSIG; an
exec keeps it, and so does the `unshare` in front of Postgres). Elsewhere the children of a supervisor that
was killed outright stay, and the next start waits for them by the lock that they inherit (runtime/state.py).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from signal import Signals

START_S_MAX = 30.0
"""How long a child may take until it is ready for the first time."""
STOP_S_MAX = 12.0
"""How long a child may take to stop before it is killed; services promise 10 s."""
READY_EVERY_S = 0.03
BACKOFF_S_MIN = 0.2
BACKOFF_S_MAX = 15.0
BACKOFF_FACTOR = 2.0
STABLE_S = 30.0
"""A child that lived this long is started again without the delays of earlier deaths."""
LOG_BYTES_MAX = 10_000_000
"""A log that is longer when its process starts is put aside as `<name>.log.1`."""
LAST_WORDS_CHARS_MAX = 300
LAST_WORDS_BYTES_MAX = 8_192

_PR_SET_PDEATHSIG = 1


class DidNotStart(Exception):
    """a process did not become ready; the message quotes its last words"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process to be kept. `stop_signal` asks it to stop, also when its supervisor has died.

    A child of a higher `level` uses those below and is stopped before them.
    """

    name: str
    level: int = 0
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    ready: Callable[[], Awaitable[bool]]
    stop_signal: Signals = Signals.SIGTERM
    stop_s_max: float = STOP_S_MAX
    fds: Sequence[int] = ()
    """Descriptors that it inherits besides what all do."""


@dataclass(slots=True)
class _Kept:
    child: Child
    process: Process
    keeper: asyncio.Task[None] | None = None


def environment(without: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    """A child's environment: this process's, less the variables that begin with one of `without`, plus `own`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(tuple(without))}
    return {**inherited, **own}


class Supervisor:
    """Keeps children. `report` hears one sentence per death, `spawned` is called when a process id changed."""

    def __init__(
        self,
        log_dir: Path,
        report: Callable[[str], None],
        spawned: Callable[[], None] = lambda: None,
        inherited_fds: Sequence[int] = (),
    ) -> None:
        self._log_dir = log_dir
        self._report = report
        self._spawned = spawned
        self._inherited_fds = tuple(inherited_fds)
        self._kept: list[_Kept] = []
        log_dir.mkdir(parents=True, exist_ok=True)

    @property
    def pids(self) -> dict[str, int]:
        """The process id that each child had last, by name."""
        return {kept.child.name: kept.process.pid for kept in self._kept}

    async def start(self, *children: Child) -> None:
        """Start `children` beside each other, return when all are ready, keep them from then on.

        Raises DidNotStart.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(self._start(child))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def run(self, name: str, argv: Sequence[str], env: Mapping[str, str], level: int = 0) -> None:
        """Run a process to its end; raises DidNotStart with its last words where it ends badly."""
        child = Child(name=name, level=level, argv=argv, env=env, ready=_at_once)
        kept = _Kept(child, await self._spawn(child))
        # Among the others while it runs, so that a stop in between reaches it.
        self._kept.append(kept)
        code = await kept.process.wait()
        self._kept.remove(kept)
        if code != 0:
            raise DidNotStart(self._epitaph(child, code))

    async def stop(self) -> None:
        """Stop everything, the highest level first; kill what outlives its deadline."""
        keepers = {kept.keeper for kept in self._kept if kept.keeper is not None}
        for keeper in keepers:
            keeper.cancel()  # from here on a death is the end
        if keepers:
            await asyncio.wait(keepers)
        for level in sorted({kept.child.level for kept in self._kept}, reverse=True):
            await asyncio.gather(*(self._end(kept) for kept in self._kept if kept.child.level == level))
        self._kept.clear()

    def kill(self) -> None:
        """Kill everything at once: for an operator who will not wait for `stop`."""
        for kept in self._kept:
            _signal_group(kept.process.pid, Signals.SIGKILL)

    async def _start(self, child: Child) -> None:
        kept = _Kept(child, await self._spawn(child))
        self._kept.append(kept)
        self._spawned()
        ended = asyncio.ensure_future(kept.process.wait())
        try:
            async with asyncio.timeout(START_S_MAX):
                while not ended.done() and not await child.ready():
                    await asyncio.wait({ended}, timeout=READY_EVERY_S)
        except TimeoutError:
            raise DidNotStart(
                f"{child.name} was not ready within {START_S_MAX:.0f} s{self._see(child)}"
            ) from None
        finally:
            ended.cancel()
        if kept.process.returncode is not None:
            raise DidNotStart(self._epitaph(child, kept.process.returncode))
        kept.keeper = asyncio.create_task(self._keep(kept))

    async def _keep(self, kept: _Kept) -> None:
        """Start the child again whenever it ends, until cancelled."""
        wait_s = BACKOFF_S_MIN
        started = time.monotonic()
        while True:
            code = await kept.process.wait()
            _signal_group(kept.process.pid, Signals.SIGKILL)  # what the dead leader left behind
            if time.monotonic() - started > STABLE_S:
                wait_s = BACKOFF_S_MIN
            self._report(f"{kept.child.name} ended ({_how(code)}): starting it again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * BACKOFF_FACTOR, BACKOFF_S_MAX)
            started = time.monotonic()
            try:
                kept.process = await self._spawn(kept.child)
            except DidNotStart as error:
                self._report(str(error))
                continue
            self._spawned()

    async def _end(self, kept: _Kept) -> None:
        process = kept.process
        if process.returncode is None:
            process.send_signal(kept.child.stop_signal)
            try:
                async with asyncio.timeout(kept.child.stop_s_max):
                    await process.wait()
            except TimeoutError:
                self._report(f"{kept.child.name} did not stop within {kept.child.stop_s_max:g} s: killing it")
        _signal_group(process.pid, Signals.SIGKILL)
        await process.wait()

    async def _spawn(self, child: Child) -> Process:
        with self._log_of(child) as log:
            try:
                return await asyncio.create_subprocess_exec(
                    *child.argv,
                    env=child.env,
                    stdin=DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(*self._inherited_fds, *child.fds),
                    preexec_fn=dies_with_us(child.stop_signal),
                )
            except OSError as error:
                raise DidNotStart(
                    f"{child.name} cannot be started: {child.argv[0]}: {error.strerror}"
                ) from None

    def _log_of(self, child: Child) -> BufferedWriter:
        """The child's log, to append to; a long one is put aside first."""
        path = self._log_dir / f"{child.name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        path.touch(mode=0o600)
        return open(path, "ab")

    def _epitaph(self, child: Child, code: int) -> str:
        return f"{child.name} ended ({_how(code)}){self._see(child)}"

    def _see(self, child: Child) -> str:
        path = self._log_dir / f"{child.name}.log"
        with open(path, "rb") as log:
            log.seek(max(0, path.stat().st_size - LAST_WORDS_BYTES_MAX))
            lines = log.read().decode(errors="replace").strip().splitlines()
        words = f": {lines[-1].strip()[:LAST_WORDS_CHARS_MAX]}" if lines else ""
        return f"{words} (its log is {path})"


async def _at_once() -> bool:
    return True


def _how(code: int) -> str:
    return f"killed by {Signals(-code).name}" if code < 0 else f"exit code {code}"


def _signal_group(leader: int, number: Signals) -> None:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left in it, or its number went to somebody else's process


def dies_with_us(number: Signals) -> Callable[[], None] | None:
    """What a child does between fork and exec, so that it is sent `number` when this thread ends."""
    if sys.platform != "linux":
        return None
    libc = ctypes.PyDLL(None)  # PyDLL keeps the interpreter's lock: no other thread exists after the fork
    us = os.getpid()

    def arm() -> None:
        libc.prctl(ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(number), *[ctypes.c_ulong(0)] * 3)
        if os.getppid() != us:  # we died before the kernel knew
            signal.raise_signal(number)

    return arm
