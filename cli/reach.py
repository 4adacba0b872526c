"""How a command reaches the servers: by explicit settings, else by what `up` wrote into the data folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from nats.aio.client import Client

from cli import terminal
from runtime import bus, settings, state
from runtime.bus import BrokerAway
from runtime.settings import BadSettings, Settings
from runtime.state import NotRunning, State

ROOT = Path(__file__).parent.parent
"""Where the packages lie; in a working copy ssot/ and samples/ lie beside them."""
REACH_S_MAX = 3.0


class Trouble(Exception):
    """Something that only the operator can mend; the message is the sentence that says it."""


class Servers:
    """Addresses. A data folder named on the command line is looked at alone; else settings come first."""

    def __init__(self, data_dir: Path, named: bool) -> None:
        self.data_dir = data_dir
        self.settings: Settings = settings.load()
        self._named = named
        self._state: State | None = None

    @property
    def state(self) -> State:
        """What runs on the data folder; raises NotRunning."""
        if self._state is None:
            self._state = state.read(self.data_dir)
        return self._state

    @property
    def known_state(self) -> State | None:
        """What runs on the data folder, if these are its servers; None where the settings name others."""
        try:
            found = self.state
        except NotRunning:
            if self._named or not (self._set("nats", "reader") or self._set("database", "reader")):
                raise
            return None
        return found if found.nats["reader"] == self.nats("reader") else None

    @property
    def in_folder(self) -> bool:
        """Whether the data folder says where the operator's servers are: it was named, or the settings name none."""
        database = self._set("database", "operator") or self.settings.database_url is not None
        return self._named or not (self._set("nats", "operator") or database)

    def nats(self, user: str) -> str:
        """The broker's address for `user`."""
        if not self._named and self._set("nats", user):
            return self.settings.nats_for(user)
        return self._given("nats", user)

    def database(self, user: str) -> str:
        """The database's address for `user`."""
        if not self._named and self._set("database", user):
            return self.settings.database_for(user)
        return self._given("database", user)

    def _given(self, kind: str, user: str) -> str:
        """The address that `up` has for `user`: its own servers' for all, of given ones perhaps not."""
        try:
            found: str = getattr(self._running(kind, user), kind)[user]
        except KeyError:
            raise BadSettings(
                f"`odooops up` was started without {kind.upper()}_URL_{user.upper()}: give the {user}'s own login"
            ) from None
        return found

    def _running(self, kind: str, user: str) -> State:
        """What runs on the data folder. Raises BadSettings where the settings send the other user elsewhere.

        A command would otherwise read the tables of one place and write into those of another.
        """
        other = "operator" if user == "reader" else "reader"
        if not self._named and self._set(kind, other):
            elsewhere = place(getattr(self.settings, f"{kind}_for")(other))
            if elsewhere != self._place_in_folder(kind, other):
                raise BadSettings(
                    f"{kind.upper()}_URL_{user.upper()} is not set: give the {user}'s own login at {elsewhere},"
                    f" where the {other}'s is"
                )
        return self.state

    def _place_in_folder(self, kind: str, user: str) -> str | None:
        try:
            return place(getattr(self.state, kind)[user])
        except (NotRunning, KeyError):
            return None

    def _set(self, kind: str, user: str) -> bool:
        own = getattr(self.settings, f"{kind}_url_{user}")
        return own is not None or (kind == "nats" and self.settings.nats_url is not None)


def ssot_dir(loaded: Settings) -> Path:
    """The SSOT folder: where ODOOOPS_SSOT_DIR says, else beside the packages."""
    given = loaded.odooops_ssot_dir
    return given.resolve() if "odooops_ssot_dir" in loaded.model_fields_set else ROOT / "ssot"


def place(url: str) -> str:
    """Host and port of an address, or of several with commas between: what may be shown of it."""
    parts = [urlsplit(each) for each in bus.servers(url)]
    return ", ".join(f"{each.hostname}:{each.port}" if each.port else str(each.hostname) for each in parts)


@asynccontextmanager
async def broker(url: str, user: str) -> AsyncIterator[Client]:
    """A connection to the broker; raises BrokerAway where there is none within REACH_S_MAX."""
    said: list[str] = []

    async def heard(reason: str) -> None:
        if "permissions violation" in reason and reason not in said:
            terminal.say(f"the broker does not let the {user}'s login do this: {reason}")
        said.append(reason)

    try:
        async with asyncio.timeout(REACH_S_MAX):
            client = await bus.connect(url, user, heard)
    except (TimeoutError, OSError):
        why = f": {said[-1]}" if said and said[-1] else ""
        raise BrokerAway(f"the broker at {place(url)} does not answer{why}") from None
    try:
        yield client
    finally:
        await client.close()
