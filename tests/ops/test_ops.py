"""ops/: dashboard and alerts name what there is, and promtool accepts the rules and their tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
from ruamel.yaml import YAML

from cli.main import app
from services.ingest.receive import REQUESTS, Receiver
from tests.ops.registered import SERVICES, metrics
from tests.services.ingest.door import GITHUB

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "ops" / "prometheus"
RULE_TESTS = ("alerts_test.yaml", "alerts_day_test.yaml")
PROMTOOL_S_MAX = 60.0
_NAMES = re.compile(r"\bodooops_\w+")
_NO_PROMTOOL = "promtool is not there: the rules in ops/ are not checked (apt-get install prometheus)"

DASHBOARD: dict[str, Any] = json.loads((ROOT / "ops" / "grafana" / "odooops.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path)


RULES: list[dict[str, Any]] = [
    rule for group in load(PROMETHEUS / "alerts.yaml")["groups"] for rule in group["rules"]
]
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def series() -> set[str]:
    return {name for metric in metrics().values() for name in metric.series}


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    shown = {
        name for panel in PANELS for target in panel["targets"] for name in _NAMES.findall(target["expr"])
    }
    assert shown <= series()
    assert set(metrics()) == {name for name, metric in metrics().items() if metric.series & shown}


def test_the_dashboard_can_be_imported_anywhere() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert ("datasource", "prometheus") == (variable["type"], variable["query"])
    ours = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    for panel in PANELS:
        assert [ours] * (1 + len(panel["targets"])) == [
            each["datasource"] for each in (panel, *panel["targets"])
        ]
    assert len(DASHBOARD["panels"]) == len({panel["id"] for panel in DASHBOARD["panels"]})


def test_no_panel_lies_on_another_or_beyond_the_edge() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@each_rule
def test_an_alert_goes_by_metrics_that_there_are(rule: dict[str, Any]) -> None:
    assert set(_NAMES.findall(rule["expr"])) <= series()


@each_rule
def test_an_alert_names_a_page_or_a_command_that_there_is(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert annotations["summary"]
    assert {"runbook", "command"} & set(annotations)
    if "runbook" in annotations:
        path, _, anchor = annotations["runbook"].partition("#")
        assert not anchor or anchor in anchors(ROOT / path)
        assert (ROOT / path).is_file()
    if "command" in annotations:
        require_command(annotations["command"])


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def require_command(line: str) -> None:
    program, *words = line.split()
    assert "odooops" == program
    command: Any = typer.main.get_command(app)
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_each_alert_is_tested_both_when_it_speaks_and_when_it_does_not() -> None:
    tests = [
        each
        for file in RULE_TESTS
        for test in load(PROMETHEUS / file)["tests"]
        for each in test["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in RULES}
    assert names == {each["alertname"] for each in tests if each.get("exp_alerts")}
    assert names == {each["alertname"] for each in tests if not each.get("exp_alerts")}


def test_answers_that_alerts_count_are_told_before_there_is_one() -> None:
    Receiver(GITHUB, None)
    counted = {
        (sample.labels["status"], sample.labels["reason"])
        for family in REQUESTS.collect()
        for sample in family.samples
        if sample.labels["source"] == "github"
    }
    assert {("200", "stored"), ("503", "broker_away"), ("503", "log_full"), ("503", "spool_full")} <= counted


def test_every_service_is_scraped_by_the_name_that_the_alerts_go_by() -> None:
    jobs = load(PROMETHEUS / "prometheus.yaml")["scrape_configs"]
    assert [f"odooops-{service}" for service in SERVICES] == sorted(job["job_name"] for job in jobs)
    (missing,) = (rule["expr"] for rule in RULES if rule["alert"] == "OdooopsProcessMissing")
    assert {job["job_name"] for job in jobs} == set(re.findall(r'job="([^"]+)"', missing))


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yaml"), ("test", "rules", *RULE_TESTS)],
    ids=["the configuration and its rules", "the rules' tests"],
)
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    require_accepted(PROMETHEUS, *arguments)


def test_promtool_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [
        target["expr"].replace("$__rate_interval", "5m") for panel in PANELS for target in panel["targets"]
    ]
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(asked)]
    (tmp_path / "panels.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    require_accepted(tmp_path, "check", "rules", "--lint=none", "panels.yaml")


def require_accepted(folder: Path, *arguments: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None and os.environ.get("CI"):
        pytest.fail(_NO_PROMTOOL)
    if promtool is None:
        pytest.skip(_NO_PROMTOOL)
    done = subprocess.run(
        [promtool, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PROMTOOL_S_MAX,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
