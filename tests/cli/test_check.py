"""`odooops check` names whatever cannot work, by file and line, and every secret that is missing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.check import look
from cli.main import main
from contracts.envelope import Event
from providers import registry
from providers.github import PROVIDER
from providers.polling import Polling, Scope
from tests.cli.catalogues import ROOT

GITHUB = """\
name: github
endpoint: /webhooks/github
secrets: [FIRST, SECOND]
refs: ["github:<org>/<repo>#<number>"]
feeds: [builds]
pages: [/builds]
"""
ODOOOPS = "name: odooops\n"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("FIRST", "SECOND", "GITHUB_", "ODOOOPS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def ssot(tmp_path: Path, **files: str) -> Path:
    """A folder; a file is named without its ending, one of a provider unless it says otherwise."""
    folder = tmp_path / "ssot"
    (folder / "providers").mkdir(parents=True)
    for name, content in files.items():
        top = name in ("environments", "integrations", "capabilities", "starters")
        (folder / ("" if top else "providers") / f"{name}.yaml").write_text(content)
    return folder


def found(tmp_path: Path, state: str, **files: str) -> list[str]:
    """The findings of one state, each with its place."""
    findings = look(ssot(tmp_path, **files), tmp_path / "data")
    return [f"{each.place}: {each.text}" for each in findings if each.state == state]


def test_the_repositorys_own_files_are_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["check", "--ssot", str(ROOT / "ssot")])
    assert "0 bad" in capsys.readouterr().out


def test_without_an_option_the_settings_folder_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ODOOOPS_SSOT_DIR", str(ssot(tmp_path, github="name: gitlab\n")))
    assert 1 == main(["check"])
    assert "ssot/providers/github.yaml:1" in capsys.readouterr().out


def test_the_findings_are_there_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["check", "--json", "--ssot", str(ssot(tmp_path, github=GITHUB + "colour: red\n"))])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert {
        "state": "bad",
        "place": "ssot/providers/github.yaml:7",
        "text": "colour: Extra inputs are not permitted: remove it, or mend its name",
    } in told["findings"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GITHUB + "name: github\n", ':7: found duplicate key "name": a key stands once, keep the right one'),
        (GITHUB.replace("builds]", "builts]", 1), ":5: feeds: there is no table ops.builts"),
        (GITHUB.replace("/builds]", "builds]"), ":6: pages: 'builds' is no page, one begins with /"),
        (
            GITHUB.replace("refs:", "# refs:"),
            ":5: refs: say what its rows are called, as <system>:<kind>/<id>",
        ),
        (GITHUB + 'events: [push, ""]\n', ":7: events: an empty text, remove it"),
        (
            GITHUB + "options: {colour: red}\n",
            ":7: options.colour: Extra inputs are not permitted",
        ),
        (GITHUB + "provider: gitlab\n", ": no provider is called gitlab; known: "),
        (GITHUB + "unsigned: true\n", ": github proves who it is: remove unsigned"),
        (GITHUB.replace("endpoint:", "# endpoint:"), ": github needs an endpoint"),
        (
            GITHUB.replace("endpoint:", "# endpoint:") + "provider: odooops\n",
            ": only the source odooops speaks for OdooOps",
        ),
        (
            GITHUB.replace("[FIRST, SECOND]", "[]"),
            ":2: secrets: name one, without any its door stays shut",
        ),
        (GITHUB + "poll_interval_s: 5\n", ":7: poll_interval_s: Input should be greater than or equal to 60"),
    ],
    ids=[
        "a key twice",
        "a table that is none",
        "a page that is none",
        "no refs",
        "an empty text",
        "an unknown option",
        "an unknown provider",
        "unsigned without need",
        "no endpoint",
        "somebody who speaks for us",
        "no secret named",
        "polled too often",
    ],
)
def test_what_cannot_work_is_named_with_its_place(tmp_path: Path, content: str, said: str) -> None:
    (bad,) = found(tmp_path, "bad", github=content)
    assert bad.startswith(f"ssot/providers/github.yaml{said}")


API = 'base_url: "https://api.example.com", auth: bearer, secret: GITHUB_TOKEN'
POLLED = GITHUB + "poll_interval_s: 900\napi: {%s}\n"


@pytest.fixture
def polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub's API can be polled, and its options name something."""
    polling = Polling(scopes=lambda source: [Scope(name="repos/org/shop", parts={})])
    monkeypatch.setitem(registry.PROVIDERS, "github", replace(PROVIDER, polling=polling))


@pytest.mark.usefixtures("polled")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POLLED % API.replace("bearer", "basic"), ":8: api: user is missing: auth: basic needs it"),
        (POLLED % API.replace("bearer", "header"), ":8: api: header is missing: auth: header needs it"),
        (
            POLLED % f"{API}, user: me",
            ":8: api: user belongs to auth: basic: remove it, or change auth",
        ),
        (
            POLLED % API.replace("GITHUB_TOKEN", "ghp_hunter2"),
            ":8: api.secret: give the name of the variable that holds it, as GITHUB_TOKEN, never its value",
        ),
        (
            POLLED % API.replace("//", "//me:hunter2@"),
            ":8: api.base_url: give an address like https://api.example.com, without a login and without a query",
        ),
        (
            POLLED % API.replace("bearer", "token"),
            ":8: api.auth: Input should be 'bearer', 'basic' or 'header'",
        ),
        (
            (POLLED % API).replace("poll_interval_s: 900\n", ""),
            ":7: api: poll_interval_s is missing beside it: say how often, in seconds, it is polled",
        ),
        (
            (POLLED % API)
            .replace("github", "odooops")
            .replace("endpoint", "# endpoint")
            .replace("secrets", "#"),
            ":8: api: that of odooops is not polled: remove it",
        ),
    ],
    ids=[
        "basic without user",
        "header without its name",
        "a user for nothing",
        "a value for a name",
        "a login in the address",
        "an unknown way",
        "no interval",
        "nothing to poll",
    ],
)
def test_an_api_that_cannot_be_polled_is_named_with_field_and_fix(
    tmp_path: Path, content: str, said: str
) -> None:
    name = "odooops" if "name: odooops" in content else "github"
    (bad,) = found(tmp_path, "bad", **{name: content})
    assert bad == f"ssot/providers/{name}.yaml{said}"
    assert "hunter2" not in bad


@pytest.mark.usefixtures("polled")
def test_whether_an_api_is_polled_is_said_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "ssot/providers/github.yaml:8"
    folder = ssot(tmp_path, github=POLLED % API)

    def said() -> list[str]:
        return [each.text for each in look(folder, tmp_path) if each.place == place and each.state == "ok"]

    assert ["not polled: set GITHUB_TOKEN (or GITHUB_TOKEN_FILE)"] == said()
    monkeypatch.setenv("GITHUB_TOKEN", "t")
    assert ["polled every 900 s"] == said()


@pytest.mark.usefixtures("polled")
@pytest.mark.parametrize(
    ("address", "warned"),
    [("http://plane.lan", True), ("http://127.0.0.1:8000", False), ("https://plane.lan", False)],
)
def test_a_secret_in_the_clear_is_a_warning(tmp_path: Path, address: str, warned: bool) -> None:
    content = POLLED % API.replace("https://api.example.com", address)
    clear = "ssot/providers/github.yaml:8: api.base_url: the secret goes in the clear: prefer https"
    assert warned == (clear in found(tmp_path, "warning", github=content))


def test_a_source_of_which_only_deliveries_are_kept_needs_no_refs(tmp_path: Path) -> None:
    content = GITHUB.replace("refs:", "# refs:").replace("[builds]", "[deliveries]")
    assert [] == found(tmp_path, "bad", github=content)


def test_every_wrong_file_is_named_and_every_problem_of_it(tmp_path: Path) -> None:
    bad = found(
        tmp_path, "bad", github="name: 7\ncolour: red\n", odooops="name: [\n", environments="rules: 7\n"
    )
    assert ["github.yaml:1", "github.yaml:2", "odooops.yaml:2", "environments.yaml:1"] == [
        each.split(": ")[0].rpartition("/")[2] for each in bad
    ]


def test_an_endpoint_that_two_sources_claim_is_named(tmp_path: Path) -> None:
    other = GITHUB.replace("name: github", "name: other\nprovider: github")
    (bad,) = found(tmp_path, "bad", github=GITHUB, other=other)
    assert bad == "ssot/providers/other.yaml:3: endpoint /webhooks/github is github's already"


@pytest.mark.parametrize(
    ("rule", "bad", "warned"),
    [
        ("env: prod, branch: main", None, None),
        ("env: prod", "rules.0: it states no trait, so it fits nothing", None),
        (
            "env: prod, variable: [prod]",
            "rules.0.variable: write it as name=value",
            None,
        ),
        ("env: prod, source: gitlab", None, "rules.0.source: there is no source gitlab"),
        ("env: prod, source: git*", None, None),
    ],
)
def test_a_rule_that_can_fit_nothing_is_named(
    tmp_path: Path, rule: str, bad: str | None, warned: str | None
) -> None:
    files = {"environments": f"rules:\n  - {{{rule}}}\n", "github": GITHUB}
    place = "ssot/environments.yaml:2: "
    assert ([place + bad] if bad else []) == found(tmp_path, "bad", **files)
    said = [
        f"{each.place}: {each.text}" for each in look(tmp_path / "ssot", tmp_path) if "rules." in each.text
    ]
    assert [place + each for each in (bad, warned) if each] == said


@pytest.mark.parametrize(
    ("content", "state", "said"),
    [
        ("rules:\n  - {env: prod, branch: main}\n  - {env: dev, branch: dev}\n", "ok", "2 rules"),
        ("rules: []\n", "ok", "0 rules"),
        ("rules: 7\n", "bad", "rules: Input should be a valid list"),
        (None, "warning", "not there: of everything the environment is unknown"),
    ],
)
def test_the_file_of_the_environments_has_a_line_of_its_own(
    tmp_path: Path, content: str | None, state: str, said: str
) -> None:
    folder = ssot(tmp_path, github=GITHUB, **({} if content is None else {"environments": content}))
    (line,) = [each for each in look(folder, tmp_path) if "environments.yaml" in each.place]
    assert (state, said) == (line.state, line.text)


@pytest.mark.parametrize(
    ("catalogue", "content", "said"),
    [
        (
            "integrations",
            "integrations:\n  slack:\n    name: Slack\n    category: chat\n    provider: direct\n",
            ":4: integrations.slack.category: Input should be 'auth_data', ",
        ),
        (
            "integrations",
            "integrations:\n  slack: {name: Slack, category: messaging, provider: direct}\n  slack: {}\n",
            ':3: found duplicate key "slack"',
        ),
        (
            "integrations",
            "integrations:\n  slack: {name: S, category: messaging, provider: direct, billing: free}\n",
            ":2: integrations.slack: Value error, billing is said of what is installed",
        ),
        (
            "integrations",
            "integrations:\n  slack: {name: S, category: messaging, provider: direct, env_keys: [token=x]}\n",
            ":2: integrations.slack.env_keys.0: String should match pattern",
        ),
        (
            "capabilities",
            "capabilities:\n  auth: {name: Auth, category: supabase, data_source: builds}\n",
            ":2: capabilities.auth.data_source: String should match pattern",
        ),
        ("starters", "starters:\n  a: {b: {}}\n", ":2: starters.a.b.title: Field required: add it"),
        ("starters", "starters: {}\nstarter: {}\n", ":2: starter: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_entry_of_a_catalogue_is_named(
    tmp_path: Path, catalogue: str, content: str, said: str
) -> None:
    (bad,) = found(tmp_path, "bad", github=GITHUB, **{catalogue: content})
    assert bad.startswith(f"ssot/{catalogue}.yaml{said}")


def test_a_capability_that_no_table_shows_is_a_warning(tmp_path: Path) -> None:
    content = "capabilities:\n  auth:\n    name: Auth\n    category: supabase\n    data_source: ops.nothing\n"
    assert "ssot/capabilities.yaml:5: auth: there is no table ops.nothing" in found(
        tmp_path, "warning", github=GITHUB, capabilities=content
    )


def test_each_missing_secret_of_a_closed_source_is_named(tmp_path: Path) -> None:
    assert (
        "ssot/providers/github.yaml:3: closed: not set is FIRST and SECOND (or …_FILE), one is enough"
        in found(tmp_path, "warning", github=GITHUB)
    )


@pytest.mark.parametrize("how", ["given", "made by up"])
def test_an_empty_file_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    empty = tmp_path / ("first" if how == "given" else "data/secrets/first")
    empty.parent.mkdir(parents=True, exist_ok=True)
    empty.touch()
    if how == "given":
        monkeypatch.setenv("FIRST_FILE", str(empty))
    (closed,) = [each for each in found(tmp_path, "warning", github=GITHUB) if "closed" in each]
    assert "not set is FIRST and SECOND" in closed


@pytest.mark.parametrize("how", ["a variable", "a file", "made by up"])
def test_a_source_with_one_secret_is_open_and_the_other_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "a variable":
        monkeypatch.setenv("FIRST", "hunter2")
    elif how == "a file":
        (tmp_path / "first").write_text("hunter2\n")
        monkeypatch.setenv("FIRST_FILE", str(tmp_path / "first"))
    else:
        (tmp_path / "data" / "secrets").mkdir(parents=True)
        (tmp_path / "data" / "secrets" / "first").write_text("hunter2\n")
    said = found(tmp_path, "ok", github=GITHUB)
    assert "ssot/providers/github.yaml:3: not set, and not needed now: SECOND" in said
    assert not any("hunter2" in each for each in said)


def test_a_secret_file_that_cannot_be_read_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST", "x")
    monkeypatch.setenv("SECOND_FILE", str(tmp_path / "none"))
    (bad,) = found(tmp_path, "bad", github=GITHUB)
    assert "SECOND_FILE names a file that cannot be read" in bad
    assert str(tmp_path / "none") not in bad


def test_an_unsigned_source_is_a_warning_and_needs_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any) -> list[Event]:
        return []

    careless = PROVIDER.__class__(
        name="careless",
        verify=PROVIDER.verify,
        normalize=nothing,
        compose=PROVIDER.compose,
        may_be_unsigned=True,
    )
    monkeypatch.setattr(registry, "PROVIDERS", {"careless": careless})
    content = "name: careless\nendpoint: /webhooks/careless\nunsigned: true\n"
    folder = ssot(tmp_path, careless=content)
    warned = [each for each in look(folder, tmp_path) if each.state == "warning" and "careless" in each.place]
    assert [
        ("ssot/providers/careless.yaml:3", "unsigned: whoever knows the address can write into its log")
    ] == [(each.place, each.text) for each in warned]
