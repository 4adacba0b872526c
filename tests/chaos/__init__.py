"""Chaos: everything is killed, stopped, cut off and filled up under load, from a seed; then the laws must hold."""
