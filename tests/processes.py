"""Processes of our own code without a start of Python, which takes most of a second: forked from one that has it all.

They are processes like any other: they hear signals, can be killed, and end with an exit code. But they end at once,
without what Python does at its end: a test of that asks for `Started`. That the modules start as users start them is
what the tests of `odooops up` and of compose.yaml say.
"""

from __future__ import annotations

import asyncio
import gc
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    [__name__, "cli.rebuild", "services.ingest.app", "services.notifier.app", "services.projector.app"]
)


class Forked:
    """What stands for `python` with some arguments; `-m` and `-c` are known."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        listening: socket.socket | None = None,
    ) -> None:
        folder.mkdir()
        self._listening = listening
        self.out, self.err = folder / "out", folder / "err"
        for path in (self.out, self.err):
            path.touch()
        self._process = self._start(arguments, dict(environment))

    def _start(self, arguments: Sequence[str], environment: dict[str, str]) -> Any:
        process = _FORKS.Process(
            target=_become, args=(arguments, environment, self.out, self.err, self._listening)
        )
        process.start()
        return process

    @property
    def exitcode(self) -> int | None:
        """None while it runs; the negative number of the signal that killed it."""
        code: int | None = self._process.exitcode
        return code

    def signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, if it runs."""
        self._process.kill()
        self._process.join()

    async def ended(self, wait_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        await asyncio.to_thread(self._process.join, wait_s)
        assert self.exitcode is not None, f"still running after {wait_s:g} s: {self.said()}"
        return self.exitcode

    def said(self) -> str:
        """All that it has printed on either stream."""
        return self.out.read_text() + self.err.read_text()


class Started(Forked):
    """Python itself, from its start to its end."""

    def _start(self, arguments: Sequence[str], environment: dict[str, str]) -> Any:
        assert self._listening is None
        with self.out.open("wb") as out, self.err.open("wb") as err:
            return _Python([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=out, stderr=err)


class _Python(subprocess.Popen[bytes]):
    """Asked as multiprocessing's processes are."""

    @property
    def exitcode(self) -> int | None:
        return self.poll()

    def join(self, wait_s: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(wait_s)


@contextmanager
def forked(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    kind: type[Forked] = Forked,
    listening: socket.socket | None = None,
) -> Iterator[Forked]:
    """A process while the block runs, with nothing in its environment but what is given; `folder` is made for it.

    A socket that is `listening` is handed to it as ODOOOPS_LISTEN_FD.
    """
    process = kind(arguments, environment, folder, listening)
    try:
        yield process
    finally:
        process.kill()


def _become(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    out: Path,
    err: Path,
    listening: socket.socket | None,
) -> None:
    gc.freeze()  # a search for cycles would write into all that was imported, and so copy it
    for path, descriptor in ((out, 1), (err, 2)):
        with path.open("wb") as sink:
            os.dup2(sink.fileno(), descriptor)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    if listening is not None:
        os.environ["ODOOOPS_LISTEN_FD"] = str(listening.detach())
    how, what, *sys.argv[1:] = arguments
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})
