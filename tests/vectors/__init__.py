"""Vectors of the formats, and what makes them."""
