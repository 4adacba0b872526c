"""Loads the YAML under ssot/: once, strictly, refusing duplicate keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contracts.ssot import ProviderFile
from runtime.settings import BadSettings


def load_providers(directory: Path) -> dict[str, ProviderFile]:
    """Every file of `<directory>/providers`, by name; raises BadSettings naming file and field."""
    found: dict[str, ProviderFile] = {}
    for path in sorted((directory / "providers").glob("*.yaml")):
        try:
            entry = ProviderFile.model_validate(_load(path))
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole file"
            raise BadSettings(f"{path}: {where}: {first['msg']}") from None
        if entry.name != path.stem:
            raise BadSettings(f"{path}: name is {entry.name!r}, expected {path.stem!r}")
        found[entry.name] = entry
    if not found:
        raise BadSettings(f"{directory / 'providers'} holds no YAML file: is ODOOOPS_SSOT_DIR right?")
    return found


def _load(path: Path) -> Any:
    try:
        return YAML(typ="safe").load(path)
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from None
    except YAMLError as error:
        raise BadSettings(f"{path}: {' '.join(str(error).split())}") from None
