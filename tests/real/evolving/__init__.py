"""A project whose models change thirteen times; run in processes of its own by `tests/real/test_evolving.py`."""
