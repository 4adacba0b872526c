"""`python -m runtime.provision`: make the streams and consumers that are missing, and name what drifted.

Exit code 0 where all is as it should be, 1 with one line per drifted setting, or with the reason of a failure.
"""

from __future__ import annotations

import asyncio
import sys

import nats.errors
from nats.js.errors import APIError

from runtime import bus, settings, streams
from runtime.bus import BrokerAway
from runtime.settings import BadSettings, Settings
from runtime.streams import Drift, HalfRestored

USER = "operator"
WAIT_S_MAX = 60.0
"""A cluster that has just started takes no stream before it has elected a leader and knows its peers."""
API_S_MAX = 10.0
RETRY_S = 0.25
UNAVAILABLE = 503
NO_PEERS = 10005
"""The server's code for: not as many brokers in sight as a stream is to have replicas."""


async def provision(loaded: Settings, wait_s: float = WAIT_S_MAX) -> list[Drift]:
    """As the operator, wait for the broker, make what is missing, and return what drifted.

    Raises BrokerAway where that was not possible within `wait_s`, APIError where the broker refused, HalfRestored.
    """
    url = loaded.nats_for(USER)
    said: list[str] = []

    async def heard(reason: str) -> None:
        if reason and reason not in said:
            said.append(reason)

    try:
        async with asyncio.timeout(wait_s):
            client = await bus.connect(url, USER, heard)
            try:
                while True:
                    try:
                        return await streams.provision(
                            client.jetstream(timeout=API_S_MAX), loaded.nats_replicas
                        )
                    except APIError as error:
                        if error.code != UNAVAILABLE and error.err_code != NO_PEERS:
                            raise
                        await heard(str(error.description))
                    except nats.errors.Error as error:
                        await heard(str(error))
                    await asyncio.sleep(RETRY_S)
            finally:
                await client.close()
    except TimeoutError:
        why = "; ".join(said) or "no answer"
        raise BrokerAway(f"the streams could not be made within {wait_s:g} s: {why}") from None


def main() -> int:
    try:
        drifted = asyncio.run(provision(settings.load()))
    except (BadSettings, BrokerAway, HalfRestored) as error:
        sys.stderr.write(f"provision: {error}\n")
        return 1
    except APIError as error:
        sys.stderr.write(f"provision: the broker refused: {error.description}\n")
        return 1
    for drift in drifted:
        sys.stderr.write(f"provision: a setting is not ours, left as it is: {drift}\n")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
