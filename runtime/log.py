"""Structured logs on standard error: one line per event, JSON for machines or columns for people."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure(service: str, style: Literal["json", "console"]) -> structlog.stdlib.BoundLogger:
    """Set up logging of this process and return its logger; every line carries the service's name."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if style == "json":
        renderers: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        # Not rich's tracebacks: they print what variables hold, bodies and secrets among it.
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    log: structlog.stdlib.BoundLogger = structlog.get_logger().bind(service=service)
    return log
