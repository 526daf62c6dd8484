"""Tests of the sealer."""
