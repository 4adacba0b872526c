"""A peer's process: `python -m bench.peers MODULE COMMAND DATABASE_URL NUMBER`, of a port or of deliveries."""

from __future__ import annotations

import importlib
import sys

import uvloop

if __name__ == "__main__":
    module, command, url, number = sys.argv[1:]
    peer = importlib.import_module(f"bench.peers.{module}")
    uvloop.run(getattr(peer, command)(url, int(number)))
