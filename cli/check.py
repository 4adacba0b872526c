"""`odooops check`: whether what SSOT says can be done. Needs no server; looks at files and at the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cli import terminal
from contracts.ssot import BadSsot, ProviderFile, Ssot
from providers.polling import why_not_polled
from providers.registry import sources
from read_models.registry import FRESHNESS, READ_MODELS, TABLES
from read_models.table import SCHEMA
from runtime import settings, ssot
from runtime.settings import BadSettings
from runtime.ssot import CAPABILITIES, ENVIRONMENTS, PROVIDERS, line_of

State = Literal["ok", "warning", "bad"]

NAMED_BY_REF = {
    model.name for model in READ_MODELS if model.ref_column is not None and model is not FRESHNESS
}
"""The tables whose rows are about things: a source that fills one has to say what those are called."""
LOOPBACKS = ("localhost", "127.0.0.1", "::1")
UNSIGNED = "unsigned: whoever knows the address can write into its log"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `place` is a file, with its line where one is to blame."""

    state: State
    place: str
    text: str


def run(directory: Path, data_dir: Path, as_json: bool) -> bool:
    """Print what is found under `directory`; whether nothing of it is bad."""
    findings = look(directory, data_dir)
    well = all(finding.state != "bad" for finding in findings)
    if as_json:
        terminal.print_json({"ok": well, "findings": [asdict(finding) for finding in findings]})
        return well
    rows = [(each.state, each.place, each.text) for each in findings]
    terminal.console().print(terminal.table(("state", "where", "what"), rows, cell_chars_max=400))
    counted = [
        f"{sum(each.state == state for each in findings)} {state}" for state in ("bad", "warning", "ok")
    ]
    terminal.console().print(f"\n{', '.join(counted)}")
    return well


def look(directory: Path, data_dir: Path) -> list[Finding]:
    """Everything that is found: what is wrong with files first, then each source, then the rest."""
    declared, problems = ssot.scan(directory)
    found = [Finding("bad", _shown(each.place), each.sentence) for each in problems]
    for name, file in sorted(declared.providers.items()):
        path = directory / PROVIDERS / f"{name}.yaml"
        wrong = [*_unusable(path, file, declared), *_misplaced(path, file)]
        found += wrong or [Finding("ok", _shown(path), _summary(file))]
        found += _door(path, file, data_dir)
        found += _api(path, file, declared)
    unread = {each.path for each in problems}
    if directory / ENVIRONMENTS not in unread:
        found += _environments(directory / ENVIRONMENTS, declared)
    found += _data_sources(directory / CAPABILITIES, declared)
    found += _catalogues(directory, declared)
    return found


def _unusable(path: Path, file: ProviderFile, declared: Ssot) -> Iterator[Finding]:
    """What the source's own provider says of it."""
    try:
        sources(replace(declared, providers={file.name: file}))
    except BadSsot as error:
        sentence = str(error).partition(": ")[2]
        yield _bad(path, sentence.partition(":")[0].split("."), sentence)


def _misplaced(path: Path, file: ProviderFile) -> Iterator[Finding]:
    for n, table in enumerate(file.feeds):
        if table not in TABLES:
            yield _bad(path, ["feeds", n], f"feeds: there is no table {SCHEMA}.{table}")
    for n, page in enumerate(file.pages):
        if not page.startswith("/"):
            yield _bad(path, ["pages", n], f"pages: {page!r} is no page, one begins with /")
    if not file.refs and any(table in NAMED_BY_REF for table in file.feeds):
        yield _bad(path, ["feeds"], "refs: say what its rows are called, as <system>:<kind>/<id>")
    for name in ("secrets", "events", "refs"):
        for n, value in enumerate(getattr(file, name)):
            if not value.strip():
                yield _bad(path, [name, n], f"{name}: an empty text, remove it")


def _door(path: Path, file: ProviderFile, data_dir: Path) -> Iterator[Finding]:
    """Whether the source can prove who it is, and which secrets are missing for it."""
    if file.unsigned:
        yield Finding("warning", _at(path, ["unsigned"]), UNSIGNED)
        return
    if not file.secrets:
        if file.endpoint is not None:
            yield _bad(path, ["endpoint"], "secrets: name one, without any its door stays shut")
        return
    missing: list[str] = []
    for name in file.secrets:
        try:
            if not settings.secret_values([name]) and not _made(data_dir, name):
                missing.append(name)
        except BadSettings as error:
            yield Finding("bad", _at(path, ["secrets"]), str(error))
    if missing == file.secrets:
        what = "closed" if file.endpoint is not None else "not to be read"
        yield Finding(
            "warning",
            _at(path, ["secrets"]),
            f"{what}: not set is {' and '.join(missing)} (or …_FILE), one is enough",
        )
    elif missing:
        yield Finding("ok", _at(path, ["secrets"]), f"not set, and not needed now: {', '.join(missing)}")


def _api(path: Path, file: ProviderFile, declared: Ssot) -> Iterator[Finding]:
    """Whether the source is polled, and what of it others could read on the way."""
    if file.api is None:
        return
    place = _at(path, ["api"])
    try:
        source = sources(replace(declared, providers={file.name: file}))[file.name]
        why = why_not_polled(source, bool(settings.secret_values([file.api.secret])))
    except BadSsot:
        return  # named already
    except BadSettings as error:
        yield Finding("bad", place, str(error))
        return
    yield Finding("ok", place, why or f"polled every {file.poll_interval_s} s")
    address = urlsplit(file.api.base_url)
    if address.scheme == "http" and address.hostname not in LOOPBACKS:
        yield Finding(
            "warning",
            _at(path, ["api", "base_url"]),
            "api.base_url: the secret goes in the clear: prefer https",
        )


def _made(data_dir: Path, name: str) -> bool:
    """Whether the file is there, and not empty, in which `odooops up` keeps a secret that it made itself."""
    path = data_dir / "secrets" / name.lower()
    return path.exists() and path.stat().st_size > 0


def _environments(path: Path, declared: Ssot) -> list[Finding]:
    """What is wrong with the rules, else how many there are."""
    if not path.exists():
        return [Finding("warning", _shown(path), "not there: of everything the environment is unknown")]
    wrong = list(_rules(path, declared))
    return wrong or [Finding("ok", _shown(path), f"{len(declared.environments.rules)} rules")]


def _rules(path: Path, declared: Ssot) -> Iterator[Finding]:
    for n, rule in enumerate(declared.environments.rules):
        stated = rule.model_dump(exclude={"env"}, exclude_defaults=True)
        if not any(stated.values()):
            yield _bad(path, ["rules", n], f"rules.{n}: it states no trait, so it fits nothing")
        for variable in rule.variable:
            if "=" not in variable:
                yield _bad(path, ["rules", n, "variable"], f"rules.{n}.variable: write it as name=value")
        for source in rule.source:
            if "*" not in source and source not in declared.providers:
                yield Finding(
                    "warning",
                    _at(path, ["rules", n, "source"]),
                    f"rules.{n}.source: there is no source {source}",
                )


def _data_sources(path: Path, declared: Ssot) -> Iterator[Finding]:
    for key, entry in (declared.capabilities or {}).items():
        if entry.data_source is not None and entry.data_source.removeprefix(f"{SCHEMA}.") not in TABLES:
            place = _at(path, ["capabilities", key, "data_source"])
            yield Finding("warning", place, f"{key}: there is no table {entry.data_source}")


def _catalogues(directory: Path, declared: Ssot) -> Iterator[Finding]:
    counts = {
        ssot.INTEGRATIONS: declared.integrations,
        ssot.CAPABILITIES: declared.capabilities,
        ssot.STARTERS: declared.starters and [each for slugs in declared.starters.values() for each in slugs],
    }
    for name, entries in counts.items():
        path = directory / name
        if entries is not None:
            yield Finding("ok", _shown(path), f"{len(entries)} entries")
        elif not path.exists():
            yield Finding("warning", _shown(path), "not there: nothing is said about its kind")


def _summary(file: ProviderFile) -> str:
    where = f"at {file.endpoint}" if file.endpoint else "sends no requests"
    return f"{file.provider_name}, {where}"


def _bad(path: Path, where: Sequence[str | int], sentence: str) -> Finding:
    return Finding("bad", _at(path, where), sentence)


def _at(path: Path, where: Sequence[str | int]) -> str:
    line = line_of(path, [int(part) if str(part).isdecimal() else part for part in where])
    return _shown(path if line is None else f"{path}:{line}")


def _shown(place: Path | str) -> str:
    """A path as seen from here, where it lies below."""
    shown = os.path.relpath(place)
    return str(place) if shown.startswith(os.pardir) else shown
