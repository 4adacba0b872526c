"""SSOT folders of a test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROVIDER = "name: odooops\n"


def write(folder: Path, **catalogues: dict[str, Any]) -> None:
    """A folder with one source and these catalogues, and no other; JSON is YAML."""
    (folder / "providers").mkdir(parents=True, exist_ok=True)
    (folder / "providers" / "odooops.yaml").write_text(PROVIDER)
    for path in folder.glob("*.yaml"):
        path.unlink()
    for name, entries in catalogues.items():
        (folder / f"{name}.yaml").write_text(json.dumps({name: entries}))
