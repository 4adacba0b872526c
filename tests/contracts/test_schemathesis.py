"""schemathesis asks every operation for what the OpenAPI document does not tell, and finds nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.types import Receive, Scope, Send

from cli.contracts import OPENAPI
from runtime import embedded, process
from tests.contracts.examples import FOLDER
from tests.contracts.serving import ENDPOINTS
from tests.services.ingest.door import open_door

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio

ROOT = FOLDER.parent
CONFIG = Path(__file__).with_name("schemathesis.toml")
CONFORMANCE = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
"""The checks that hold for whatever is signed: the others ask whether a request is good, which no schema tells."""
RUN_S_MAX = 120


async def asked(folder: Path, port: int, checks: str, **env: str) -> tuple[int | None, str]:
    """What schemathesis finds: its exit code, and all that it says."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
        *("run", str(FOLDER / OPENAPI), "--url", f"http://{embedded.LOOPBACK}:{port}"),
        *("--checks", checks, "--no-color"),
        cwd=folder,  # it leaves files where it runs
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **env},
        stdout=PIPE,
        stderr=STDOUT,
    )
    async with asyncio.timeout(RUN_S_MAX):
        said, _ = await running.communicate()
    return running.returncode, said.decode()


async def test_nothing_is_answered_that_the_document_does_not_tell(broker: Broker, tmp_path: Path) -> None:
    async def well() -> dict[str, str]:
        return {}

    ops = process.ops_app(well)
    async with open_door(broker.url, broker.js, list(ENDPOINTS.values())) as door:

        async def both(scope: Scope, receive: Receive, send: Send) -> None:
            app = ops if scope["path"] in ("/readyz", "/metrics") else door.receiver
            await app(scope, receive, send)

        port = embedded.free_port()
        async with process.serve_http(both, embedded.LOOPBACK, port):
            as_strangers, as_senders = await asyncio.gather(
                asked(tmp_path, port, "all"),
                asked(tmp_path, port, CONFORMANCE, SCHEMATHESIS_HOOKS="tests.contracts.signed_requests"),
            )
    assert as_strangers[0] == 0, as_strangers[1]
    assert as_senders[0] == 0, as_senders[1]
    assert await door.count() > len(ENDPOINTS)
