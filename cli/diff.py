"""`odooops diff --code`: what the code at hand would make otherwise of the newest deliveries."""

from __future__ import annotations

from dataclasses import replace

from cli import terminal
from cli.reach import Servers
from cli.replay import preview_as_json, print_preview
from cli.work import without_personal, working
from services.projector.preview import look
from services.projector.replay import newest


async def run(servers: Servers, last: int, limit: int, as_json: bool) -> bool:
    """Compare what this code makes of the `last` deliveries with the live tables; whether nothing differs."""
    async with working(servers) as work:
        async with work.engine.connect() as connection:
            entries = await newest(connection, last)
        found = await look(work, entries, limit=limit)
    # It is kept by the CI that runs it, which no redaction reaches.
    shown = replace(found, compared=without_personal(found.compared))
    if as_json:
        terminal.print_json({"deliveries": len(entries), **preview_as_json(shown)})
    else:
        print_preview(shown)
        terminal.console().print(
            f"looked at: the newest {terminal.deliveries(len(entries))}, {shown.read:,} read for what they are about"
        )
    return all(each.equal for each in shown.compared)
