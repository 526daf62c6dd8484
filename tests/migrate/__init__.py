"""Tests of the generated migrations."""
