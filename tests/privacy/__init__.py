"""Tests of values that the history holds in another form."""
