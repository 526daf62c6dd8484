"""Retention: what is pruned, what is held, and what is proven of it."""
