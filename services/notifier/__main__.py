"""`python -m services.notifier`: tell Slack what the events are worth telling."""

from __future__ import annotations

import sys

from runtime.process import run
from services.notifier.app import main

if __name__ == "__main__":
    sys.exit(run("notifier", main))
