"""Logs hold what they were told, and nothing that a variable happened to hold."""

from __future__ import annotations

import pytest
import structlog

from runtime import log as logs


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_shows_no_values(style: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = logs.configure("test", style)  # type: ignore[arg-type]  # one of the two
    secret = "hunter" + "2"
    try:
        int(secret.upper() and "x")
    except ValueError:
        log.exception("a request failed")
    structlog.reset_defaults()

    said = capfd.readouterr().err
    assert "a request failed" in said and "ValueError" in said
    assert "hunter2" not in said
