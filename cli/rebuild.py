"""`odooops rebuild` and `odooops verify`: the log folded anew, and what of the tables is not what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from cli import terminal
from cli.database import DatabaseRefused
from cli.reach import Servers, Trouble
from cli.work import compared_as_json, print_compared, working
from migrations.__main__ import head
from read_models.registry import READ_MODELS
from services.projector import rebuild as operation
from services.projector import rollback as old_tables
from services.projector import seed
from services.projector.rebuild import Replayed
from services.projector.shadow import Compared
from services.projector.work import Work

UNHEARD_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    models: tuple[str, ...]
    rate_max: float | None
    limit: int
    dry_run: bool
    in_place: bool = False


async def rebuild(servers: Servers, wanted: Wanted, as_json: bool) -> None:
    """Rebuild, or only show what a rebuild would change."""
    verbs = ("would come", "would go", "would change") if wanted.dry_run else ("come", "go", "change")
    done = await _run(servers, wanted, as_json, verbs)
    if as_json:
        terminal.print_json(_as_json(done))
        return
    out = terminal.console()
    if wanted.dry_run:
        out.print("nothing was changed: without --dry-run the rows above are")
    elif done.kept is None:
        equal = all(each.equal for each in done.compared)
        out.print("no row had to be replaced" if equal else "the rows above were replaced where they are")
    else:
        out.print("put in place: the tables are what the log says now")
        _print_kept(done.kept)


async def verify(servers: Servers, wanted: Wanted, as_json: bool) -> bool:
    """Compare the tables with the log; whether they are equal."""
    done = await _run(servers, wanted, as_json, ("missing", "extra", "changed"))
    equal = all(each.equal for each in done.compared)
    if as_json:
        terminal.print_json({"equal": equal, **_as_json(done)})
        return equal
    if done.older:
        again = "; where the rows were equal that is settled now" if not done.behind else ""
        terminal.console().print(
            f"made by older code or SSOT, as far as was known: {', '.join(done.older)}{again}", soft_wrap=True
        )
    if not equal:
        named = " ".join(each.model for each in done.compared if not each.equal)
        terminal.console().print(f"odooops rebuild {named} makes the rows what the log says", soft_wrap=True)
    return equal


async def rollback(servers: Servers, rate_max: float | None, as_json: bool) -> None:
    """Put the newest old tables back."""
    async with working(servers, rate_max) as work:
        await _check_migrations(work)
        with _interrupted():
            done = await old_tables.rollback(work)
    if as_json:
        terminal.print_json(_as_json(done))
        return
    out = terminal.console()
    out.print(
        f"put back, with {terminal.deliveries(done.deliveries)} that had come since: {', '.join(done.models)}",
        soft_wrap=True,
    )
    if done.kept:
        _print_kept(done.kept)


async def drop_old(servers: Servers, as_json: bool) -> None:
    """Drop the old tables."""
    async with working(servers) as work:
        dropped = await old_tables.drop_old(work.engine)
    if as_json:
        terminal.print_json({"dropped": dropped})
    else:
        terminal.console().print(f"dropped: {', '.join(dropped)}" if dropped else "there were no old tables")


async def _run(servers: Servers, wanted: Wanted, as_json: bool, verbs: tuple[str, str, str]) -> Replayed:
    _check_names(wanted.models)

    def found(compared: Sequence[Compared], behind: int) -> None:
        if not as_json:
            _print_found(compared, behind, verbs)

    async with working(servers, wanted.rate_max) as work:
        if not wanted.dry_run:
            await _check_migrations(work)
        with _interrupted():
            done = await operation.rebuild(
                work,
                wanted.models,
                limit=wanted.limit,
                dry_run=wanted.dry_run,
                in_place=wanted.in_place,
                found=found,
            )
    if not as_json:
        rate = done.deliveries / done.seconds if done.seconds else 0.0
        out = terminal.console()
        out.print(f"{terminal.deliveries(done.deliveries)} in {done.seconds:.1f} s, {rate:,.0f}/s")
        if trimmed := seed.sentence(done):
            out.print(trimmed, soft_wrap=True)
        if done.unheard:
            _print_unheard(done, changed=not wanted.dry_run)
    return done


@contextmanager
def _interrupted() -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        terminal.say(
            "interrupted: the tables are as they were; `odooops status` names what is left behind, if anything"
        )
        raise


def _check_names(models: Sequence[str]) -> None:
    known = [model.name for model in READ_MODELS]
    if unknown := [name for name in models if name not in known]:
        raise Trouble(f"no table is called {', '.join(unknown)}: known are {', '.join(sorted(known))}")


async def _check_migrations(work: Work) -> None:
    """The new tables have the columns of today's code: they would be in the way of a migration that brings them."""
    async with work.engine.connect() as connection:
        found = (await connection.execute(text("SELECT version_num FROM public.alembic_version"))).scalar()
    expected = head()
    if found != expected:
        raise DatabaseRefused(f"the schema is at {found}, this code at {expected}: run python -m migrations")


def _print_found(compared: Sequence[Compared], behind: int, verbs: tuple[str, str, str]) -> None:
    print_compared(compared, verbs)
    out = terminal.console()
    equal = [each for each in compared if each.equal]
    out.print(
        f"{len(equal)} of {len(compared)} tables are what the log says,"
        f" {sum(each.rows for each in compared):,} rows by the log"
    )
    if behind:
        out.print(
            f"not compared: what {terminal.deliveries(behind)} say, which the projectors have yet to fold"
        )


def _print_unheard(done: Replayed, *, changed: bool) -> None:
    """A rebuild publishes nothing, and of what was parked nobody has heard yet."""
    count = terminal.deliveries(len(done.unheard))
    shown = " ".join(map(str, done.unheard[:UNHEARD_SHOWN_MAX]))
    more = " …" if len(done.unheard) > UNHEARD_SHOWN_MAX else ""
    said = (
        f"{count} that had been parked are projected now, and their events were never published:"
        f" odooops replay --publish {shown}{more}"
        if changed
        else f"{count} that are parked would be projected, and no rebuild publishes their events: see"
        " `odooops parked retry`, which does"
    )
    terminal.console().print(said, soft_wrap=True)


def _print_kept(kept: str) -> None:
    out = terminal.console()
    out.print(f"the tables before it are kept in {kept}")
    out.print("  odooops rebuild --rollback puts them back, with all that comes until then")
    out.print("  odooops rebuild --drop-old drops them")


def _as_json(done: Replayed) -> dict[str, Any]:
    return {
        "models": list(done.models),
        "deliveries": done.deliveries,
        "seconds": done.seconds,
        "first_seq": done.first_seq,
        "proven_from": done.proven_from,
        "taken_over": dict(done.taken_over),
        "unheard": list(done.unheard),
        "not_compared_deliveries": done.behind,
        "older": list(done.older),
        "kept": done.kept,
        "compared": compared_as_json(done.compared),
    }
