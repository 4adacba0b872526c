"""Write anew what the samples become: `python -m tests.providers.mailgun.regenerate`; then read the diff."""

from __future__ import annotations

import json

from tests.providers.mailgun.deliveries import EXPECTED, SAMPLES, expected_path, outcome


def main() -> None:
    EXPECTED.mkdir(exist_ok=True)
    for sample in SAMPLES:
        text = json.dumps(outcome(sample), indent=2, ensure_ascii=False)
        expected_path(sample).write_text(text + "\n")


if __name__ == "__main__":
    main()
