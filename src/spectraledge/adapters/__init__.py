"""Monitors that frameworks start and stop: one module each, imported only by those who use it."""
