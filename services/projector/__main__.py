"""Starts the projector. With --unpark, what is parked is tried again by the code that starts."""

import argparse
import sys
from functools import partial

from runtime import process
from runtime.garbage import seldom_collected
from services.projector.app import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m services.projector", description="Folds the log into tables."
    )
    parser.add_argument("--unpark", action="store_true", help="retry the parked deliveries")
    unpark = parser.parse_args().unpark
    with seldom_collected():
        code = process.run("projector", partial(main, unpark=unpark))
    sys.exit(code)
