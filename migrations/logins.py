"""`python -m migrations.logins`: make the services' logins that DATABASE_URL_<USER> name, by way of DATABASE_URL.

Each becomes a member of the role that the migrations made for it. Running it again sets the passwords anew.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import asyncpg

from runtime import embedded, settings
from runtime.settings import BadSettings, Settings

CONNECT_S_MAX = 10.0


def passwords(loaded: Settings) -> dict[str, str]:
    """Each service's password, from its own address; raises BadSettings where that names another login."""
    found = {}
    for user in embedded.DATABASE_USERS:
        address, login = urlsplit(loaded.database_for(user)), embedded.login_of(user)
        if address.username != login or not address.password:
            raise BadSettings(f"DATABASE_URL_{user.upper()} must hold the login {login} and its password")
        found[user] = unquote(address.password)
    return found


async def make(url: str, wanted: Mapping[str, str]) -> None:
    """Make or mend the logins, all or none."""
    connection = await asyncpg.connect(url, timeout=CONNECT_S_MAX)
    try:
        async with connection.transaction():
            await embedded.grant_logins(connection, wanted)
    finally:
        await connection.close()


def main() -> int:
    try:
        loaded = settings.load()
        asyncio.run(make(loaded.migrator_database(), passwords(loaded)))
    except (BadSettings, OSError) as error:
        sys.stderr.write(f"logins: {error}\n")
        return 1
    except asyncpg.PostgresError as error:
        # Without the statement: it holds a password.
        sys.stderr.write(f"logins: {type(error).__name__} ({error.sqlstate})\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
