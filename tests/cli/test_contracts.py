"""`odooops contracts check` on a git repository of the test's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli import contracts
from cli.main import main
from contracts.json_schema import schema_of
from contracts.registry import EVENTS

TODAY = {name: schema_of(event) for name, event in EVENTS.items()}


def git(repository: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, "-C", str(repository), *arguments], check=True, capture_output=True)


def commit(repository: Path, schemas: Mapping[str, Any], tag: str | None = None) -> None:
    """Commit these schemas, and no other."""
    folder = repository / "contracts" / "schemas"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for name, schema in schemas.items():
        (folder / f"{name}.json").write_text(json.dumps(schema))
    git(repository, "add", "-A")
    git(repository, "commit", "--allow-empty", "-m", "x")
    if tag:
        git(repository, "tag", tag)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git(tmp_path, "init", "-b", "main")
    monkeypatch.setattr(contracts, "ROOT", tmp_path)
    return tmp_path


def without(name: str, field: str) -> dict[str, Any]:
    """Today's schemas, as if one had not had a field yet."""
    schema = TODAY[name]
    kept = {each: value for each, value in schema["properties"].items() if each != field}
    return {**TODAY, name: {**schema, "properties": kept}}


def with_more(name: str, field: str) -> dict[str, Any]:
    """Today's schemas, as if one had had a field that it has no longer."""
    schema = TODAY[name]
    return {
        **TODAY,
        name: {**schema, "properties": {**schema["properties"], field: {"type": "string", "default": ""}}},
    }


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_what_breaks_comes_first_one_per_line_and_fails(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {**with_more("code.pushed", "colour"), "build.exploded": TODAY["build.finished"]}
    del old["run.queued"]
    commit(repository, old, "v1")

    assert 1 == main(["contracts", "check"])

    assert [
        "breaking: build.exploded: the type was removed",
        "breaking: code.pushed colour: was removed",
        "addition: run.queued: a new type",
        "2 breaking, 1 added, compared with v1",
    ] == lines(capsys)


def test_what_only_adds_is_told_and_does_not_fail(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(repository, without("code.pushed", "url"), "v1")

    assert 0 == main(["contracts", "check"])

    assert ["addition: code.pushed url: a new field", "0 breaking, 1 added, compared with v1"] == lines(
        capsys
    )


def test_the_newest_tag_is_compared_with_unless_another_ref_is_named(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(repository, with_more("code.pushed", "colour"), "v1")
    commit(repository, TODAY, "v2")
    commit(repository, with_more("code.pushed", "later"))

    assert 0 == main(["contracts", "check"])
    assert ["no difference, compared with v2"] == lines(capsys)
    assert 1 == main(["contracts", "check", "--against", "v1"])
    assert 1 == main(["contracts", "check", "--against", "HEAD"])
    assert "breaking: code.pushed later: was removed" in lines(capsys)


def test_without_a_tag_the_last_commit_is_compared_with(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(repository, TODAY)

    assert 0 == main(["contracts", "check"])
    assert ["no difference, compared with HEAD"] == lines(capsys)


@pytest.mark.parametrize("ref", ["nope", "--output=x", "HEAD:contracts"])
def test_a_ref_that_is_none_is_named(repository: Path, ref: str, capsys: pytest.CaptureFixture[str]) -> None:
    commit(repository, TODAY)

    assert 1 == main(["contracts", "check", f"--against={ref}"])
    told = capsys.readouterr().err
    assert told.startswith("odooops: git says: ")
    assert told.count("\n") == 1
    assert not (repository / "x").exists()


def test_a_commit_without_schemas_is_named(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(repository, {})

    assert 1 == main(["contracts", "check"])
    assert "HEAD has no schemas in contracts/schemas/" in capsys.readouterr().err


def test_a_folder_that_is_no_repository_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contracts, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert 1 == main(["contracts", "check"])
    assert "git says: fatal: not a git repository" in capsys.readouterr().err
