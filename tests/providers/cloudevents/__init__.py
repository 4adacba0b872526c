"""CloudEvents over HTTP: their modes, who may deliver them, and what they mean."""
