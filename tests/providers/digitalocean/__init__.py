"""DigitalOcean: recorded answers of its API, what they must become, and the traps among them."""
