"""How Supabase's management API is polled: project by project, a part for each thing that it tells of one."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from providers.polling import (
    Ask,
    Failed,
    Keep,
    Look,
    Part,
    Polling,
    Scope,
    Step,
    Steps,
    Warn,
    ask,
    rate_limit,
)
from providers.port import Source
from providers.supabase_management.backups import backups
from providers.supabase_management.health import branches, project_health, services
from providers.supabase_management.lints import performance, security
from providers.supabase_management.metrics import disk, requests
from providers.supabase_management.payloads import Project, parsed
from providers.supabase_management.target import ANSWERING, Of, Target

PROJECTS_MAX = 20
"""Projects that are polled where none is named: what is remembered of them has to fit into one place."""
PARTS: Mapping[str, Of] = {
    "services": services,
    "branches": branches,
    "backups": backups,
    "security": security,
    "performance": performance,
    "disk": disk,
    "requests": requests,
}
PROJECTS = TypeAdapter(list[Project])


def scopes(source: Source) -> Sequence[Scope]:
    """A scope for each project that is named; where none is, one for all that the token may see."""
    named: list[str] = source.options.projects
    return [_scope(f"projects/{ref}", ref) for ref in named] if named else [_scope("projects", None)]


def _scope(name: str, ref: str | None) -> Scope:
    parts = {"projects": _themselves(ref), **{part: _each(of, ref) for part, of in PARTS.items()}}
    return Scope(name=name, parts=parts)


def _themselves(ref: str | None) -> Part:
    """The health of the projects as such. Kept: which there were, and their environments."""

    def steps(look: Look) -> Steps:
        try:
            targets = yield from _targets(look, ref)
        except Failed:
            for known, env in look.state.items():
                yield project_health(look, Target(known, None, env, look.started_at))
            raise
        for target in targets:
            yield project_health(look, target)
        yield Keep({target.ref: target.env for target in targets})

    return steps


def _each(of: Of, ref: str | None) -> Part:
    """`of` for each project that can answer; one that fails does not stop the others. Kept: what `of` gives, by ref."""

    def steps(look: Look) -> Steps:
        kept: dict[str, Mapping[str, Any]] = {}
        for target in (yield from _targets(look, ref)):
            before = look.state.get(target.ref, {})
            try:
                kept[target.ref] = (
                    (yield from of(look, target, before)) if target.status in ANSWERING else before
                )
            except Failed as failed:
                if ref is not None:
                    raise
                kept[target.ref] = before
                yield Warn(failed.reason, f"{target.ref}: {failed}")
        yield Keep({project: what for project, what in kept.items() if what})

    return steps


def _targets(look: Look, ref: str | None) -> Generator[Step, Any, list[Target]]:
    if ref is None:
        reply = yield from ask(Ask(path="/v1/projects"))
        found = parsed(PROJECTS, reply)
    else:
        reply = yield from ask(Ask(path=f"/v1/projects/{ref}"))
        found = [parsed(Project, reply)]
    if len(found) > PROJECTS_MAX:
        yield Warn(
            "many_projects",
            f"{len(found)} projects, {PROJECTS_MAX} are polled: name those that matter in options",
        )
    return [
        Target(
            ref=project.ref,
            status=project.status,
            env=look.source.environments.of(source=look.source.name, variable=f"project={project.ref}"),
            seen_at=reply.fetched_at,
        )
        for project in sorted(found, key=lambda each: each.ref)[:PROJECTS_MAX]
    ]


POLLING = Polling(scopes=scopes, allowance=rate_limit(counts_down=True))
