"""`odooops contracts`: writes what is generated from the code and SSOT, and compares event schemas with a release.

Generated are one JSON Schema per event type, asyncapi.yaml and openapi.yaml: JSON both, as every JSON text is YAML too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli import asyncapi, openapi, terminal
from cli.reach import ROOT, Trouble
from contracts.compare import differences
from contracts.json_schema import schema_of
from contracts.registry import EVENTS
from contracts.ssot import Ssot
from providers.registry import sources
from runtime import ssot

FOLDER = ROOT / "contracts"
SCHEMAS = "schemas"
ASYNCAPI = "asyncapi.yaml"
OPENAPI = "openapi.yaml"
GIT_S_MAX = 30
HEAD = "HEAD"


class NoRelease(Trouble):
    """there is nothing to compare with"""


def export(folder: Path, ssot_dir: Path, check: bool) -> bool:
    """Write the files below `folder`, or with `check` name those that are stale; whether all is as it should be."""
    wanted = files(ssot.load(ssot_dir))
    stale = stale_in(folder, wanted)
    if check:
        for name in stale:
            terminal.say(f"{folder / name} is stale: run `odooops contracts export`")
        return not stale
    write(folder, wanted)
    terminal.console().print(f"{len(wanted)} files in {folder}, {len(stale)} of them written anew or removed")
    return True


def files(declared: Ssot) -> dict[str, str]:
    """Every generated file: its path within contracts/, and its text."""
    generated: dict[str, Any] = {f"{SCHEMAS}/{name}.json": schema_of(event) for name, event in EVENTS.items()}
    generated |= {ASYNCAPI: asyncapi.document(), OPENAPI: openapi.document(sources(declared))}
    return {
        name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in generated.items()
    }


def stale_in(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """The files below `folder` that are missing, differ, or are there for no event type."""
    found = {f"{SCHEMAS}/{path.name}" for path in (folder / SCHEMAS).glob("*.json")}
    differing = {name for name, text in wanted.items() if _read(folder / name) != text}
    return sorted(differing | (found - wanted.keys()))


def write(folder: Path, wanted: Mapping[str, str]) -> None:
    """Make the files below `folder` what they have to be."""
    for name in stale_in(folder, wanted):
        path = folder / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], encoding="utf-8", newline="\n")
        else:
            path.unlink()


def check(against: str | None) -> bool:
    """Print how the events differ from those at a git ref, the newest tag unless given; whether nothing breaks."""
    ref = against or newest_tag(ROOT) or HEAD
    if against is None and ref == HEAD:
        terminal.say(
            "there is no tag yet: compared with the last commit, so what it changed itself is not seen"
        )
    found = differences(schemas_at(ROOT, ref), {name: schema_of(event) for name, event in EVENTS.items()})
    for difference in sorted(found, key=lambda each: not each.breaking):
        terminal.console().print(terminal.clean(str(difference)), soft_wrap=True)
    breaking = sum(each.breaking for each in found)
    told = f"{breaking} breaking, {len(found) - breaking} added" if found else "no difference"
    terminal.console().print(f"{told}, compared with {ref}", soft_wrap=True)
    return not breaking


def newest_tag(repository: Path) -> str | None:
    """The newest tag before the current commit; None where there is none."""
    try:
        return _git(repository, "describe", "--tags", "--abbrev=0").decode().strip()
    except NoRelease:
        return None


def schemas_at(repository: Path, ref: str) -> dict[str, Any]:
    """The committed schemas at a git ref, by event type; raises NoRelease."""
    folder = f"{FOLDER.name}/{SCHEMAS}/"
    commit = (
        _git(repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
    )
    names = _git(repository, "ls-tree", "--name-only", commit, folder).decode().splitlines()
    found = {
        Path(name).stem: json.loads(_git(repository, "cat-file", "blob", f"{commit}:{name}"))
        for name in names
        if name.endswith(".json")
    }
    if not found:
        raise NoRelease(f"{ref} has no schemas in {folder}")
    return found


def _git(repository: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, timeout=GIT_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoRelease(f"git cannot be asked: {type(error).__name__}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise NoRelease(f"git says: {said[-1] if said else done.returncode}")
    return done.stdout


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
