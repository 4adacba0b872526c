"""`python -m migrations`: bring the database that DATABASE_URL names up to date. Running it again does nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from runtime import settings
from runtime.settings import BadSettings

FOLDER = Path(__file__).parent


def config(url: str) -> Config:
    """Alembic's configuration for the database at `url`."""
    made = Config()
    made.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    made.attributes["url"] = url
    return made


def upgrade(url: str, revision: str = "head") -> None:
    """Apply what is missing up to `revision`."""
    command.upgrade(config(url), revision)


def knows(revision: str) -> bool:
    """Whether this code has the migration."""
    scripts = ScriptDirectory.from_config(config(""))
    return revision in {script.revision for script in scripts.walk_revisions()}


def head() -> str:
    """The newest revision that this code knows."""
    newest = ScriptDirectory.from_config(config("")).get_current_head()
    assert newest is not None
    return newest


def main() -> int:
    try:
        upgrade(settings.load().migrator_database())
    except (BadSettings, OSError) as error:
        sys.stderr.write(f"migrations: {error}\n")
        return 1
    except SQLAlchemyError as error:
        sys.stderr.write(f"migrations: {getattr(error, 'orig', error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
