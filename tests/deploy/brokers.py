"""Real brokers that run on the committed configuration: only addresses and folders are other ones."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime import embedded
from runtime.supervisor import dies_with_us
from tests.servers import STOP_S_MAX, _until, data_folder

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "nats" / "nats.conf"
MAKE_SECRETS = ROOT / "deploy" / "make-secrets"
HEALTH_S_MAX = 1.0
LAST_WORDS_CHARS = 2_000


@dataclass(frozen=True)
class Prepared:
    """A broker whose folder is ready."""

    name: str
    command: Sequence[str]
    port: int
    health_port: int | None = None

    async def answers(self) -> bool:
        """Whether it takes what clients ask."""
        if self.health_port is None:
            return await embedded.nats_answers(self.port)
        return await asyncio.to_thread(self.healthy)

    def healthy(self) -> bool:
        """What the health check of compose.yaml asks."""
        try:
            url = f"http://{embedded.LOOPBACK}:{self.health_port}/healthz"
            with urllib.request.urlopen(url, timeout=HEALTH_S_MAX):
                return True
        except OSError:
            return False


class Node:
    """One broker, which may be killed and started again."""

    def __init__(self, prepared: Prepared, log: Path) -> None:
        self.prepared = prepared
        self._log = log
        self.start()

    def start(self) -> None:
        """Start it, again with what it had."""
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self.prepared.command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=dies_with_us(signal.SIGTERM),
            )

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-LAST_WORDS_CHARS:]

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(STOP_S_MAX)

    def pause(self) -> None:
        """It keeps its connections and says nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Have it end."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass(frozen=True)
class Brokers:
    """A single broker or a cluster, with the secrets that deploy/make-secrets wrote."""

    ports: tuple[int, ...]
    secrets: dict[str, str]
    nodes: dict[str, Node]

    def url(self, user: str) -> str:
        """The addresses of `user`'s secret file, as they are here."""
        addresses = self.secrets[f"nats_url_{user}"].split(",")[: len(self.ports)]
        local = (
            address.replace(f"nats-{n}:4222", f"{embedded.LOOPBACK}:{port}")
            for n, (address, port) in enumerate(zip(addresses, self.ports, strict=True), 1)
        )
        return ",".join(local)


def make_secrets(folder: Path) -> dict[str, str]:
    """What deploy/make-secrets writes, by file name."""
    subprocess.run([MAKE_SECRETS, folder], check=True, capture_output=True)
    return {path.name: path.read_text().strip() for path in folder.iterdir()}


Routes = Callable[[str, str, int], int]
"""The port by which one node reaches another, given the one where that listens."""


def prepare(
    home: Path, count: int, routes: Routes = lambda _from, _to, port: port
) -> tuple[dict[str, str], list[Prepared]]:
    """The secrets, and `count` brokers on the committed configuration; one alone goes without its cluster block."""
    secrets = make_secrets(home / "secrets")
    passwords, config = secrets["nats_passwords"], CONFIG.read_text()
    if count == 1:
        config = _without(config, r"^cluster \{$.*?^\}$")
        passwords = _without(passwords, r"^NATS_PASSWORD_ROUTES: .*?$")
        passwords = _without(passwords, r"^NATS_ROUTES: .*?$")
    listening = {f"nats-{n}": embedded.free_port() for n in range(1, count + 1)}
    made = []
    for name, cluster_port in listening.items():
        folder = home / name
        folder.mkdir()
        known = passwords
        for other, port in listening.items():
            known = known.replace(f"@{other}:6222", f"@{embedded.LOOPBACK}:{routes(name, other, port)}")
        (folder / "passwords.conf").write_text(known)
        port, health_port = embedded.free_port(), embedded.free_port()
        (folder / "nats.conf").write_text(_moved(config, port, cluster_port, health_port, folder / "data"))
        command = [embedded._nats_binary(), "--config", str(folder / "nats.conf"), "--name", name]
        made.append(Prepared(name, command, port, health_port))
    return secrets, made


@contextmanager
def running(count: int) -> Iterator[Brokers]:
    """`count` brokers, each healthy."""
    with ExitStack() as started:
        home = started.enter_context(data_folder())
        secrets, prepared = prepare(home, count)
        nodes: dict[str, Node] = {}
        for each in prepared:
            node = Node(each, home / each.name / "server.log")
            started.callback(node.stop)
            nodes[each.name] = node
        for node in nodes.values():
            try:
                _until(node.prepared.healthy)
            except TimeoutError:
                raise TimeoutError(f"{node.prepared.name} is not healthy: {node.last_words()}") from None
        yield Brokers(tuple(each.port for each in prepared), secrets, nodes)


def _moved(config: str, port: int, cluster_port: int, health_port: int, data: Path) -> str:
    moves = {
        '"0.0.0.0:4222"': f'"{embedded.LOOPBACK}:{port}"',
        '"127.0.0.1:8222"': f'"{embedded.LOOPBACK}:{health_port}"',
        '"/data"': f'"{data}"',
    }
    if "cluster {" in config:
        moves['"0.0.0.0:6222"'] = f'"{embedded.LOOPBACK}:{cluster_port}"'
    for committed, here in moves.items():
        assert config.count(committed) == 1, committed
        config = config.replace(committed, here)
    return config


def _without(text: str, pattern: str) -> str:
    shorter, count = re.subn(pattern, "", text, flags=re.MULTILINE | re.DOTALL)
    assert count == 1, pattern
    return shorter
