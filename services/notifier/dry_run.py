"""Without credentials, messages are printed instead of posted, whatever their age."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import ClassVar, Literal

from services.notifier.message import Message
from services.notifier.slack import NotThere, Outcome, Posted, Search


class DryRun:
    """Standard output, for people to read."""

    name: ClassVar[str] = "dry_run"
    channel: ClassVar[None] = None
    ages: ClassVar[bool] = False
    done: ClassVar[Literal["dry_run"]] = "dry_run"

    async def post(self, message_id: str, message: Message) -> Outcome:
        """Print it."""
        sys.stdout.write(f"\n[dry run] {message.kind}\n{message.plain}\n")
        sys.stdout.flush()
        return Posted(None)

    async def find(self, message_id: str, since: datetime) -> Search:
        """Nobody remembers what was printed: it is printed again."""
        return NotThere()
