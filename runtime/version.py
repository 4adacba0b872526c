"""Which release this is. A container runs the code from where it lies, so no installer's record is there to ask."""

VERSION = "0.1.0"
