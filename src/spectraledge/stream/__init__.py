"""Torch side of the monitor: blocks, ring, monitor."""
