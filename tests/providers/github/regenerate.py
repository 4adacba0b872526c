"""Write anew what the samples become: `python -m tests.providers.github.regenerate`; then read the diff."""

from __future__ import annotations

import json

from tests.providers.github.deliveries import SAMPLES, expected_path, outcome


def main() -> None:
    for path in SAMPLES:
        expected = expected_path(path)
        expected.parent.mkdir(parents=True, exist_ok=True)
        expected.write_text(json.dumps(outcome(path), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
