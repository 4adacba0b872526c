"""`odooops rebuild --as-of`: the tables as they were at a moment, in a schema of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from cli import terminal
from cli.reach import Servers, Trouble
from cli.work import working
from read_models.registry import TABLES
from services.projector import as_of as past
from services.projector.as_of import AsOf, BadName
from services.projector.blocks import Until


async def run(
    servers: Servers,
    as_of: datetime | None,
    as_of_seq: int | None,
    into: str,
    rate: float | None,
    models: Sequence[str],
    as_json: bool,
) -> None:
    """Make the tables as they were, and print what they are of."""
    if as_of is None and as_of_seq is None:
        raise Trouble("say of when the tables are to be: --as-of TIME, --as-of-seq N, or both")
    if unknown := sorted(set(models) - set(TABLES)):
        raise Trouble(f"no model is called {', '.join(unknown)}: known are {', '.join(TABLES)}")
    try:
        past.require_name(into)
    except BadName as error:
        raise Trouble(str(error)) from None
    async with working(servers, rate) as work:
        made = await past.build(work, Until(as_of, as_of_seq), into, models)
    if as_json:
        terminal.print_json(asdict(made))
    else:
        _print(made)


def _print(made: AsOf) -> None:
    moment = "before anything was received" if made.moment is None else terminal.moment(made.moment)
    begun = f"{made.schema}: the tables as of {moment}, from {terminal.deliveries(made.deliveries)}"
    lines = [f"{begun}, in {made.seconds:.1f} s"]
    if made.erased:
        lines.append(f"  without {terminal.deliveries(made.erased)} of that time that were erased since")
    if made.trimmed:
        lines.append(
            f"  without {terminal.deliveries(made.trimmed)} of that time that the log no longer holds: rows that"
            " rest on them are missing, or not as they were"
        )
    if made.views:
        lines.append(f"  with our {made.views} views, in which now() is that moment")
    else:
        lines.append("  without views, which need every table and a moment")
    lines.append(
        f"ask {made.schema} by `odooops sql`; once it has served, DROP SCHEMA {made.schema} CASCADE with psql"
    )
    for line in lines:
        terminal.console().print(terminal.clean(line), soft_wrap=True)
