"""compose.yaml as a value, and its services run without containers: the same commands, variables and secret files."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.deploy.brokers import ROOT

SECRETS_IN_CONTAINER = "/run/secrets/"
OPS_PORT = "9100"


@cache
def compose() -> dict[str, Any]:
    """The file, its anchors resolved."""
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "compose.yaml")
    return loaded


def services() -> dict[str, dict[str, Any]]:
    """What it starts, by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def is_ours(service: Mapping[str, Any]) -> bool:
    """Whether a service runs our image."""
    return str(service["image"]).startswith("odooops:")


def copied() -> list[str]:
    """The folders that the Dockerfile copies into the image."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    pairs = [line.split()[1:] for line in lines if line.startswith("COPY ")]
    return [source for source, target in pairs if target == f"./{source}"]


_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


@dataclass(frozen=True)
class Place:
    """Where the services run instead: a copy of what the image holds, secrets with this machine's addresses."""

    image: Path
    secrets: Path
    ops_ports: Mapping[str, int]
    variables: Mapping[str, str]
    """Instead of those that name a container's addresses."""

    def environment(self, name: str) -> dict[str, str]:
        """A service's variables, and nothing of this process's own but the path."""
        given = {
            key: _DEFAULT.sub(r"\1", str(value))  # nobody has set what may be set from outside
            for key, value in services()[name].get("environment", {}).items()
        }
        here = {key: value.replace(SECRETS_IN_CONTAINER, f"{self.secrets}/") for key, value in given.items()}
        if "ODOOOPS_OPS_PORT" in given:
            assert OPS_PORT == given["ODOOOPS_OPS_PORT"]
            here |= {"ODOOOPS_OPS_HOST": "127.0.0.1", "ODOOOPS_OPS_PORT": str(self.ops_ports[name])}
        here |= {key: value for key, value in self.variables.items() if key in given}
        return {
            **here,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.image),
        }

    async def start(self, name: str, *arguments: str) -> Process:
        """Start a service by its command, or with other arguments."""
        service = services()[name]
        command = [*service.get("entrypoint", []), *(arguments or service["command"])]
        return await asyncio.create_subprocess_exec(
            *command, cwd=self.image, env=self.environment(name), stdout=PIPE, stderr=PIPE
        )

    async def healthy(self, name: str) -> bool:
        """What its health check says."""
        kind, *command = services()[name]["healthcheck"]["test"]
        assert "CMD" == kind
        assert OPS_PORT in command[-1]
        command[-1] = command[-1].replace(OPS_PORT, str(self.ops_ports[name]))
        process = await asyncio.create_subprocess_exec(
            *command, env=self.environment(name), stdout=PIPE, stderr=PIPE
        )
        await process.communicate()
        return process.returncode == 0


def make_image(folder: Path) -> Path:
    """A folder that holds what the image would hold in /app."""
    for name in copied():
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
