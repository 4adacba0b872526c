"""What we know: one table of `ops` per file, file name = table name. Begin with port.py."""
