"""Write anew what samples and answers become: `python -m tests.providers.github.regenerate`; then read the diff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.providers.github.deliveries import ANSWERS, SAMPLES, expected_path, outcome, outcome_of_answer


def main() -> None:
    for path in SAMPLES:
        write(expected_path(path), outcome(path))
    for path in ANSWERS:
        write(expected_path(path), outcome_of_answer(path))


def write(expected: Path, found: dict[str, Any]) -> None:
    """Write one outcome."""
    expected.parent.mkdir(parents=True, exist_ok=True)
    expected.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
