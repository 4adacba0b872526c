"""Where an installation under test keeps everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import data_folder


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that nobody has made yet; gone afterwards."""
    with data_folder() as folder:
        yield folder / "data"
