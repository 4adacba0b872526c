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
from tests.servers import _running, _until, data_folder

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "nats" / "nats.conf"
MAKE_SECRETS = ROOT / "deploy" / "make-secrets"
HEALTH_S_MAX = 1.0


@dataclass(frozen=True)
class Brokers:
    """A single broker or a cluster, with the secrets that deploy/make-secrets wrote."""

    ports: tuple[int, ...]
    secrets: dict[str, str]

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
        for n in range(1, count + 1):
            folder = home / f"nats-{n}"
            folder.mkdir()
            (folder / "passwords.conf").write_text(passwords)
            (folder / "nats.conf").write_text(
                _moved(config, ports[n - 1], cluster_ports[n - 1], health_ports[n - 1], folder / "data")
            )
            command = [
                embedded._nats_binary(),
                *("--config", str(folder / "nats.conf"), "--name", f"nats-{n}"),
            ]
            started.enter_context(_running(command, signal.SIGTERM, folder))
        for port in health_ports:
            _until(lambda port=port: _healthy(port))  # type: ignore[misc]
        yield Brokers(ports, secrets)


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


def _healthy(port: int) -> bool:
    """What the health check of compose.yaml asks."""
    try:
        with urllib.request.urlopen(f"http://{embedded.LOOPBACK}:{port}/healthz", timeout=HEALTH_S_MAX):
            return True
    except OSError:
        return False
