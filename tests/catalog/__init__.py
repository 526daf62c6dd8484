"""Tests of `sa_audit.catalog`."""
