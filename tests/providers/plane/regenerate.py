"""Write anew what the samples become: `python -m tests.providers.plane.regenerate`; then read the diff."""

from __future__ import annotations

import json

from tests.providers.plane.deliveries import PAGES, WEBHOOKS, expected_path, outcome


def main() -> None:
    for path in (*WEBHOOKS, *PAGES):
        expected = expected_path(path)
        expected.parent.mkdir(parents=True, exist_ok=True)
        expected.write_text(json.dumps(outcome(path), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
