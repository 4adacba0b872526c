"""Real brokers that run on the committed configuration: only addresses and folders are other ones."""

from __future__ import annotations

import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
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


class Node:
    """One broker, which may be killed and started again."""

    def __init__(self, name: str, folder: Path, health_port: int) -> None:
        self.name = name
        self._folder = folder
        self._health_port = health_port
        self.start()

    def start(self) -> None:
        """Start it, again with what it had."""
        config = str(self._folder / "nats.conf")
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [embedded._nats_binary(), "--config", config, "--name", self.name],
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=dies_with_us(signal.SIGTERM),
            )

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

    def healthy(self) -> bool:
        """What the health check of compose.yaml asks."""
        try:
            url = f"http://{embedded.LOOPBACK}:{self._health_port}/healthz"
            with urllib.request.urlopen(url, timeout=HEALTH_S_MAX):
                return True
        except OSError:
            return False


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


@contextmanager
def running(count: int) -> Iterator[Brokers]:
    """`count` brokers on the committed configuration; one alone goes without its cluster block."""
    with ExitStack() as started:
        home = started.enter_context(data_folder())
        secrets = make_secrets(home / "secrets")
        ports = tuple(embedded.free_port() for _ in range(count))
        cluster_ports = tuple(embedded.free_port() for _ in range(count))
        health_ports = tuple(embedded.free_port() for _ in range(count))
        passwords = secrets["nats_passwords"]
        config = CONFIG.read_text()
        if count == 1:
            config = _without(config, r"^cluster \{$.*?^\}$")
            passwords = _without(passwords, r"^NATS_PASSWORD_ROUTES: .*?$")
            passwords = _without(passwords, r"^NATS_ROUTES: .*?$")
        for n, port in enumerate(cluster_ports, 1):
            passwords = passwords.replace(f"@nats-{n}:6222", f"@{embedded.LOOPBACK}:{port}")
        nodes: dict[str, Node] = {}
        for n in range(1, count + 1):
            folder = home / f"nats-{n}"
            folder.mkdir()
            (folder / "passwords.conf").write_text(passwords)
            (folder / "nats.conf").write_text(
                _moved(config, ports[n - 1], cluster_ports[n - 1], health_ports[n - 1], folder / "data")
            )
            node = Node(f"nats-{n}", folder, health_ports[n - 1])
            started.callback(node.stop)
            nodes[node.name] = node
        for node in nodes.values():
            _until(node.healthy)
        yield Brokers(ports, secrets, nodes)


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
