"""Write anew what the answers become: `python -m tests.providers.digitalocean.regenerate`; then read the diff."""

from __future__ import annotations

import json

from tests.providers.digitalocean.answers import ANSWERS, EXPECTED, expected_path, outcome


def main() -> None:
    EXPECTED.mkdir(exist_ok=True)
    for path in ANSWERS:
        expected_path(path).write_text(json.dumps(outcome(path), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
