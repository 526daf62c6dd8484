"""Reads: what is recorded of each way to read, and what it answers."""
