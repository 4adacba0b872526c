"""The outside world: settings, broker, database, HTTP, embedded servers. Knows contracts, no catalogue."""
