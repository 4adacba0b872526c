"""Write anew what the samples become: `python -m tests.providers.vercel.regenerate`; then read the diff."""

from __future__ import annotations

import json

from tests.providers.vercel.deliveries import SAMPLES, expected_path, outcome


def main() -> None:
    for sample in SAMPLES:
        expected = expected_path(sample)
        expected.parent.mkdir(parents=True, exist_ok=True)
        expected.write_text(json.dumps(outcome(sample), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
