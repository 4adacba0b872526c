"""Starts ingest."""

import sys

from runtime import process
from services.ingest.app import main

if __name__ == "__main__":
    sys.exit(process.run("ingest", main))
