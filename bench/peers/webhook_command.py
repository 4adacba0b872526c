"""webhook 2.8.0 (Debian; adnanh/webhook), runs a command for each request: acknowledgements only.

Follows https://github.com/adnanh/webhook/blob/master/docs/Hook-Examples.md (GitHub's hook, by `payload-hmac-sha256` of
docs/Hook-Rules.md) with the cheapest command there is, `true`. It verifies the same HMAC, starts the command and
answers 200 without waiting for its end, as it does unless told otherwise. It acknowledges faster than it starts
commands: those that are still waiting are forgotten when it ends.

It leaves out all the rest: it stores nothing, so an acknowledged delivery is gone when the machine or the command
fails; it makes no rows; a wrong signature is answered with 500.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench import corpus
from runtime import embedded


def hooks() -> str:
    """Its configuration."""
    signature = {
        "type": "payload-hmac-sha256",
        "secret": corpus.SECRET.decode(),
        "parameter": {"source": "header", "name": "X-Hub-Signature-256"},
    }
    hook = {
        "id": "github",
        "execute-command": "/bin/true",
        "http-methods": ["POST"],
        "response-message": json.dumps({"ok": True}),
        "trigger-rule": {"match": signature},
    }
    return json.dumps([hook])


def command(binary: str, config: Path, port: int) -> list[str]:
    """How it is started; its hooks are at the path of ours."""
    where = ["-ip", embedded.LOOPBACK, "-port", str(port), "-urlprefix", "webhooks"]
    return [binary, "-hooks", str(config), *where]
