"""Verification: attacks on a sealed trail, each found by name, and what must not alarm."""
