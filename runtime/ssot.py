"""Loads the YAML under ssot/: once, strictly, refusing duplicate keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contracts.ssot import Environments, EnvironmentsFile, ProviderFile, Ssot
from runtime.settings import BadSettings

M = TypeVar("M", bound=BaseModel)

PROVIDERS = "providers"
ENVIRONMENTS = "environments.yaml"


def load(directory: Path) -> Ssot:
    """Everything under `directory`; raises BadSettings naming file and field."""
    return Ssot(providers=load_providers(directory), environments=load_environments(directory))


def load_providers(directory: Path) -> dict[str, ProviderFile]:
    """Every file of `<directory>/providers`, by name; raises BadSettings naming file and field."""
    found: dict[str, ProviderFile] = {}
    endpoints: dict[str, str] = {}
    for path in sorted((directory / PROVIDERS).glob("*.yaml")):
        entry = _model(ProviderFile, path)
        if entry.name != path.stem:
            raise BadSettings(f"{path}: name is {entry.name!r}, expected {path.stem!r}")
        if entry.endpoint is not None:
            if entry.endpoint in endpoints:
                raise BadSettings(
                    f"{path}: endpoint {entry.endpoint} is {endpoints[entry.endpoint]}'s already"
                )
            endpoints[entry.endpoint] = entry.name
        found[entry.name] = entry
    if not found:
        raise BadSettings(f"{directory / PROVIDERS} holds no YAML file: is ODOOOPS_SSOT_DIR right?")
    return found


def load_environments(directory: Path) -> Environments:
    """The rules of `<directory>/environments.yaml`; without the file every environment is unknown."""
    path = directory / ENVIRONMENTS
    return Environments(tuple(_model(EnvironmentsFile, path).rules)) if path.exists() else Environments()


def _model(shape: type[M], path: Path) -> M:
    try:
        return shape.model_validate(_load(path))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise BadSettings(f"{path}: {where}: {first['msg']}") from None


def _load(path: Path) -> Any:
    try:
        return YAML(typ="safe").load(path)
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from None
    except YAMLError as error:
        raise BadSettings(f"{path}: {' '.join(str(error).split())}") from None
