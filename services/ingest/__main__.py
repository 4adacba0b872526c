"""Starts ingest."""

import sys

from runtime import process
from runtime.garbage import seldom_collected
from services.ingest.app import main

if __name__ == "__main__":
    with seldom_collected():
        sys.exit(process.run("ingest", main))
