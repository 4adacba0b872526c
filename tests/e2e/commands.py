"""The command as its user gets it, but in this process: starting Python costs more than most of them do."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest import mock

from cli.main import main


def command(arguments: Sequence[str], env: Mapping[str, str], given: bytes = b"") -> CompletedProcess[str]:
    """What `odooops` with these arguments, in this environment, prints and ends with."""
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    codes: list[int] = []
    with (
        mock.patch.dict(os.environ, env, clear=True),
        mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(given))),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        # A thread of its own: a command starts an event loop, and a test may be in one.
        thread = threading.Thread(target=lambda: codes.append(main(arguments)))
        thread.start()
        thread.join()
    said = [each.buffer.getvalue().decode() for each in (out, err)]
    return CompletedProcess(list(arguments), codes[0], *said)
