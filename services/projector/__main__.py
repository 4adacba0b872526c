"""Starts the projector."""

import sys

from runtime import process
from services.projector.app import main

if __name__ == "__main__":
    sys.exit(process.run("projector", main))
