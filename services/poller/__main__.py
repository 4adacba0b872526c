"""Starts the poller."""

import sys

from runtime import process
from services.poller.app import main

if __name__ == "__main__":
    sys.exit(process.run("poller", main))
