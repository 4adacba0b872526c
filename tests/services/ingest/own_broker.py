"""A broker of one test's own, which it may stop, kill and start again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from nats.js import JetStreamContext

from runtime import bus, embedded, streams
from tests.servers import data_folder
from tests.services.ingest.door import eventually

STOP_S_MAX = 10.0


class OwnBroker:
    """An embedded server with a handle."""

    def __init__(self, folder: Path) -> None:
        self.port = embedded.free_port()
        self.folder = folder
        self._passwords = embedded.credentials(folder)["nats"]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, user: str) -> str:
        """Its address for a service's user."""
        return embedded.nats_url(self.port, user, self._passwords)

    async def start(self) -> None:
        """Start it, again with what it had, and wait until it answers."""
        self._process = self._spawn()

        async def answers() -> bool:
            return await embedded.nats_answers(self.port)

        await eventually(answers)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = embedded.prepare_nats(self.folder, self.port, self._passwords)
        with open(self.folder / "server.log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def pause(self) -> None:
        """It keeps its connections and says nothing."""
        pid = self._signal(signal.SIGSTOP)
        # Until then it still answers: for some milliseconds, on a busy machine.
        os.waitid(os.P_PID, pid, os.WSTOPPED)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S_MAX)
            self._process = None

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[JetStreamContext]:
        """The operator's access to it, the streams made."""
        nc = await bus.connect(self.url("operator"), "operator")
        try:
            await streams.provision(nc.jetstream())
            yield nc.jetstream()
        finally:
            await asyncio.wait_for(nc.close(), STOP_S_MAX)

    def _signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.pid


@contextmanager
def own_broker() -> Iterator[OwnBroker]:
    """One that is not started yet, and gone at the end."""
    with data_folder() as folder:
        broker = OwnBroker(folder)
        try:
            yield broker
        finally:
            broker.kill()
