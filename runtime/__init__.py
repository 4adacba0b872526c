"""The outside world: settings, broker, database, HTTP, embedded servers. Knows contracts, no catalogue."""

import atexit
import gc

# When a process ends, Python looks for garbage among all that was imported: as long as the imports took.
atexit.register(gc.freeze)
