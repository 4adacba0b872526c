"""The peers' packages in a folder of their own, `.bench/`: nothing of OdooOps changes, and no root is needed.

A peer that cannot be installed here is not measured, and the page says why.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.servers import ROOT

HERE = Path(__file__).parent
FOLDER = ROOT / ".bench"
PYTHON = FOLDER / "python"
NODE = FOLDER / "emmett"
DEBIAN = FOLDER / "debian"
LOCK = HERE / "requirements.lock"
INSTALL_S_MAX = 120
REASON_CHARS_MAX = 200


class Missing(Exception):
    """a peer cannot be installed here"""


def python_packages() -> Mapping[str, str]:
    """The environment in which Python finds its peers beside everything of ours; installs them once."""
    _once(PYTHON, LOCK.read_text(encoding="utf-8"), _install_python)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(PYTHON), str(ROOT)])}


def emmett() -> list[str]:
    """The command of Emmett's program; installs its packages once."""
    if not (shutil.which("node") and shutil.which("npm")):
        raise Missing("there is no node with npm")
    _once(NODE, (HERE / "emmett" / "package.json").read_text(encoding="utf-8"), _install_emmett)
    # Node looks for packages beside the program itself.
    return ["node", str(shutil.copy2(HERE / "emmett" / "run.mjs", NODE / "run.mjs"))]


def webhook() -> str:
    """Debian's `webhook`: the one that is installed, else its package unpacked."""
    if installed := shutil.which("webhook"):
        return installed
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Missing("there is no webhook and no apt-get")
    _once(DEBIAN, "webhook", _install_webhook)
    return str(DEBIAN / "usr" / "bin" / "webhook")


def versions() -> str:
    """What the peers need and was installed."""
    found = [f"{each.name} {each.version}" for each in importlib.metadata.distributions(path=[str(PYTHON)])]
    if NODE.exists():
        packages = json.loads((HERE / "emmett" / "package.json").read_text(encoding="utf-8"))["dependencies"]
        found += [f"{name} {version}" for name, version in packages.items()]
        found.append(f"node {_said(['node', '--version'])}")
    return ", ".join(sorted(found))


def _once(folder: Path, what: str, install: Callable[[], None]) -> None:
    """Install into an empty folder, unless `what` was installed there."""
    marker = folder / ".installed"
    if marker.exists() and marker.read_text(encoding="utf-8") == what:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    install()
    marker.write_text(what, encoding="utf-8")


def _install_python() -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--require-hashes", "--no-deps", "--target", str(PYTHON), "--requirement", str(LOCK)])


def _install_emmett() -> None:
    shutil.copy(HERE / "emmett" / "package.json", NODE)
    _run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"], NODE)


def _install_webhook() -> None:
    _run(["apt-get", "download", "webhook"], DEBIAN)
    (package,) = DEBIAN.glob("webhook_*.deb")
    _run(["dpkg-deb", "--extract", str(package), str(DEBIAN)])


def _run(command: list[str], folder: Path = ROOT) -> None:
    """Raises Missing with the last line of what went wrong."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]}: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Missing(f"{Path(command[0]).name}: {lines[-1][:REASON_CHARS_MAX]}")


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
