"""Starts the projector."""

import sys

from runtime import process
from runtime.garbage import seldom_collected
from services.projector.app import main

if __name__ == "__main__":
    with seldom_collected():
        code = process.run("projector", main)
    sys.exit(code)
