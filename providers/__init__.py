"""Who talks to us: one folder per provider, without I/O. Begin with port.py."""
