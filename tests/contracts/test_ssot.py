"""SSOT files are read strictly: what is misspelt, repeated or misplaced is named, with its file."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from contracts.ssot import ENDPOINT_PATTERN, USUAL_LIMITS, Limit, LimitsFile, ProviderFile
from runtime.settings import BadSettings
from runtime.ssot import load, load_providers

ROOT = Path(__file__).parents[2]
GITHUB = "name: github\nendpoint: /webhooks/github\nsecrets: [GITHUB_WEBHOOK_SECRET]\n"


def directory(tmp_path: Path, **files: str | bytes) -> Path:
    """An SSOT directory with these provider files."""
    (tmp_path / "providers").mkdir()
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "providers" / f"{name}.yaml").write_bytes(raw)
    return tmp_path


def refusal(tmp_path: Path, **files: str | bytes) -> str:
    """Why these files are not taken, without the line."""
    return re.sub(r"\.yaml:\d+: ", ".yaml: ", refusal_with_line(tmp_path, **files))


def refusal_with_line(tmp_path: Path, **files: str | bytes) -> str:
    with pytest.raises(BadSettings) as refused:
        load_providers(directory(tmp_path, **files))
    return str(refused.value).replace(str(tmp_path), "ssot")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "ssot" / "providers").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_committed_file_has_the_order_of_its_model_and_a_word_on_each_list(path: Path) -> None:
    lines = path.read_text().splitlines()
    keys = [line.partition(":")[0] for line in lines if re.match(r"[a-z_]+:", line)]
    assert [name for name in ProviderFile.model_fields if name in keys] == keys
    lists = [
        (before, line)
        for before, line in pairwise(lines)
        if re.fullmatch("secrets:|events:|refs:|feeds:|pages:", line)
    ]
    assert [] == [line for before, line in lists if not before.startswith("#")]


def test_the_committed_files_are_taken() -> None:
    assert "/webhooks/github" == load_providers(ROOT / "ssot")["github"].endpoint


def test_files_come_by_name(tmp_path: Path) -> None:
    plane = GITHUB.replace("github", "plane")
    assert {
        "github": ProviderFile(name="github", endpoint="/webhooks/github", secrets=["GITHUB_WEBHOOK_SECRET"]),
        "plane": ProviderFile(name="plane", endpoint="/webhooks/plane", secrets=["GITHUB_WEBHOOK_SECRET"]),
    } == load_providers(directory(tmp_path, github=GITHUB, plane=plane))


def test_a_source_is_signed_unless_its_file_says_otherwise(tmp_path: Path) -> None:
    plane = GITHUB.replace("github", "plane") + "unsigned: true\n"
    loaded = load_providers(directory(tmp_path, github=GITHUB, plane=plane))
    assert {"github": False, "plane": True} == {name: file.unsigned for name, file in loaded.items()}


def test_a_file_cannot_be_changed_once_it_is_loaded() -> None:
    file = load_providers(ROOT / "ssot")["github"]
    with pytest.raises(ValidationError, match="frozen"):
        file.unsigned = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GITHUB + "colour: red\n", "ssot/providers/github.yaml: colour: Extra inputs are not permitted"),
        (GITHUB + "unsinged: true\n", "ssot/providers/github.yaml: unsinged: Extra inputs are not permitted"),
        (
            GITHUB + "unsigned: perhaps\n",
            "ssot/providers/github.yaml: unsigned: Input should be a valid boolean",
        ),
        (GITHUB + "events: [1]\n", "ssot/providers/github.yaml: events.0: Input should be a valid string"),
        (GITHUB + "events:\n", "ssot/providers/github.yaml: events: Input should be a valid list"),
        (
            GITHUB.replace("/webhooks/github", "/github"),
            f"ssot/providers/github.yaml: endpoint: String should match pattern '{ENDPOINT_PATTERN}'",
        ),
        (
            GITHUB.replace(": github", ": gitlab"),
            "ssot/providers/github.yaml: name is 'gitlab', expected 'github'",
        ),
        ("", "ssot/providers/github.yaml: the whole file: Input should be a valid dictionary"),
        (
            "- name: github\n",
            "ssot/providers/github.yaml: the whole file: Input should be a valid dictionary",
        ),
    ],
)
def test_what_is_wrong_is_named_by_file_and_field(tmp_path: Path, content: str, reason: str) -> None:
    assert refusal(tmp_path, github=content).startswith(reason)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (GITHUB + "name: github\n", 'duplicate key "name"'),
        (GITHUB + "secrets: []\n", 'duplicate key "secrets"'),
        (GITHUB + "---\n" + GITHUB, "expected a single document"),
        (GITHUB + "\tevents: []\n", "cannot start any token"),
        (GITHUB + "events: [push\n", "expected"),
        (b"name: \xff\n", "unacceptable character"),
        (b"name: \x00\n", "unacceptable character"),
        ("name: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    ],
    ids=[
        "key twice",
        "list twice",
        "two documents",
        "a tab",
        "an open bracket",
        "no UTF-8",
        "NUL",
        "a Python object",
    ],
)
def test_what_is_no_plain_yaml_is_refused_in_one_line(
    tmp_path: Path, content: str | bytes, word: str
) -> None:
    said = refusal(tmp_path, github=content)
    assert said.startswith("ssot/providers/github.yaml: ")
    assert word in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            GITHUB + "\nname: github\n",
            '5: found duplicate key "name": a key stands once, keep the right one',
        ),
        (
            GITHUB + "unsinged: true\n",
            "4: unsinged: Extra inputs are not permitted: remove it, or mend its name",
        ),
        (GITHUB + "events:\n  - push\n  - 7\n", "6: events.1: Input should be a valid string"),
        ("secrets: []\n", " name: Field required: add it"),
        (GITHUB.replace(": github", ": gitlab"), "1: name is 'gitlab', expected 'github'"),
        (
            GITHUB + "events: [push\n",
            "5: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
        ),
    ],
    ids=["a key twice", "an unknown key", "an item of a list", "a missing key", "a wrong name", "no YAML"],
)
def test_what_is_wrong_is_named_by_line_with_the_fix(tmp_path: Path, content: str, said: str) -> None:
    assert f"ssot/providers/github.yaml:{said}" == refusal_with_line(tmp_path, github=content)


def test_a_value_that_stands_beside_a_repeated_key_is_not_shown(tmp_path: Path) -> None:
    assert "hunter2" not in refusal(tmp_path, github=GITHUB + "secrets: [hunter2]\n")


def test_one_wrong_file_among_good_ones_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, github=GITHUB, plane=GITHUB).startswith(
        "ssot/providers/plane.yaml: name is 'github'"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (directory(tmp_path) / "providers" / "github.yaml").mkdir()
    with pytest.raises(BadSettings, match=r"github\.yaml: cannot be read: Is a directory"):
        load_providers(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_without_files_is_named_and_so_is_the_setting(tmp_path: Path, there: bool) -> None:
    if there:
        directory(tmp_path)
    with pytest.raises(BadSettings) as refused:
        load_providers(tmp_path)
    assert f"{tmp_path / 'providers'}: holds no YAML file: is ODOOOPS_SSOT_DIR right?" == str(refused.value)


def test_limits_are_those_of_the_file_and_the_usual_ones_without_it(tmp_path: Path) -> None:
    folder = directory(tmp_path, github=GITHUB + "limits: {per_s: 7, burst: 70}\n")
    assert load(folder).limits == USUAL_LIMITS
    (folder / "limits.yaml").write_text("addresses: {per_s: 0.5, burst: 5}\n")
    found = load(folder)
    assert found.limits == LimitsFile(addresses=Limit(per_s=0.5, burst=5))
    assert found.providers["github"].limits == Limit(per_s=7, burst=70)


def test_the_committed_limits_are_the_usual_ones() -> None:
    assert load(ROOT / "ssot").limits == USUAL_LIMITS


def test_a_wrong_limit_is_named_by_line(tmp_path: Path) -> None:
    folder = directory(tmp_path, github=GITHUB)
    (folder / "limits.yaml").write_text("addresses:\n  per_s: 1\n  burst: 0\n")
    with pytest.raises(BadSettings, match=r"limits\.yaml:3: addresses\.burst: Input should be greater than"):
        load(folder)
