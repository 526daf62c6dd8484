"""Tests of the questions, time travel and restoring."""
