"""Tests of the guards and the DDL events."""
