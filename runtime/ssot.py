"""Loads the YAML under ssot/: strictly, refusing duplicate keys, and naming whatever is wrong by file and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from contracts.ssot import (
    USUAL_LIMITS,
    CapabilitiesFile,
    Environments,
    EnvironmentsFile,
    IntegrationsFile,
    LimitsFile,
    ProviderFile,
    Ssot,
    StartersFile,
)
from runtime.settings import BadSettings

M = TypeVar("M", bound=BaseModel)

PROVIDERS = "providers"
ENVIRONMENTS = "environments.yaml"
LIMITS = "limits.yaml"
INTEGRATIONS = "integrations.yaml"
CAPABILITIES = "capabilities.yaml"
STARTERS = "starters.yaml"

_FIXES: Mapping[str, str] = {
    "extra_forbidden": "remove it, or mend its name",
    "missing": "add it",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file, in one sentence without values; `line` counts from 1."""

    path: Path
    line: int | None
    sentence: str

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"

    @property
    def place(self) -> str:
        """File and line, as editors take them."""
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"


def load(directory: Path) -> Ssot:
    """Everything under `directory`; raises BadSettings naming file and field."""
    found, problems = scan(directory)
    _require_none(problems)
    return found


def scan(directory: Path) -> tuple[Ssot, list[Problem]]:
    """What can be read under `directory`, and everything that is wrong there."""
    problems: list[Problem] = []
    providers = _providers(directory, problems)
    environments = _optional(EnvironmentsFile, directory / ENVIRONMENTS, problems)
    limits = _optional(LimitsFile, directory / LIMITS, problems)
    integrations = _optional(IntegrationsFile, directory / INTEGRATIONS, problems)
    capabilities = _optional(CapabilitiesFile, directory / CAPABILITIES, problems)
    starters = _optional(StartersFile, directory / STARTERS, problems)
    found = Ssot(
        providers=providers,
        environments=Environments(tuple(environments.rules) if environments else ()),
        limits=limits or USUAL_LIMITS,
        integrations=integrations.integrations if integrations else None,
        capabilities=capabilities.capabilities if capabilities else None,
        starters=starters.starters if starters else None,
    )
    return found, problems


def load_providers(directory: Path) -> dict[str, ProviderFile]:
    """Every file of `<directory>/providers`, by name; raises BadSettings naming file and field."""
    problems: list[Problem] = []
    found = _providers(directory, problems)
    _require_none(problems)
    return found


def line_of(path: Path, where: Sequence[str | int]) -> int | None:
    """The line on which `where`, a path of keys and places, stands in a file that can be parsed; else None."""
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(path)
    except (OSError, YAMLError):
        return None
    line: int | None = None
    for part in where:
        found = _within(node, part)
        if found is None:
            break
        line, node = found
    return line


def _providers(directory: Path, problems: list[Problem]) -> dict[str, ProviderFile]:
    found: dict[str, ProviderFile] = {}
    endpoints: dict[str, str] = {}
    paths = sorted((directory / PROVIDERS).glob("*.yaml"))
    if not paths:
        problems.append(
            Problem(directory / PROVIDERS, None, "holds no YAML file: is ODOOOPS_SSOT_DIR right?")
        )
    for path in paths:
        entry = _model(ProviderFile, path, problems)
        if entry is None:
            continue
        if entry.name != path.stem:
            sentence = f"name is {entry.name!r}, expected {path.stem!r}"
            problems.append(Problem(path, line_of(path, ["name"]), sentence))
            continue
        if entry.endpoint is not None and entry.endpoint in endpoints:
            sentence = f"endpoint {entry.endpoint} is {endpoints[entry.endpoint]}'s already"
            problems.append(Problem(path, line_of(path, ["endpoint"]), sentence))
            continue
        if entry.endpoint is not None:
            endpoints[entry.endpoint] = entry.name
        found[entry.name] = entry
    return found


def _optional(shape: type[M], path: Path, problems: list[Problem]) -> M | None:
    return _model(shape, path, problems) if path.exists() else None


def _model(shape: type[M], path: Path, problems: list[Problem]) -> M | None:
    """The file as `shape`; None where it is not, and why among the problems."""
    try:
        return shape.model_validate(_parsed(path.read_bytes()))
    except OSError as error:
        problems.append(Problem(path, None, f"cannot be read: {error.strerror}"))
    except YAMLError as error:
        problems.append(_no_yaml(path, error))
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join(str(part) for part in each["loc"]) or "the whole file"
            fix = f": {_FIXES[each['type']]}" if each["type"] in _FIXES else ""
            problems.append(Problem(path, line_of(path, each["loc"]), f"{where}: {each['msg']}{fix}"))
    return None


def _parsed(text: bytes) -> object:
    """What YAML says. Raises YAMLError."""
    return YAML(typ="safe").load(text)


def _no_yaml(path: Path, error: YAMLError) -> Problem:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    line = None if mark is None else mark.line + 1
    if isinstance(error, DuplicateKeyError):
        # What follows are the values, and how to switch this off.
        repeated = str(error.problem).partition(" with value")[0]
        return Problem(path, line, f"{repeated}: a key stands once, keep the right one")
    said = (
        [error.context, error.problem]
        if isinstance(error, MarkedYAMLError) and error.problem
        else [str(error)]
    )
    return Problem(path, line, " ".join(", ".join(each for each in said if each).split()))


def _within(node: Node | None, part: str | int) -> tuple[int, Node] | None:
    """Line and node of one key or place of a node."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def _require_none(problems: Sequence[Problem]) -> None:
    if problems:
        raise BadSettings(str(problems[0]))
